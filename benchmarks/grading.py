"""Verdicts on pairs of answers: ours, math-verify's own, and an exact match of the text.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/grading.py

Writes benchmarks/results/grading.json: right verdicts, false merges (different answers taken for equal) and missed
pairs (equal ones taken for different), and verdicts a second, on the files of pairs in tests/golden. All but the first
were written before the rules were tried on them; rules were mended afterwards, so what they say now is no forecast.
The forecast is the first trial, FIRST_TRIALS below, in the result as it was taken (docs/lab-notes.md).

Every pair is decided in both orders and counts as wrong where one of them is. Seconds are by the clock, without the
start of workers; ours compares in one worker, with nothing remembered. math-verify alone is called as trainers call it,
``verify(parse(gold), parse(answer))`` with both in a box, in this process.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/grading.py --answers 80000 --hostile 0.01

is about speed and survival: benchmarks/grading_load.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import math_verify

from machine import provenance
from selfevo_trainer.answers.extraction import normalise_answer
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.answers.grading import Grader

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"
RESULT = HERE / "results" / "grading.json"
FIRST_TRIALS = {
    "more_answer_pairs": {"pairs": 429, "right": 425, "false_merges": 0, "missed": 4},
    "fresh_answer_pairs": {"commit": "46c6932", "pairs": 301, "right": 264, "false_merges": 6, "missed": 31},
    "further_answer_pairs": {"pairs": 399, "right": 356, "false_merges": 22, "missed": 21},
}
"""Verdicts of the rules as they were when each file was new. The last one searches for faults: no sample of answers."""
FILES = ("answer_pairs", *FIRST_TRIALS)

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, help="grade so many answers against their truths; else the pairs' files")
    parser.add_argument("--hostile", type=float, default=0.01, help="share that hangs a parser or eats memory (0.01)")
    parser.add_argument("--limit", type=float, default=1.0, help="CPU seconds of one symbolic comparison (1)")
    parser.add_argument("--sample", type=int, default=8000, help="answers that math-verify alone is timed on (8000)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.answers:
        import grading_load

        grading_load.main(options.answers, options.hostile, options.limit, options.sample, bare)
        return
    result: dict[str, Any] = {**provenance(), "math_verify": _version()}
    for name in FILES:
        rows = json.loads((GOLDEN / f"{name}.json").read_text())
        result[name] = {
            "kinds": len({row["kind"] for row in rows}),
            "selfevo": measure(ours(rows), rows),
            "math-verify": measure(bare, rows),
            "exact match": measure(match, rows),
            "first trial": FIRST_TRIALS.get(name),
        }
        print(name, json.dumps(result[name], indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _version() -> str:
    from importlib.metadata import version

    return version("math-verify")


if __name__ == "__main__":
    main()
