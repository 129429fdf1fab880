"""The repetition share against its straightforward formulation, in one process.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/repetition.py

Writes benchmarks/results/repetition.json: seconds over the batch size B for both, memory of ours, and whether
both gave the same shares where both ran. The straightforward one (NLTK for every pair, then scikit-learn) runs
up to --straightforward questions only: its time grows with the square, a quarter of an hour for 4,096.

The seconds are CPU time. Both formulations are one thread that never waits, so on an idle machine this is the
time on the clock, and on a shared one it leaves the neighbours out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nltk
import numpy as np
import scipy
import sklearn

from machine import provenance

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reference_repetition import reference_share
from selfevo_trainer.rewards.repetition import repetition_share

SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
RESULT = Path(__file__).parent / "results" / "repetition.json"
STATUS = Path("/proc/self/status")
SEED = 20260801

# A question is an opening, sometimes a condition, and a task: 18 * 13 * 16 skeletons, each with its own numbers.
OPENINGS = (
    "Let f ( x ) = x^{n} - {n} x + {n} be a polynomial with real coefficients .",
    "A fair die with {n} faces is rolled {n} times and the results are written down in order .",
    "In triangle ABC the side AB has length {n} and the angle at C measures {n} degrees .",
    "A factory in {city} produces {n} machines a day , of which {n} percent are defective .",
    "Suppose that the sequence a_1 , a_2 , ... satisfies a_{k+1} = {n} a_k + {n} with a_1 = {n} .",
    "Consider all positive integers m less than {n} such that m^2 + {n} m is divisible by {n} .",
    "{name} and {name} play a game with {n} stones in which a move takes 1 , 2 or {n} stones .",
    "A train leaves {city} at {n} km/h while another leaves {city} , {n} km away , at {n} km/h .",
    "Let G be a finite group of order {n} and let H be a subgroup of index {n} .",
    "An urn contains {n} red , {n} blue and {n} green balls , drawn one by one without replacement .",
    "{name} invests {n} dollars at an annual rate of {n} percent , compounded every month .",
    "The numbers x , y and z are positive reals with x + y + z = {n} and x y z = {n} .",
    "A circle of radius {n} is inscribed in a rhombus whose longer diagonal is {n} .",
    "Let p be the smallest prime larger than {n} , and let k be the order of {n} modulo p .",
    "A committee of {n} people is chosen from {n} women and {n} men in {city} .",
    "The matrix A has eigenvalues {n} , {n} and - {n} , and B = A^2 - {n} A .",
    "A cube with edge {n} is painted and then cut into unit cubes , {n} of which are lost .",
    "Let S be the set of lattice points ( a , b ) with |a| + |b| at most {n} .",
)
CONDITIONS = (
    "",
    "",
    "",
    "Assume that all choices are equally likely .",
    "It is known that the result is larger than {n} but smaller than {n} .",
    "After {n} steps {name} changes one of the values by exactly {n} .",
    "No two of the chosen objects may be adjacent , and rotations count as the same .",
    "Here {n} is taken modulo {n} , and every remainder is between 0 and {n} .",
    "If the value falls below {n} , the process starts again from {n} .",
    "Suppose further that the first and the last of them are equal to {n} .",
    "{name} claims that the answer does not depend on the value {n} , which is wrong .",
    "Let M denote the largest possible value and let m denote the smallest one .",
    "The order in which this happens does not matter .",
)
TASKS = (
    "What is the remainder when the result is divided by {n} ?",
    "Find the number of ways in which this can happen .",
    "Determine the exact value of the sum of the squares of all solutions .",
    "What is the probability that the total is exactly {n} ?",
    "Compute the expected number of steps and give it as a fraction in lowest terms .",
    "How many of them are divisible by {n} or by {n} , but not by both ?",
    "Find the smallest positive integer for which this holds .",
    "What is the area of the region , rounded to the nearest integer ?",
    "Find the product of all possible values .",
    "Determine the largest integer that does not exceed {n} times this quantity .",
    "What is the difference between the largest and the smallest value ?",
    "How long does it take until at least {n} of them remain ?",
    "Express the answer as a + b sqrt ( c ) and find a + b + c .",
    "Find the last two digits of the result raised to the power {n} .",
    "What is the {n} th term of this sequence ?",
    "How many ordered pairs satisfy both conditions ?",
)
NAMES = ("Alice", "Bob", "Chen", "Dana", "Emeka", "Fatima", "Goran", "Hana", "Ivan", "Jun")
CITIES = ("Berlin", "Lagos", "Lima", "Osaka", "Pune", "Quito", "Riga", "Turin")


def questions(count: int, seed: int = SEED) -> list[str]:
    """A Challenger's batch: varied questions, one in 16 invalid (empty), some near-copies of a favourite."""
    draw = random.Random(seed)

    def fill(text: str) -> str:
        words = (
            word.replace("{n}", str(draw.randint(2, 99)))
            .replace("{name}", draw.choice(NAMES))
            .replace("{city}", draw.choice(CITIES))
            for word in text.split()
        )
        return " ".join(words)

    def question() -> str:
        kind = draw.random()
        if kind < 1 / 16:
            return ""
        if kind < 1 / 8:
            return fill("What is {n} times {n} minus {n} ?")
        return fill(f"{draw.choice(OPENINGS)} {draw.choice(CONDITIONS)} {draw.choice(TASKS)}")

    return [question() for _ in range(count)]


def collapsed(count: int, seed: int = SEED) -> list[str]:
    """What the penalty is for: every question from one template, only the numbers differ."""
    draw = random.Random(seed)
    template = f"{OPENINGS[5]} {CONDITIONS[4]} {TASKS[5]} {TASKS[10]}"
    return [
        " ".join(str(draw.randint(2, 99)) if word == "{n}" else word for word in template.split()) for _ in range(count)
    ]


def seconds(function: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    """CPU seconds of the shortest of some runs, and what the last one returned."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        result = function()
        times.append(time.process_time() - begin)
    return min(times), result


def peak_mib(count: int) -> float | None:
    """By how much the sparse formulation raises the memory of a new process; None where nothing tells."""
    if not STATUS.exists():
        return None
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_added_mib, count).result()


def _added_mib(count: int) -> float:
    batch = questions(count)
    repetition_share(batch[:64])
    before = _peak_so_far_mib()
    repetition_share(batch)
    return round(_peak_so_far_mib() - before, 1)


def _peak_so_far_mib() -> float:
    """This program's peak; getrusage would give the parent's where that is higher, as it survives exec."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measure(count: int, straightforward: bool) -> dict[str, Any]:
    batch, same = questions(count), collapsed(count)
    repeats = 10 if count <= 1024 else 5
    ours, shares = seconds(lambda: repetition_share(batch), repeats)
    row: dict[str, Any] = {
        "questions": count,
        "sparse_s": round(ours, 5),
        "sparse_collapsed_s": round(seconds(lambda: repetition_share(same), repeats)[0], 5),
        "sparse_peak_mib": peak_mib(count),
    }
    if straightforward:
        theirs, expected = seconds(lambda: reference_share(batch), repeats=1)
        row |= {
            "straightforward_s": round(theirs, 3),
            "times_as_fast": round(theirs / ours),
            "largest_difference": float(np.abs(shares - expected).max()),
        }
        if row["largest_difference"] > 1e-9:
            raise SystemExit(f"the two formulations differ at B = {count}: {row}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--straightforward", type=int, default=1024, help="largest batch for NLTK + scikit-learn")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    repetition_share(questions(64))  # imports and first-call costs belong to neither
    curve = []
    for count in SIZES:
        curve.append(measure(count, straightforward=count <= arguments.straightforward))
        print(json.dumps(curve[-1]), flush=True)
    tokens = [len(question.split()) for question in questions(2048)]
    result = {
        "what": "repetition share of a batch: sparse formulation and NLTK + scikit-learn, one process; CPU seconds",
        **provenance(),
        "versions": {module.__name__: module.__version__ for module in (np, scipy, nltk, sklearn)},
        "questions": {"seed": SEED, "mean_tokens": round(float(np.mean(tokens)), 1), "max_tokens": max(tokens)},
        "curve": curve,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
