"""Tens of thousands of answers, some of them hostile: no batch lost, every verdict in time, and how fast.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/grading.py --answers 80000 --hostile 0.01

Writes benchmarks/results/grading_load.json. Answers and truths are those of grading_mix.py, 8,000 to a batch, compared
by the run's comparison in two workers (one core pair), which start anew, remember nothing at first, and are timed with
their start. Beside it one process of math-verify alone:

- on a sample without the hostile ones, half of it before ours and half after, extrapolated by its rate;
- on one hostile answer of each kind, each in a process that is ended after ``PATIENCE_S`` seconds: what one costs it
  at least. math-verify's own time limits (5 s to parse, 5 s to compare) are on.

Both ratios are of answers a second: on the answers without hostile ones, and on all of them. A verdict's time is by the
clock, from when a worker is given the pair, so that the machine should be quiet; ``..._by_cpu`` compares CPU seconds,
two cores of ours with one of math-verify's, which other processes disturb less.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from grading_mix import Answered, answers
from machine import provenance
from selfevo_trainer.answers.grading import Grader

RESULT = Path(__file__).parent / "results" / "grading_load.json"
BATCH = 8000
WORKERS = 2
PATIENCE_S = 12.0
MEMORY_MIB = 2048
SEED = 1

Bare = Callable[[Sequence[tuple[str, str]]], list[bool]]


def main(count: int, hostile: float, limit_s: float, sample: int, bare: Bare) -> None:
    """Measure, write, and end with 1 where an aim is missed."""
    rows = list(answers(count, hostile, SEED))
    peaceful = [row for row in rows if row.equal is not None]
    begun = time.perf_counter()
    bare([(row.truth, row.answer) for row in peaceful[:200]])  # its parser's tables are warm then
    taken = [peaceful[i * len(peaceful) // sample] for i in range(min(sample, len(peaceful)))]
    cpu = _cpu()
    halves = [_bare(bare, taken[::2])]
    cpu = (_cpu() - cpu) / len(taken[::2])
    calm = _ours(peaceful, limit_s)
    halves.append(_bare(bare, taken[1::2]))
    whole = _ours(rows, limit_s)
    rate = len(taken) / sum(seconds for seconds, _ in halves)
    bad = {row.kind: row for row in rows if row.equal is None}
    costs = _hostile(bare, list(bad.values()))
    each = sum(costs.values()) / len(costs) if costs else 0.0
    alone = len(peaceful) / rate + (len(rows) - len(peaceful)) * each
    result = {
        **provenance(),
        "load_average": [round(each, 1) for each in os.getloadavg()],
        "answers": len(rows),
        "hostile": len(rows) - len(peaceful),
        "limit_seconds": limit_s,
        "workers": WORKERS,
        "ours": whole,
        "ours_without_hostile": calm,
        "math_verify_one_process": {
            "timed_on": len(taken),
            "answers_per_second": round(rate, 1),
            "wrong": sum(wrong for _, wrong in halves),
            "seconds_of_a_hostile_answer_at_least": {kind: round(cost, 1) for kind, cost in costs.items()},
            "extrapolated_seconds_of_all_at_least": round(alone),
        },
        "times_math_verify_without_hostile": round(calm["answers_per_second"] / rate, 2),
        "times_math_verify_without_hostile_by_cpu": round(WORKERS * cpu * len(peaceful) / calm["cpu_seconds"], 2),
        "times_math_verify_with_hostile_at_least": round(whole["answers_per_second"] * alone / len(rows), 1),
        "seconds_of_this_benchmark": round(time.perf_counter() - begun),
    }
    result["aims"] = {
        "no batch lost": whole["verdicts"] == len(rows) and calm["verdicts"] == len(peaceful),
        "slowest verdict within the limit and one second": whole["slowest_verdict_seconds"] <= limit_s + 1,
        "five times one process, without hostile ones": result["times_math_verify_without_hostile"] >= 5,
        "five times one process, with hostile ones": result["times_math_verify_with_hostile_at_least"] >= 5,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if not all(result["aims"].values()):
        raise SystemExit(1)


def _ours(rows: Sequence[Answered], limit_s: float) -> dict[str, Any]:
    verdicts: list[bool] = []
    begun, cpu = time.perf_counter(), _cpu()
    with Grader(timeout_s=limit_s, memory_mib=MEMORY_MIB, workers=WORKERS) as grader:
        for start in range(0, len(rows), BATCH):
            verdicts += grader.equal_many([(row.answer, row.truth) for row in rows[start : start + BATCH]])
        seconds = time.perf_counter() - begun
    return {
        "verdicts": len(verdicts),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(_cpu() - cpu, 1),
        "answers_per_second": round(len(rows) / seconds, 1),
        "slowest_verdict_seconds": round(grader.slowest_s, 2),
        "wrong": sum(row.equal not in (None, it) for row, it in zip(rows, verdicts, strict=True)),
        "hostile_taken_for_right": sum(row.equal is None and it for row, it in zip(rows, verdicts, strict=True)),
        "how": grader.stats.as_dict(),
    }


def _cpu() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _bare(bare: Bare, rows: Sequence[Answered]) -> tuple[float, int]:
    """Seconds, and wrong verdicts."""
    begun = time.perf_counter()
    verdicts = bare([(row.truth, row.answer) for row in rows])
    return time.perf_counter() - begun, sum(row.equal != it for row, it in zip(rows, verdicts, strict=True))


def _hostile(bare: Bare, rows: Sequence[Answered]) -> dict[str, float]:
    """Seconds of math-verify on each, ``PATIENCE_S`` for one that had to be ended; two at a time."""
    fork = multiprocessing.get_context("fork")

    def one(row: Answered) -> float:
        process = fork.Process(target=_bare, args=(bare, [row]), daemon=True)
        begun = time.perf_counter()
        process.start()
        process.join(PATIENCE_S)
        seconds = time.perf_counter() - begun
        process.kill()
        process.join()
        return min(seconds, PATIENCE_S)

    with ThreadPool(2) as pool:
        return dict(zip([row.kind for row in rows], pool.map(one, rows, chunksize=1), strict=True))
