"""The registry of phases: its facts fit the inputs and the spec, and nothing else spells a phase's name."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from selfevo_contract.phases import PHASES, Inputs, PhaseType
from selfevo_contract.spec.run import RunSpec

ROOT = Path(__file__).parents[2]
SOURCES = ("contract", "operator", "trainer", "cli")
REGISTRY = ROOT / "contract" / "selfevo_contract" / "phases"


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_what_is_known_of_a_phase_is_in_its_inputs_and_in_the_spec(phase: PhaseType):
    fields = set(phase.inputs.model_fields)
    assert {*phase.models, *(name for name, _ in phase.steps)} <= fields
    assert phase.sharded == ("shards" in fields)
    assert phase.part in RunSpec.model_fields
    assert {made_by for _, made_by in phase.steps} <= set(PHASES)
    # A model that is left out here has no edge in the report and no parent in the manifest.
    references = {name for name, field in phase.inputs.model_fields.items() if "ModelRef" in repr(field)}
    assert references == set(phase.models)


def test_phases_differ_in_what_tells_them_apart():
    for field in ("name", "metrics", "title", "makes"):
        assert len({getattr(phase, field) for phase in PHASES.values()}) == len(PHASES)
    parts = [phase.part for phase in PHASES.values()]
    assert {part for part in parts if parts.count(part) > 1} == {"evaluation"}  # which says how all scores are made
    assert [phase.name for phase in PHASES.values() if phase.trains_solver] == ["solver-train"]
    assert [phase.name for phase in PHASES.values() if phase.scores] == ["evaluate"]


def test_the_inputs_are_those_of_the_registry():
    union = get_args(Inputs)[0]
    assert set(get_args(union)) == {phase.inputs for phase in PHASES.values()}


def spelled(path: Path) -> list[str]:
    """Where a file spells a phase's name; a word that is a field of the spec too is not searched for."""
    names = set(PHASES) - set(RunSpec.model_fields)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.rstrip("-/") in names
    ]


@pytest.mark.slow
def test_nothing_but_the_registry_spells_a_phases_name():
    files = [path for source in SOURCES for path in (ROOT / source).rglob("*.py") if REGISTRY not in path.parents]
    assert len(files) > 100
    assert [line for path in files for line in spelled(path)] == []
    assert spelled(REGISTRY / "evaluate.py")  # the search does find it where it stands
