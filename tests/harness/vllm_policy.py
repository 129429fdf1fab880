"""Trains in one process that has vLLM, whose start takes seconds, with the policy's completions by vLLM.

    python -m harness.vllm_policy FILE

FILE is a list of trainings as JSON: ``environment``, ``happens`` (`""`, `sigterm` in the second batch, or `stale`: the
weights are brought over once only). The last line of the output is a list of exit codes, standard error has the logs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness.inprocess import process_state


def make_weight_sync_work() -> None:
    """Product code refuses a CPU, for the reason that `keep_weights_unpacked` tells."""
    from selfevo_trainer.grpo import vllm_policy

    keep_weights_unpacked()
    vllm_policy.check_machine = lambda: None


def keep_weights_unpacked() -> None:
    """vLLM's CPU build packs a layer's weights when it loads them and computes with the copy ever after, so that new
    ones would have no effect."""
    from vllm.model_executor.layers import utils

    def unpacked(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = unpacked


def train(environment: dict[str, str], happens: str) -> int:
    from selfevo_trainer.grpo.vllm_policy import PolicyByVllm
    from selfevo_trainer.main import main

    with process_state(), happening(PolicyByVllm, happens):
        os.environ |= environment
        return main()


@contextmanager
def happening(kind: Any, happens: str) -> Iterator[None]:
    """Within it ``happens`` in the second batch, or, `stale`, in each that brings weights over but the first.

    `lost`: the process whose number is the variable SERVER_PID is killed in the middle of the second batch.
    """
    generate, sync, seen = kind.generate, kind.sync_weights, {"batches": 0, "syncs": 0}

    def generated(self: Any, *args: Any, **more: Any) -> Any:
        seen["batches"] += 1
        if happens == "sigterm" and seen["batches"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if happens == "lost" and seen["batches"] == 2:
            os.kill(int(os.environ["SERVER_PID"]), signal.SIGKILL)
        return generate(self, *args, **more)

    def synced(self: Any) -> None:
        seen["syncs"] += 1
        if happens != "stale" or seen["syncs"] == 1:
            sync(self)

    kind.generate, kind.sync_weights = generated, synced
    try:
        yield
    finally:
        kind.generate, kind.sync_weights = generate, sync


if __name__ == "__main__":
    make_weight_sync_work()
    print(json.dumps([train(**training) for training in json.loads(Path(sys.argv[1]).read_text())]))
