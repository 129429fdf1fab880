"""docs/states.md names the test that shows each of its lines: those exist. A step's states are the core's table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.tools import tool
from selfevo_core.transitions import TRANSITIONS, Event

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "states.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 4]


def test_every_line_of_the_tables_names_a_test_that_exists() -> None:
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests" / "operator").glob("test_*.py")))
    shown = 0
    for row in ROWS:
        last = row.rstrip("| ").rsplit("|", 1)[1].strip()
        if last in ("test", "the same") or last.startswith("---"):
            continue
        names = re.findall(r"`(\w+)`", last)
        files = re.findall(r"tests/[\w/.]+\.py", last)
        assert names or files, row
        for name in names:
            assert f"def test_{name}(" in tests, name
        for file in files:
            assert (ROOT / file).exists(), file
        shown += 1
    assert shown > 20


def test_every_phase_and_condition_has_its_line() -> None:
    from selfevo_core.conditions import _TRUE_IN

    for phases in _TRUE_IN.values():
        for phase in phases:
            row = next(line for line in PAGE.splitlines() if line.startswith(f"| {phase} |"))
            cells = [cell.strip() for cell in row.strip("|").split("|")][1:7]
            assert cells == ["True" if phase in of else "False" for of in _TRUE_IN.values()], phase


def test_the_states_of_a_step_are_those_of_the_table_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = tool("state_reference")
    assert reference.page(PAGE) == PAGE, "run `make references`"
    monkeypatch.setitem(TRANSITIONS, ("Running", Event.GONE), "Failed")
    assert reference.page(PAGE) != PAGE


def test_the_page_has_every_transition() -> None:
    rows = {cells[1]: cells for line in PAGE.splitlines() if len(cells := re.split(r"\s*\|\s*", line)) == 8}
    columns = {name: place for place, name in enumerate(rows["event"])}
    for (state, event), after in TRANSITIONS.items():
        assert rows[event.name.title().replace("_", "")][columns[f"from {state}"]] == after
