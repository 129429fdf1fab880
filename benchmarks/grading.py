"""Verdicts on pairs of answers: ours, math-verify's own, and an exact match of the text.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/grading.py

Writes benchmarks/results/grading.json: right verdicts, false merges (different answers taken for equal) and missed
pairs (equal ones taken for different), and verdicts a second, on answer_pairs.json and more_answer_pairs.json in
tests/golden. The second was written by kinds before the rules were tried on it; docs/lab-notes.md has the first trial.

Every pair is decided in both orders and counts as wrong where one of them is. Seconds are by the clock, without the
start of workers; ours compares in one worker, with nothing remembered. math-verify alone is called as trainers call it,
``verify(parse(gold), parse(answer))`` with both in a box, in this process.
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import math_verify

from machine import machine
from selfevo_trainer.answers import ExactGrader
from selfevo_trainer.extraction import normalise_answer
from selfevo_trainer.grading import Grader

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"
RESULT = HERE / "results" / "grading.json"
Pairs = Sequence[tuple[str, str]]


def ours(rows: Sequence[dict[str, Any]]) -> Callable[[Pairs], list[bool]]:
    """The run's comparison, by each row's method; the worker is started before the clock is."""
    grader = Grader(workers=1)
    grader.equal("x+2", "2+x")
    exact = ExactGrader()

    def decide(pairs: Pairs) -> list[bool]:
        symbolic = iter(grader.equal_many([p for p, row in zip(pairs, rows, strict=True) if row["method"] != "exact"]))
        literal = iter(exact.equal_many([p for p, row in zip(pairs, rows, strict=True) if row["method"] == "exact"]))
        return [next(literal if row["method"] == "exact" else symbolic) for row in rows]

    return decide


def bare(pairs: Pairs) -> list[bool]:
    """math-verify alone."""

    def parsed(text: str) -> list[Any]:
        found: list[Any] = math_verify.parse(rf"\boxed{{{text}}}")
        return found

    return [bool(math_verify.verify(parsed(a), parsed(b))) for a, b in pairs]


def match(pairs: Pairs) -> list[bool]:
    """Equal layout."""
    return [normalise_answer(a) == normalise_answer(b) for a, b in pairs]


def measure(decide: Callable[[Pairs], list[bool]], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts and speed of one comparison."""
    started = time.perf_counter()
    forth = decide([(row["a"], row["b"]) for row in rows])
    seconds = time.perf_counter() - started
    back = decide([(row["b"], row["a"]) for row in rows])
    wrong = [row for row, x, y in zip(rows, forth, back, strict=True) if {x, y} != {row["equal"]}]
    return {
        "pairs": len(rows),
        "right": round(1 - len(wrong) / len(rows), 4),
        "false_merges": sum(not row["equal"] for row in wrong),
        "missed": sum(row["equal"] for row in wrong),
        "verdicts_per_second": round(len(rows) / seconds, 1),
    }


def main() -> None:
    """Measure and write."""
    logging.disable(logging.CRITICAL)
    result: dict[str, Any] = {"machine": machine(), "commit": _commit(), "math_verify": _version()}
    for name in ("answer_pairs", "more_answer_pairs"):
        rows = json.loads((GOLDEN / f"{name}.json").read_text())
        result[name] = {
            "kinds": len({row["kind"] for row in rows}),
            "selfevo": measure(ours(rows), rows),
            "math-verify": measure(bare, rows),
            "exact match": measure(match, rows),
        }
        print(name, json.dumps(result[name], indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()


def _version() -> str:
    from importlib.metadata import version

    return version("math-verify")


if __name__ == "__main__":
    main()
