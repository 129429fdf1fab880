"""Trains with the policy's completions by a vLLM server that runs already, each time in a process of its own, forked
from one with everything imported.

    python -m harness.served_policy FILE

FILE is a list of trainings as JSON: ``environment``, ``happens`` (see `vllm_policy.happening`), and ``folder``, in
which two processes that share the weights out leave their logs; empty where one process trains. The last line of the
output is a list of exit codes.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from harness import pods, weights_on_cpu
from harness.vllm_policy import happening, keep_weights_unpacked
from runs import HEAVY_MODULES
from selfevo_contract.process import PROCESSES_ENV


def train(environment: dict[str, str], happens: str, folder: str) -> None:
    from selfevo_trainer.grpo.vllm_served import PolicyByServer
    from selfevo_trainer.main import main

    if folder:
        pods._be_pod({**environment, PROCESSES_ENV: "2"}, folder, pods.Script(shards=True))
    with happening(PolicyByServer, happens):
        os.environ |= environment
        sys.exit(main())


def in_a_process(training: dict[str, Any]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=train, kwargs=training)
    process.start()
    process.join(pods.HANGS_S)
    return process.exitcode


if __name__ == "__main__":
    for module in (*HEAVY_MODULES, "vllm", "selfevo_trainer.phases.solver_train"):
        importlib.import_module(module)
    weights_on_cpu.sends()
    keep_weights_unpacked()  # of what runs in the training process
    print(json.dumps([in_a_process(training) for training in json.loads(Path(sys.argv[1]).read_text())]))
