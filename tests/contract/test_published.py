"""What spec.publish puts elsewhere: models as their types are, adapters, and the curricula of its iterations."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_contract.sizing.architecture import MODELS
from selfevo_contract.sizing.published import Published, published
from selfevo_contract.sizing.weights import model_bytes
from selfevo_contract.spec.run import RunSpec

QWEN = MODELS["Qwen3-0.6B-Base"]
P = QWEN.parameters
AT_HUB = {"uri": "hf://Qwen/Qwen3-0.6B-Base@main", "dtype": "bfloat16"}


def spec_of(publish: dict[str, Any], lora: bool = False, **changes: Any) -> RunSpec:
    """Two iterations with rollouts of 16 questions."""
    if lora:
        changes["spec__solver__grpo__lora"] = {}
    return make_run(spec__publish={"to": "hf://acme/sums", **publish}, **changes).spec


def found(spec: RunSpec) -> list[Published]:
    return published(spec, plan(spec), QWEN)


def test_a_run_without_the_field_publishes_nothing() -> None:
    assert found(make_run().spec) == []


@pytest.mark.parametrize(
    ("publish", "curricula"),
    [
        ({}, [2]),
        ({"what": "each"}, [1, 2]),
        ({"curriculum": False}, [0]),
        ({"what": "each", "curriculum": False}, [0, 0]),
    ],
)
def test_models_and_curricula(publish: dict[str, Any], curricula: list[int]) -> None:
    each = found(spec_of(publish, spec__model=AT_HUB))
    assert [one.curricula for one in each] == curricula
    assert [one.model for one in each] == [2 * P] * len(curricula)
    assert [one.rows for one in each] == [count * 16 * 256 * 4 for count in curricula]
    # The store has it in float32, and the curricula.
    assert [one.read for one in each] == [4 * P + one.rows for one in each]


@pytest.mark.parametrize(
    ("model", "lora", "adapter", "size", "read"),
    [
        (AT_HUB, False, False, 2 * P, 4 * P),
        ({**AT_HUB, "dtype": "float32"}, False, False, 4 * P, 4 * P),
        (AT_HUB, True, True, None, 0),
        # Merged into a base that is elsewhere, which is read, too.
        ({"uri": "file:///models/base", "dtype": "bfloat16"}, True, False, 2 * P, 2 * P),
    ],
)
def test_weights_as_others_load_them(
    model: dict[str, Any], lora: bool, adapter: bool, size: int | None, read: int
) -> None:
    spec = spec_of({"curriculum": False}, lora, spec__model=model)
    own = model_bytes(spec.solver.grpo, QWEN)
    assert own == 4 * P or lora
    [one] = found(spec)
    assert (one.adapter, one.model) == (adapter, own if size is None else size)
    assert one.read == (read + own if lora else read)
