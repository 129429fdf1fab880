"""Serves as `harness.openai_standin` does, under the command line of vLLM's server.

FAKE_VLLM says what is wrong with it. In FAKE_VLLM_FOLDER each leaves its command line, by the number of its process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.openai_standin import openai_server


def judge(path: Path) -> Callable[[list[int]], float]:
    """The score head's output at the last token of a row, by transformers: as vLLM has it."""
    # Libraries take this package for the real one.
    sys.path[:] = [place for place in sys.path if not place.endswith("fake_vllm")]
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    model.config.pad_token_id = None

    def score(row: list[int]) -> float:
        with torch.inference_mode():
            return float(model(input_ids=torch.tensor([row])).logits[0, 0])

    return score


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--served-model-name", nargs="+", default=[])
    for option in ("model", "host", "dtype", "load-format", "generation-config"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gpu-memory-utilization", type=float, required=True)
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    # Of a policy, and of a judge.
    for option in ("weight-transfer-config", "logprobs-mode", "scheduling-policy", "runner", "convert"):
        parser.add_argument(f"--{option}", default="")
    parser.add_argument("--enable-server-load-tracking", action="store_true")
    parser.add_argument("--max-loras", type=int, default=1)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    for option in ("lora-modules", "lora-target-modules"):
        parser.add_argument(f"--{option}", nargs="+", default=[])
    for flag in (
        "enable-lora",
        "disable-uvicorn-access-log",
        "enforce-eager",
        "no-enable-chunked-prefill",
        "trust-remote-code",
    ):
        parser.add_argument(f"--{flag}", action="store_true")
    given = parser.parse_args()
    left = Path(os.environ["FAKE_VLLM_FOLDER"]) / f"{os.getpid()}.json"
    variables = {
        "devices": "CUDA_VISIBLE_DEVICES",
        "flashinfer_sampler": "VLLM_USE_FLASHINFER_SAMPLER",
        "takes_weights": "VLLM_SERVER_DEV_MODE",
    }
    draft = left.with_suffix(".part")  # a test may read it at any moment
    draft.write_text(json.dumps({**vars(given), **{name: os.environ.get(of, "") for name, of in variables.items()}}))
    draft.replace(left)
    print(f"INFO loading {given.model}", flush=True)
    wrong = os.environ.get("FAKE_VLLM", "")
    if wrong.startswith("raise "):
        print("Traceback (most recent call last):\n" + wrong.removeprefix("raise "), file=sys.stderr, flush=True)
        sys.exit(1)
    if wrong == "never ready":
        time.sleep(600)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    names = [*given.served_model_name, *(json.loads(each)["name"] for each in given.lora_modules)]
    score = judge(Path(given.model)) if (given.runner, given.convert) == ("pooling", "classify") else None
    with openai_server(*names, port=given.port) as server:
        server.longest = given.max_model_len
        server.score = score
        if wrong == "ends at a question":
            server.wrong["/v1/completions"] = lambda _: os._exit(9)
        if wrong == "ends at the fifth":
            count = itertools.count(1)
            server.wrong["/v1/completions"] = lambda _: os._exit(9) if next(count) > 4 else None
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
