"""What an attempt takes before it computes, and what a call costs however small the model is: as one GPU showed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gpu_phases as gpu
from runs import EXAMPLES
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing import speeds
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.hours import Lengths, Machine, Took, took
from selfevo_contract.sizing.starting import starting_seconds
from selfevo_contract.spec.grpo import Grpo

SMALL = MODELS["Qwen3-0.6B-Base"]
FOUND = json.loads((EXAMPLES.parent / "benchmarks" / "results" / "gpu.json").read_text())
EAGER = "vllm, nothing compiled"


def run_of(engine: str, *, eager: bool = False) -> SelfEvolutionRun:
    """What benchmarks/gpu.py ran."""
    return gpu.manifest("qwen3-0.6b", Path("/b"), Path("/h"), Path("/s"), engine, "bfloat16", eager)


def estimate_of(part: str, step: str) -> Took:
    run = run_of(part.split(",")[0], eager=part == EAGER)
    return took(plan(run.spec).by_name[step], run.spec, SMALL, "141 GB", Lengths(full=True))


@pytest.mark.parametrize(
    ("part", "step", "speed", "whole"),
    [
        ("vllm", "evaluate-0", 0.1, 0.1),
        ("vllm", "challenger-train-1", 0.15, 0.2),
        ("vllm", "solver-rollout-1", 0.1, 0.2),
        (EAGER, "evaluate-0", 0.1, 0.1),
        # The first batches, which fill torch's memory, are counted with the start.
        ("transformers", "evaluate-0", None, 0.15),
        ("transformers", "challenger-train-1", None, 0.1),
    ],
)
def test_phases_take_as_long_as_they_took(part: str, step: str, speed: float | None, whole: float) -> None:
    measured, estimated = FOUND["engines"][part][step], estimate_of(part, step)
    timings = measured["timings_s"]
    if speed is not None:
        tokens_a_second = estimated.tokens / estimated.generating / 3600
        assert tokens_a_second == pytest.approx(measured["tokens_per_generation_second"], rel=speed)
    # What was held out is not known to the formula, which guesses 500 questions.
    generating = estimated.generating * measured["generated_tokens"] / estimated.tokens
    seconds = sum(timings.get(name, 0.0) for name in ("startup", "store", "load", "generation", "training"))
    assert 3600 * (estimated.starting + generating + estimated.training) == pytest.approx(seconds, rel=whole)


def test_training_of_a_small_model_takes_as_long_as_it_took() -> None:
    measured, estimated = FOUND["training"]["whole"]["timings_s"], estimate_of("vllm", "solver-train-1")
    assert 3600 * estimated.training == pytest.approx(measured["training"], rel=0.05)
    assert 3600 * estimated.generating == pytest.approx(measured["generation"], rel=0.15)


def test_the_least_that_a_call_costs_is_nothing_to_a_large_model() -> None:
    def seconds(model: str, batch: int) -> list[float]:
        here = Machine(MODELS[model], "80 GB")
        return [
            here.pass_seconds(Grpo(beta=0.0, perDeviceTrainBatchSize=batch), 64, 1024),
            here.by_vllm(2560, 256, 1024, 0.9),
            here.by_vllm(2560, 256, 1024, 0.9, eager=True),
            here.by_transformers(64, 64, 1024, 2),
        ]

    tiny, small, large = (seconds(name, 4) for name in ("SmolLM2-135M-Instruct", "Qwen3-0.6B-Base", "Qwen3-8B-Base"))
    # 30 layers take longer than 28, and weights nothing: four tokens of 135 million, less than one of 600 million.
    assert tiny[0] == pytest.approx(3 * 16 * 30 * 2.0 / 1e3) and tiny[0] > small[0] * 0.9
    assert tiny[1] == pytest.approx(10 * 1024 * 10.5 / 1e3, rel=0.15) == pytest.approx(small[1], rel=0.15)
    assert tiny[2] == pytest.approx(10 * 1024 * 30 * 1.2 / 1e3, rel=0.15) and tiny[2] > 3 * tiny[1]
    assert tiny[3] == pytest.approx(1024 * 30 * 1.0 / 1e3, rel=0.05)
    # Eight billion: as long as FLOPs and bytes say. Half as many sequences a pass cost the same there, and twice here.
    assert large[0] == seconds("Qwen3-8B-Base", 2)[0] and seconds("SmolLM2-135M-Instruct", 2)[0] == 2 * tiny[0]
    assert large[1] > 2 * small[1] and large[0] > 4 * small[0]


def starting(step: str = "solver-rollout-1", **changes: Any) -> float:
    """Seconds of a step of the benchmark's run with another engine, or other settings of both roles."""
    spec = run_of("transformers").spec
    for part in ("challenger", "rollout", "evaluation"):
        if "engine" in changes:
            spec = with_part(spec, part, engine=changes["engine"])
    for role in ("challenger", "solver"):
        grpo = getattr(spec, role).grpo.model_dump(by_alias=True, exclude_unset=True) | changes.get("grpo", {})
        spec = with_part(spec, role, grpo=grpo)
    return starting_seconds(plan(spec).by_name[step], spec, SMALL)


def with_part(spec: Any, part: str, **fields: Any) -> Any:
    document = spec.model_dump(by_alias=True, exclude_unset=True)
    return type(spec).model_validate(document | {part: {**document[part], **fields}})


def test_what_settings_do_to_a_start() -> None:
    one = 2 * SMALL.parameters / 1e9  # GB of the base, which the first iteration reads
    files = one / speeds.STORE.value + one / speeds.LOADING.value
    begin, grow = speeds.START.value, speeds.GROWTH.value
    first, again, eager = speeds.VLLM_START.value, speeds.VLLM_AGAIN.value, speeds.VLLM_EAGER.value
    vllm: dict[str, Any] = {"kind": "vllm"}
    # A rollout has two models, one after another: the base, and a Challenger that is saved in twice as many bytes.
    assert starting() == pytest.approx(begin + 3 * files + grow)
    assert starting(engine=vllm) == pytest.approx(begin + 3 * files + first + again)
    assert starting(engine=vllm | {"enforceEager": True}) == pytest.approx(begin + 3 * files + 2 * eager)
    assert starting(engine={"kind": "server"}) == starting(engine=vllm)
    endpoint = {"kind": "server", "endpoint": {"url": "http://127.0.0.1:1"}}
    assert starting(engine=endpoint) == pytest.approx(begin + 3 * one / speeds.STORE.value)
    assert starting("evaluate-0", engine=vllm) == pytest.approx(begin + files + first)
    # A training has its reference beside what it trains, and vLLM where that writes its completions.
    reference = one / speeds.LOADING.value
    assert starting("solver-train-1") == pytest.approx(begin + files + reference)
    assert starting("solver-train-1", grpo={"beta": 0.0}) == pytest.approx(begin + files)
    by_vllm = {"generation": "vllm"}
    assert starting("solver-train-1", grpo=by_vllm) == pytest.approx(begin + files + reference + first)
    assert starting("challenger-train-1", engine=vllm) == pytest.approx(begin + 2 * files + reference + first)
    assert starting("challenger-train-1", engine=endpoint) == pytest.approx(
        begin + 2 * files
    )  # the reference, no Solver
