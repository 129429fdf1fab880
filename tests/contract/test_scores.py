"""Scores against what they stand for, counted out; and gains that are paired."""

from __future__ import annotations

import doctest
import itertools
import math
import statistics
from fractions import Fraction

import pytest

from selfevo_contract import scores
from selfevo_contract.rows import ScoreRow, Votes
from selfevo_contract.scores import (
    Results,
    Score,
    average,
    gain_of,
    metrics_of,
    pass_at,
    pass_counts,
    results_of,
    score_of,
    standard_error,
)


def test_examples_in_docstrings() -> None:
    outcome = doctest.testmod(scores, optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 0 and outcome.failed == 0


@pytest.mark.parametrize("samples", range(1, 9))
def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_that_hold_a_right_one(samples: int) -> None:
    for right in range(samples + 1):
        answers = [i < right for i in range(samples)]
        for k in range(1, samples + 1):
            choices = list(itertools.combinations(answers, k))
            assert pass_at(samples, right, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize(("samples", "right", "k"), [(1024, 3, 512), (1024, 1, 1024), (1000, 999, 1), (1024, 0, 1024)])
def test_pass_at_k_of_many_samples_is_the_formula(samples: int, right: int, k: int) -> None:
    exact = 1 - Fraction(math.comb(samples - right, k), math.comb(samples, k))
    assert pass_at(samples, right, k) == pytest.approx(float(exact))


@pytest.mark.slow
@pytest.mark.parametrize("samples", range(1, 70))
def test_the_k_of_pass_are_powers_of_two_and_all_samples(samples: int) -> None:
    wanted = {2**i for i in range(1, 8) if 2**i <= samples} | {samples}
    assert pass_counts(samples) == sorted(wanted - {1})


def row(question: str, right: int, greedy: bool, majority: bool | None, votes: Votes = ()) -> ScoreRow:
    return ScoreRow(
        question=question,
        answer="1",
        greedy="",
        greedy_right=greedy,
        samples_right=right,
        mean_tokens=1.0,
        majority_right=majority,
        votes=votes,
    )


BASE = results_of([row("a", 0, False, False), row("b", 2, True, True), row("c", 4, True, True)], 4)
NOW = results_of([row("a", 1, True, False), row("b", 3, True, True), row("c", 4, True, True)], 4)


def test_results_are_of_one_question_each() -> None:
    assert NOW.values == {
        "mean": (0.25, 0.75, 1.0),
        "greedy": (1.0, 1.0, 1.0),
        "maj": (0.0, 1.0, 1.0),
        "pass@2": (0.5, 1.0, 1.0),
        "pass@4": (1.0, 1.0, 1.0),
    }
    assert "maj" not in results_of([row("a", 1, True, True), row("b", 1, True, None)], 4).values


def test_consensus_is_the_share_of_the_largest_class_of_equal_answers_right_or_wrong() -> None:
    rows = [
        row("a", 1, True, False, (("1", 1), ("2", 2))),
        row("b", 0, False, False),
        row("c", 4, True, True, (("1", 4),)),
    ]
    assert results_of(rows, 4).values["consensus"] == (0.5, 0.0, 1.0)
    metrics = metrics_of({"one": results_of(rows, 4)}, {"one": results_of(rows, 4)})
    assert metrics["consensus"] == 0.5 and metrics["consensus_gain"] == metrics["consensus_gain_stderr"] == 0.0
    assert "consensus" not in results_of([*rows, row("old", 1, True, True)], 4).values
    assert "consensus" not in results_of([row("a", 1, True, True, (("1", 1),))], 1).values


def test_of_one_sample_there_is_no_pass_at_k() -> None:
    assert set(results_of([row("a", 1, True, True)], 1).values) == {"mean", "greedy", "maj"}


def test_errors_are_those_of_the_mean() -> None:
    values = [0.25, 0.75, 1.0, 0.5, 0.0]
    assert score_of(values) == Score(pytest.approx(0.5), pytest.approx(statistics.stdev(values) / math.sqrt(5)))
    assert standard_error([0.5]) is None and score_of([0.5]) == Score(0.5, None)
    assert average([Score(0.2, 0.03), Score(0.4)]) == Score(pytest.approx(0.3), None)


def test_a_gain_is_taken_question_by_question() -> None:
    differences = [0.25, 0.25, 0.0]
    assert gain_of(BASE, NOW, "mean") == Score(
        pytest.approx(sum(differences) / 3), pytest.approx(statistics.stdev(differences) / math.sqrt(3))
    )
    assert gain_of(BASE, BASE, "greedy") == Score(0.0, 0.0)
    gain, before, after = gain_of(BASE, NOW, "mean"), BASE.score("mean"), NOW.score("mean")
    assert gain and before and after and gain.stderr and before.stderr and after.stderr
    assert gain.stderr < math.hypot(before.stderr, after.stderr)


@pytest.mark.parametrize(
    "before",
    [
        Results((), {}),
        Results(("a", "b", "other"), BASE.values),
        Results(BASE.questions[::-1], BASE.values),
        Results(BASE.questions, {"greedy": BASE.values["greedy"]}),
    ],
)
def test_no_gain_is_taken_over_other_questions(before: Results) -> None:
    assert gain_of(before, NOW, "mean") is None


def test_metrics_are_named_by_task_and_averaged_over_tasks() -> None:
    other = results_of([row("x", 1, True, True), row("y", 0, False, False)], 1)
    metrics = metrics_of({"one": NOW, "two": other}, {"one": BASE, "two": other})
    assert metrics["one/mean"] == pytest.approx(2 / 3) and metrics["two/mean"] == 0.5
    assert metrics["mean"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    errors = metrics["one/mean_stderr"], metrics["two/mean_stderr"]
    assert metrics["mean_stderr"] == pytest.approx(math.hypot(*errors) / 2)
    assert metrics["one/mean_gain"] == pytest.approx(1 / 6) and metrics["two/mean_gain"] == 0.0
    assert metrics["mean_gain"] == pytest.approx(1 / 12)
    assert metrics["mean_gain_stderr"] == pytest.approx(metrics["one/mean_gain_stderr"] / 2)
    # Of tasks with other numbers of samples there is no common pass@k.
    assert metrics["one/pass@4"] == 1.0 and "pass@4" not in metrics and "two/pass@4" not in metrics
    assert metrics["one/pass@2_gain"] == pytest.approx(metrics["one/pass@2"] - metrics_of({"one": BASE})["one/pass@2"])
    assert metrics["one/pass@2_gain_stderr"] > 0 and "pass@2_gain" not in metrics


def test_without_a_base_there_are_no_gains_and_of_one_question_no_errors() -> None:
    metrics = metrics_of({"one": results_of([row("a", 1, True, True)], 2)})
    assert metrics == {
        "one/mean": 0.5,
        "mean": 0.5,
        "one/greedy": 1.0,
        "greedy": 1.0,
        "one/maj": 1.0,
        "maj": 1.0,
        "one/pass@2": 1.0,
        "pass@2": 1.0,
    }
