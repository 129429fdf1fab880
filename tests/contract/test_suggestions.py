"""What is suggested makes the phases fit, is needed, and leaves alone what takes less already."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import TRIAD
from runs import by_transformers, merged
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS, known
from selfevo_contract.sizing.memory import CARDS, needs
from selfevo_contract.sizing.suggestions import Suggestion, suggestions
from selfevo_contract.spec.run import RunSpec

WHOLE = {"sharding": None}


def spec_of(example: str, **spec: Any) -> RunSpec:
    return SelfEvolutionRun.model_validate(merged(by_transformers(example), {"spec": spec})).spec


def suggested(spec: RunSpec, card: str) -> list[Suggestion]:
    model = known(spec.model.uri)
    assert model is not None
    return list(suggestions(spec, model, card))


def words(found: list[Suggestion]) -> list[str]:
    return [f"{one.written} in {', '.join(one.places)}" for one in found]


def both(**grpo: Any) -> dict[str, Any]:
    return {role: {"grpo": grpo} for role in ("challenger", "solver")}


def test_nothing_that_is_written_is_made_larger() -> None:
    small = both(generationBatchTokens=4400, lora={"rank": 8})
    spec = spec_of("qwen3-4b-base", **small)
    found = suggested(spec, "24 GB")
    assert words(found) == ["batchSize: 16 in challenger.engine, rollout.engine, evaluation.engine"]
    totals = {need.phase: need.total for need in needs(spec, MODELS["Qwen3-4B-Base"])}
    assert all(need.total <= totals[need.phase] for need in found[-1].needs)
    # A rank that a person chose stays, though the default's adapter would take less.
    found = suggested(spec_of("qwen3-4b-lora", **both(lora={"rank": 256}, maxCompletionLength=16_000)), "24 GB")
    assert found and not any("lora" in one.written for one in found)
    # Half of the written tokens, and no number of its own.
    tokens = both(generationBatchTokens=60_000, perDeviceTrainBatchSize=1)
    found = suggested(spec_of("qwen3-4b-lora", **tokens), "24 GB")
    assert "generationBatchTokens: 15000 in challenger.grpo" in words(found)


@pytest.mark.parametrize(
    ("example", "card", "changes", "expected"),
    [
        # what the engine takes is made smaller by the engine, and no further than it has to be
        (
            "qwen3-8b-base",
            "80 GB",
            {"challenger": {"engine": {"batchSize": 64}}},
            ["batchSize: 32 in challenger.engine"],
        ),
        (
            "qwen3-4b-lora",
            "24 GB",
            {},
            [
                "perDeviceTrainBatchSize: 1 in challenger.grpo",
                "generationBatchTokens: 16384 in challenger.grpo",
                "generationBatchTokens: 65536 in solver.grpo",
                "batchSize: 4 in challenger.engine",
                "batchSize: 16 in rollout.engine, evaluation.engine",
            ],
        ),
        # what came first is given up where a later one is enough by itself
        ("qwen3-4b-base", "80 GB", both(**WHOLE), ["sharding: fsdp in challenger.grpo, solver.grpo"]),
        # a role that fits stays as it is
        (
            "qwen3-4b-base",
            "80 GB",
            {"solver": {"grpo": WHOLE, "pods": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}},
            ["lora: {} in solver.grpo"],
        ),
        # vLLM in the training process has no batches of these tokens, and needs whole weights
        (
            "qwen3-4b-base",
            "80 GB",
            {"challenger": {"grpo": WHOLE | {"generation": "vllm"}}},
            ["lora: {} in challenger.grpo"],
        ),
        # float16 is not sharded
        ("qwen3-4b-base", "80 GB", both(**WHOLE) | {"model": {"dtype": "float16"}}, ["lora"]),
    ],
)
def test_what_is_suggested_makes_it_fit_and_each_of_it_is_needed(
    example: str, card: str, changes: dict[str, Any], expected: list[str]
) -> None:
    found = suggested(spec_of(example, **changes), card)
    assert all(need.total <= CARDS[card] for need in found[-1].needs)
    assert len(found) == 1 or any(need.total > CARDS[card] for need in found[-2].needs)
    if expected == ["lora"]:
        assert not any("sharding" in one.written for one in found) and found[-1].written == "lora: {}"
    else:
        assert words(found) == expected


def test_a_judge_is_made_to_fit_too() -> None:
    judged: dict[str, Any] = {role: {"reward": {"mode": "judged"}} for role in ("challenger", "solver")}
    found = suggested(spec_of("qwen3-4b-base", **judged, verifier=TRIAD["spec__verifier"]), "80 GB")
    assert words(found) == ["perDeviceTrainBatchSize: 1 in verifier", "batchSize: 32 in verifier.engine"]
    assert all(need.total <= CARDS["80 GB"] for need in found[-1].needs)


def test_cpu_memory_that_a_limit_does_not_give_is_not_suggested() -> None:
    def offloads(memory: str) -> bool:
        limits = {"limits": {"nvidia.com/gpu": 8, "memory": memory}}
        roles = {role: {"pods": {"resources": limits}} for role in ("challenger", "solver")}
        return any("cpuOffload" in line for line in words(suggested(spec_of("qwen3-8b-base", **roles), "24 GB")))

    assert offloads("200Gi") and not offloads("100Gi")
