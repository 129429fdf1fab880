"""The formula of docs/sizing.md beside torch's own memory tracker, on models without contents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runs import by_transformers
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.memory import GIB, needs
from selfevo_contract.sizing.suggestions import with_settings

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "memory.json"
MODEL_OF = {"qwen3-4b-base": "Qwen3-4B-Base", "qwen3-8b-base": "Qwen3-8B-Base", "qwen3-4b-lora": "Qwen3-4B-Base"}


def spec_of(example: str, *, sharded: bool = False) -> Any:
    spec = SelfEvolutionRun.model_validate(by_transformers(example)).spec
    return with_settings(spec, sharding="fsdp" if sharded else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "model", "layers", "change"),
    [
        ("qwen3-4b-base", "Qwen3-4B-Base", 4, {}),
        ("qwen3-8b-base", "Qwen3-8B-Base", 4, {}),
        ("qwen3-4b-lora", "Qwen3-4B-Base", 4, {}),
        ("octothinker-8b-hybrid-base", "OctoThinker-8B-Hybrid-Base", 2, {}),
        ("qwen3-4b-base", "Qwen3-4B-Base", 4, {"gradient_checkpointing": False}),
        ("qwen3-4b-lora", "Qwen3-4B-Base", 4, {"gradient_checkpointing": False, "generation_batch_tokens": 8192}),
        ("qwen3-4b-base", "Qwen3-4B-Base", 4, {"sharding": "fsdp", "gradient_checkpointing": False}),
        ("qwen3-8b-base", "Qwen3-8B-Base", 4, {"sharding": "fsdp"}),
    ],
)
def test_a_pass_and_a_token_take_what_torchs_tracker_says(
    example: str, model: str, layers: int, change: dict[str, Any]
) -> None:
    """Layers are alike: what holds for few of them holds for all, and benchmarks/memory.py has all."""
    from memory import compare

    spec = with_settings(spec_of(example), **change)
    (found,) = compare(example, spec, replace(MODELS[model], layers=layers), ["solver-train"])
    assert found.formula == pytest.approx(found.tracked, rel=0.1), found
    assert found.formula_pass == pytest.approx(found.tracked_pass, rel=0.1), found
    assert found.formula_generation == pytest.approx(found.tracked_generation, rel=0.1), found


def test_the_committed_comparison_is_of_this_formula_and_within_a_tenth() -> None:
    rows = json.loads(RESULT.read_bytes())["gib"]
    found = {(row["example"], row["phase"], row["sharded"]): row for row in rows}
    shown = [(example, False) for example in MODEL_OF] + [("qwen3-4b-base", True), ("qwen3-8b-base", True)]
    for example, sharded in shown:
        name = MODEL_OF[example]
        for need in needs(spec_of(example, sharded=sharded), MODELS[name]):
            if need.backward:
                row = found[example, need.phase, sharded]
                assert row["layers"] == MODELS[name].layers
                formula = (need.held + max(need.backward, need.generation)) / GIB
                assert row["formula"] == pytest.approx(formula, abs=0.01), "run `python benchmarks/memory.py`"
                assert formula == pytest.approx(row["tracked"], rel=0.1)
