"""Whoever reads a figure can repeat it: each benchmark that writes a result names command, machine and commit in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WRITING = sorted(
    path.name
    for path in BENCHMARKS.glob("*.py")
    if (("ArgumentParser(" in (text := path.read_text()) and '"results"' in text) or "arms_parser(" in text)
    and "def main(" in text
)


@pytest.mark.parametrize("script", WRITING)
def test_a_result_says_how_it_was_come_by(script: str) -> None:
    assert "provenance(" in (BENCHMARKS / script).read_text(), "use benchmarks/machine.py's provenance()"


def test_the_command_is_the_one_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from machine import provenance

    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "ui.py"), "--set", '{"a": 1}'])
    monkeypatch.setenv("SELFEVO_COMMIT", "abc")
    found = provenance({"gpu": "H200"})
    assert found["command"] == "python benchmarks/ui.py --set '{\"a\": 1}'"
    assert found["commit"] == "abc" and found["machine"]["gpu"] == "H200" and found["machine"]["cores"] > 0
