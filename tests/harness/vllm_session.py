"""What tests/trainer/test_vllm_engine.py checks, found out in one process that has vLLM: its start takes seconds.

python -m harness.vllm_session FOLDER      prints one object of JSON
"""

from __future__ import annotations

import dataclasses
import gc
import json
import multiprocessing
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from harness.adapters import an_adapter
from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_contract.spec.engines import TransformersEngine, VllmEngine
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.engines import Engine, Frozen, open_engine, probes, vllm_engine
from selfevo_trainer.inputs.fingerprints import Fingerprint, check
from selfevo_trainer.models.loading import load_for_generation, load_tokenizer
from selfevo_trainer.prompts import Messages, encode, messages

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "arithmetic"
BASE, HELDOUT = EXAMPLES / "base", EXAMPLES / "heldout.jsonl"
LOADING = Loading(dtype="float32", trust_remote_code=False)
ROWS = [[1, 2, 3, 20, 30, 7, 9], [5, 6], list(range(40))]


def asks(count: int) -> list[Messages]:
    lines = HELDOUT.read_text().splitlines()[:count]
    return [messages(Prompt(user="{question}"), json.loads(line)["question"]) for line in lines]


def long_asks(count: int) -> list[Messages]:
    """Of about 160 tokens each."""
    return [messages(Prompt(user="{question}"), f"{number} + 1" * 30) for number in range(10, 10 + count)]


def sampling(**settings: Any) -> Sampling:
    return Sampling.model_validate({"topP": 1.0, "maxCompletionLength": 32, "temperature": 1.0, **settings})


def opened(path: Path, longest: int = 80, loading: Loading = LOADING, **settings: Any) -> Engine:
    made = VllmEngine.model_validate({"kind": "vllm", **settings})
    return open_engine(made, Frozen(path, loading, "base", "model", longest))


def plain(groups: Any) -> Any:
    return [[dataclasses.astuple(completion) for completion in group] for group in groups]


def refused(what: Any) -> str:
    try:
        what()
    except InputError as error:
        return str(error)
    return "taken"


assert vllm_engine  # imported before the random state is read: some of what it imports draws


def state() -> list[Any]:
    return [torch.get_rng_state().tolist(), str(random.getstate()), str(np.random.get_state())]


def by_transformers(path: Path) -> dict[str, Any]:
    engine = open_engine(TransformersEngine(), Frozen(path, LOADING, "base", "model", 0))
    return {"greedy": plain(engine.generate(asks(40), sampling(temperature=0), 1, 0)), "scores": engine.score(ROWS)}


def fingerprint(path: Path, before: Path | None = None) -> Fingerprint:
    """What a training that began with ``before`` commits beside the model at ``path``."""
    tokenizer = load_tokenizer(path, LOADING)
    prompts = [encode(tokenizer, each) for each in asks(4)]
    rows = probes.draw(load_for_generation(before or path, LOADING, "cpu"), tokenizer, prompts, [], LOADING.dtype)
    if before is not None:
        rows = probes.after_training(load_for_generation(path, LOADING, "cpu"), rows)
    return Fingerprint(rows, "" if before is None else "the model before")


def verdicts(engine: Engine, fingerprints: dict[str, Fingerprint]) -> dict[str, str]:
    """What the check before a rollout says of ``engine`` where these models are wanted."""
    config = SimpleNamespace(engine=VllmEngine(kind="vllm"), inputs=SimpleNamespace(phase="solver-rollout"))
    context: Any = SimpleNamespace(config=config)
    return {
        name: refused(lambda: check(context, engine, Frozen(Path(name), LOADING, name, "solver", 0), wanted))  # noqa: B023
        for name, wanted in fingerprints.items()
    }


def by_vllm(fingerprints: dict[str, Fingerprint]) -> dict[str, Any]:
    before, environment = state(), dict(os.environ)
    engine: Any = opened(BASE)
    started = state()
    prompts = asks(40)
    whole = plain(engine.generate(prompts, sampling(), 5, 7))
    found = {
        "whole": whole,
        "again": plain(engine.generate(prompts, sampling(), 5, 7)),
        "fewer": plain(engine.generate(prompts, sampling(), 2, 7)),
        "part": plain(engine.generate([prompts[i] for i in (31, 4, 17)], sampling(), 5, 7, [31, 4, 17])),
        "alone": plain(engine.generate([prompts[4]], sampling(), 5, 7, [4])),
        "two_numbers": plain(engine.generate([prompts[4], prompts[4]], sampling(), 5, 7, [4, 5])),
        "other_seed": plain(engine.generate(prompts, sampling(), 5, 8)),
        # More tokens of prompts than vLLM takes at a time (max_num_batched_tokens, 4096).
        "crowd": plain(engine.generate(long_asks(40), sampling(maxCompletionLength=8), 1, 7)),
        "of_crowd": plain(engine.generate(long_asks(40)[35:], sampling(maxCompletionLength=8), 1, 7, range(35, 40))),
        "none": engine.generate([], sampling(), 5, 8),
        "greedy": plain(engine.generate(prompts, sampling(temperature=0), 1, 0)),
        "top_k_1": plain(engine.generate(prompts, sampling(topK=1), 1, 3)),
        "wild": plain(engine.generate(asks(1), sampling(temperature=2.0, maxCompletionLength=1), 400, 0)),
        "wild_2": plain(engine.generate(asks(1), sampling(temperature=2.0, maxCompletionLength=1, topK=2), 400, 0)),
        "cut": plain(engine.generate(prompts, sampling(temperature=0, maxCompletionLength=8), 1, 0)),
        "scores": engine.score(ROWS),
        "too_long": refused(lambda: engine.generate(prompts[:1], sampling(maxCompletionLength=500), 1, 0)),
        "too_hot": refused(lambda: engine.generate(prompts[:1], sampling(temperature=2.5), 1, 0)),
        "state_kept": [started == before, state() == before],
        "room": engine.longest,
        "where_wanted": verdicts(engine, fingerprints),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    found["threads_can_be_set"] = torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    changed = {name for name in environment if os.environ.get(name) != environment[name]}
    engine.close()
    return {**found, "environment_changed": sorted(changed), "left": left(), "state_after": state() == before}


def left() -> dict[str, Any]:
    """What a closed engine has left of itself."""
    gc.collect()
    return {
        "models": sum(type(each).__name__ == "Qwen3ForCausalLM" for each in gc.get_objects()),
        "groups": torch.distributed.is_initialized(),
        "processes": len(multiprocessing.active_children()),
    }


def another_model(folder: Path, **settings: Any) -> Path:
    """The base's shape but for ``settings``, with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    factory: Any = AutoModelForCausalLM  # transformers annotates no constructor
    model = factory.from_config(AutoConfig.from_pretrained(BASE, **settings))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


def as_one_of_several(path: Path) -> dict[str, Any]:
    """In a process that has a process group, as those that train together do."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    distributed: Any = torch.distributed  # it exports no store by name
    store = distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    engine = opened(path)
    found = {
        "greedy": plain(engine.generate(asks(40), sampling(temperature=0), 1, 0)),
        "scores": engine.score(ROWS),
        "children": len(multiprocessing.active_children()),
    }
    engine.close()
    ones = torch.ones(1)
    torch.distributed.all_reduce(ones)
    group_works = ones.item() == 1 and os.environ["RANK"] == "0"
    return {**found, "group_works": group_works, "children_after": len(multiprocessing.active_children())}


def main(folder: Path) -> None:
    other, adapter = another_model(folder / "other"), an_adapter(folder / "adapter")
    fingerprints = {
        "base": fingerprint(BASE),
        "other": fingerprint(other),
        "adapter": fingerprint(adapter, BASE),
    }
    found: dict[str, Any] = {"vllm": by_vllm(fingerprints), "transformers": by_transformers(BASE)}
    engine = opened(other)
    found["other"] = {"scores": engine.score(ROWS), "by_transformers": by_transformers(other)["scores"]}
    engine.close()
    engine = opened(adapter)
    found["adapter"] = {"scores": engine.score(ROWS), "by_transformers": by_transformers(adapter)["scores"]}
    found["adapter"]["where_wanted"] = verdicts(engine, fingerprints)
    engine.close()
    found["head_dim"] = refused(lambda: opened(another_model(folder / "narrow", head_dim=24)))
    config = json.loads((other / "config.json").read_text())
    (folder / "narrow" / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen9ForCausalLM"]}))
    found["architecture"] = refused(lambda: opened(folder / "narrow"))
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = ""
    found["memory"] = refused(lambda: opened(BASE, gpuMemoryUtilization=0.001))
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    eight_bits = LOADING.model_copy(update={"dtype": "bfloat16", "quantization": "fp8"})
    found["fp8"] = refused(lambda: opened(BASE, loading=eight_bits))
    found["left"] = left()
    found["several"] = as_one_of_several(other)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
