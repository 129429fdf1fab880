"""Whose log-probabilities these are: the model's, those from before its training, or others'."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import get_args

import pytest

from selfevo_contract.fingerprint import LIMITS, NOISE, Precision, ProbeRow, judge, smallest_detectable

Rows = tuple[list[ProbeRow], list[list[float]]]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def probe(change: float = 0.2, rows: int = 8, tokens: int = 12, seed: int = 0) -> Rows:
    """A fingerprint whose training moved each token by about ``change``, and the log-probabilities before."""
    draw = random.Random(seed)
    before = [[draw.uniform(-4, -0.1) for _ in range(tokens)] for _ in range(rows)]
    made = [
        ProbeRow(
            tokens=list(range(tokens + 3)),
            prompt=3,
            dtype="bfloat16",
            logprobs=[each + draw.gauss(0, change) for each in row],
            before=row,
        )
        for row in before
    ]
    return made, before


def whole(completions: list[list[float]], move: Callable[[], float] = lambda: 0.0) -> list[list[float]]:
    """As an engine scores the rows: two tokens of the prompt, which do not count, then the completion."""
    return [[-math.inf, math.nan, *(each + move() for each in row)] for row in completions]


def wanted(rows: list[ProbeRow]) -> list[list[float]]:
    return [row.logprobs for row in rows]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_itself_is_found_through_rounding(precision: Precision) -> None:
    draw = random.Random(1)
    for change in (1e-4, NOISE[precision], 1.0):
        rows, _ = probe(change)
        for _ in range(200):
            verdict = judge(rows, whole(wanted(rows), lambda: draw.gauss(0, NOISE[precision])), precision)
            assert verdict.served == "wanted", (change, verdict)
    assert verdict.tokens == 96 and verdict.limit == LIMITS[precision] and verdict.difference > 0


@pytest.mark.parametrize("precision", [each for each in PRECISIONS if each != "fp8"])
def test_the_weights_before_an_update_are_found_below_the_limit_too(precision: Precision) -> None:
    draw = random.Random(2)
    change = smallest_detectable(96, precision) * 1.3
    rows, before = probe(change)
    assert math.sqrt(2 / math.pi) * change < LIMITS[precision], "the mean alone would take it for rounding"
    for _ in range(200):
        assert judge(rows, whole(before, lambda: draw.gauss(0, NOISE[precision])), precision).served == "before"


def test_another_model_is_found() -> None:
    rows, _ = probe()
    other, _ = probe(seed=9)
    for precision in PRECISIONS:
        verdict = judge(rows, whole(wanted(other)), precision)
        assert verdict.served == "other" and verdict.difference > verdict.limit


def test_a_change_within_the_noise_is_not_judged_by_its_direction() -> None:
    rows, before = probe(smallest_detectable(96, "bfloat16") * 0.5)
    assert judge(rows, whole(before), "bfloat16").served == "wanted"
    assert judge(rows, whole(before), "float32").served == "before"


def test_in_8_bits_the_mean_decides_alone() -> None:
    rows, before = probe(0.2)
    assert smallest_detectable(96, "fp8") == math.inf
    assert judge(rows, whole(before), "fp8").served == "wanted"
    assert judge(rows, whole(before), "bfloat16").served == "before"


def test_a_model_that_no_training_made_has_the_limit_alone() -> None:
    rows = [row.model_copy(update={"before": []}) for row in probe()[0]]
    assert judge(rows, whole(wanted(rows)), "float32").served == "wanted"
    assert judge(rows, whole(wanted(rows), lambda: 0.06), "bfloat16").served == "other"


def test_a_prompt_counts_for_nothing() -> None:
    rows, _ = probe()
    assert judge(rows, [[0.0, 0.0, *row.logprobs] for row in rows], "float32").difference == 0


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda scores: scores[1:], "7 rows of log-probabilities for 8 rows of tokens"),
        (lambda scores: [], "0 rows of log-probabilities for 8 rows of tokens"),
        (lambda scores: [*scores[:-1], scores[-1][1:]], "13 log-probabilities for the 15 tokens of row 8"),
        (lambda scores: [[], *scores[1:]], "0 log-probabilities for the 15 tokens of row 1"),
        (lambda scores: [[*scores[0][:-1], math.nan], *scores[1:]], "nan as a log-probability in row 1"),
        (lambda scores: [*scores[:-1], [*scores[-1][:-1], -math.inf]], "-inf as a log-probability in row 8"),
    ],
)
def test_scores_that_are_none_are_reported(broken: Callable[[list[list[float]]], list[list[float]]], says: str) -> None:
    rows, _ = probe()
    with pytest.raises(ValueError, match=f"^{says}$"):
        judge(rows, broken(whole(wanted(rows))), "bfloat16")
