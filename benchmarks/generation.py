"""Tokens a second of the engine `vllm` beside vLLM's own offline `generate`, and beside the engine `transformers`.

    make vllm-environment                       # a Python with vLLM's CPU build; where there is a GPU, selfevo[vllm]
    PYTHONPATH=contract:trainer:benchmarks PYTHON benchmarks/generation.py

«bare» is what a person would write with vLLM: its LLM with the same weights, dtype and room, its own tokenizer and its
own `n` samples a request. Cases are 1, 10 and 40 samples a prompt, with prompts that share a long beginning and prompts
that share none. The weights are random and of SmolLM2-135M's shape, made here: answers are as long as they may be, but
for one in as many tokens as the vocabulary has. bare and ours are asked turn by turn, each in a process of its own, and
every case --repeats times there, by other words. What counts is the fastest turn of each: what else the machine does
makes a turn slower, never faster. Both have seeds, whose draws a CPU makes row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import provenance

WAYS = ("ours", "bare", "transformers")
PROMPT_WORDS = 128
LENGTH = 32
CASES = {  # samples a prompt -> prompts; about as many completions each
    1: 24,
    10: 4,
    40: 2,
}
MOST_REPEATS = 7
"""The vocabulary has words for no more."""


def asks(count: int, *, shared: bool, turn: int) -> list[list[dict[str, str]]]:
    """Conversations of PROMPT_WORDS words, alike but for the last one, or from the first one on; other words in every
    ``turn`` below 2 * MOST_REPEATS + 1, so that no cache holds the beginning."""
    found = []
    for number in range(count):
        first = (turn * max(CASES.values()) + (0 if shared else number)) * PROMPT_WORDS
        words = [f"w{first + i}" for i in range(PROMPT_WORDS)]
        found.append([{"role": "user", "content": " ".join([*words, f"w{number}"])}])
    return found


def ours(model: Path, dtype: str, repeats: int, kind: str) -> dict[str, Any]:
    """The engine ``kind`` by the trainer's own interface."""
    from pydantic import TypeAdapter

    from selfevo_contract.phases import Loading
    from selfevo_contract.spec.engines import Engine
    from selfevo_contract.spec.sampling import Sampling
    from selfevo_trainer.engines import Frozen, open_engine

    settings = {"kind": kind, **({"gpuMemoryUtilization": 0.8} if kind == "vllm" else {"batchSize": 256})}
    weights = Frozen(model, Loading.model_validate({"dtype": dtype, "trustRemoteCode": False}), "random", "model", 512)
    engine = open_engine(TypeAdapter(Engine).validate_python(settings), weights)
    sampling = Sampling.model_validate({"topP": 1.0, "maxCompletionLength": LENGTH})

    def ask(prompts: list[list[dict[str, str]]], samples: int) -> int:
        groups = engine.generate(prompts, sampling, samples, 7)
        return sum(completion.tokens for group in groups for completion in group)

    return timed(ask, repeats)


def bare(model: Path, dtype: str, repeats: int) -> dict[str, Any]:
    """vLLM as its documentation has it."""
    import vllm
    from vllm.platforms import current_platform

    llm = vllm.LLM(
        model=str(model), dtype=dtype, max_model_len=512, gpu_memory_utilization=0.8, generation_config="vllm",
        enforce_eager=current_platform.is_cpu(),
    )  # fmt: skip

    def ask(prompts: list[list[dict[str, str]]], samples: int) -> int:
        parameters = vllm.SamplingParams(n=samples, temperature=1.0, max_tokens=LENGTH, seed=7)
        texts = [f"user: {prompt[0]['content']}" for prompt in prompts]
        made = llm.generate(texts, parameters, use_tqdm=False)
        return sum(len(each.token_ids) for output in made for each in output.outputs)

    return timed(ask, repeats)


def timed(ask: Any, repeats: int) -> dict[str, Any]:
    """Tokens and seconds of every turn of every case."""
    ask(asks(2, shared=False, turn=2 * MOST_REPEATS), 1)
    found: dict[str, Any] = {}
    for repeat in range(repeats):
        for shared in (True, False):
            for samples, count in CASES.items():
                prompts = asks(count, shared=shared, turn=2 * repeat + shared)
                begun, cpu = time.perf_counter(), time.process_time()
                tokens = ask(prompts, samples)
                case = f"{samples} samples, {'one beginning' if shared else 'no beginning'} in common"
                wall, spent = time.perf_counter() - begun, time.process_time() - cpu
                found.setdefault(case, []).append(
                    {"tokens": tokens, "wall_s": round(wall, 3), "cpu_s": round(spent, 3)}
                )
    return found


def child(way: str, model: Path, dtype: str, repeats: int) -> dict[str, Any]:
    """One way in a process of its own, so that neither finds the other's caches."""
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [sys.executable, __file__, "--way", way, "--model", str(model), "--dtype", dtype]
    command += ["--repeats", str(repeats)]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def write_model(folder: Path, dtype: str) -> None:
    """Random weights of SmolLM2-135M's shape (config.json of HuggingFaceTB/SmolLM2-135M), and a tokenizer of words."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from shapes import SPECIALS, write_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    write_tokenizer(folder, [f"w{i}" for i in range(config.vocab_size - len(SPECIALS))])


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """By case: tokens a second of each way in its fastest turn, ours over bare of those, and the median by turns."""
    found: dict[str, Any] = {}
    for case in rounds[0]["ours"]:
        found[case] = {}
        for clock in ("wall_s", "cpu_s"):
            rates = {
                way: [turn["tokens"] / turn[clock] for each in rounds for turn in each.get(way, {}).get(case, [])]
                for way in WAYS
            }
            ratios = [a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)]
            found[case][f"tokens_per_{clock.removesuffix('_s')}_second"] = {
                **{way: round(max(turns), 1) for way, turns in rates.items() if turns},
                "ours_over_bare": round(max(rates["ours"]) / max(rates["bare"]), 3),
                "ours_over_bare_median": round(statistics.median(ratios), 3),
            }
    return found


def main() -> int:
    """Rounds of ours and bare in turns; transformers once, for it is slow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, choices=range(1, MOST_REPEATS + 1))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "generation.json")
    given = parser.parse_args()
    if given.way:
        kind = {"ours": "vllm", "transformers": "transformers"}.get(given.way)
        how = (given.model, given.dtype, given.repeats)
        print(json.dumps(bare(*how) if kind is None else ours(*how, kind)))
        return 0
    rounds = []
    with tempfile.TemporaryDirectory(prefix="selfevo-generation-") as folder:
        write_model(Path(folder), given.dtype)
        for number in range(given.rounds):
            ways = ["ours", "bare"] if number % 2 == 0 else ["bare", "ours"]
            rounds.append({way: child(way, Path(folder), given.dtype, given.repeats) for way in ways})
            if number == 0:
                rounds[0]["transformers"] = child("transformers", Path(folder), given.dtype, 1)
            result = {
                **provenance(),
                "dtype": given.dtype,
                "cases": summary(rounds),
                "rounds": rounds,
            }
            given.out.write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result["cases"], indent=1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
