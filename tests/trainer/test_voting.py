"""Votes: who wins, with what share, and that the batched form is the plain one."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfevo_trainer.answers.extraction import normalise_answer
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.answers.grading import Grader
from selfevo_trainer.answers.values import compare
from selfevo_trainer.answers.voting import Vote, expected_accuracy, vote, vote_many


class Modulo:
    """Compares whole numbers modulo 3, and keeps the batches that it was asked."""

    def __init__(self):
        self.batches = []

    def equal_many(self, pairs):
        self.batches.append(list(pairs))
        return [equal_mod_3(a, b) for a, b in pairs]


def equal_mod_3(a, b):
    return int(a) % 3 == int(b) % 3


def never(a, b):
    return False


ANSWERS = st.lists(st.none() | st.integers(0, 12).map(str), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("answers", "answer", "share"),
    [
        (["4"], "4", 1.0),
        (["4", "5", "5"], "5", 2 / 3),
        (["4", "5"], "4", 0.5),  # a tie: the one first seen
        (["5", "4", "4", "5"], "5", 0.5),
        # Without a box: in the total, never the winner.
        ([None, None, "5"], "5", 1 / 3),
        ([None, None, None], None, 0.0),
        ([None, "4", None, "5", "5"], "5", 0.4),
    ],
)
def test_majority(answers, answer, share):
    outcome = vote(answers, never)
    assert (outcome.answer, outcome.share, outcome.total) == (answer, share, len(answers))


def test_a_class_is_named_by_its_commonest_spelling():
    outcome = vote(["4", "1", "5", "7", None], equal_mod_3)
    assert outcome == Vote(answer="4", count=3, total=5, classes=(("4", 3), ("5", 1)))
    assert vote(["4", "1", "5", "1", "4"], equal_mod_3).answer == "4"  # as common: the first seen
    assert vote(["4", "1", "5", "1"], equal_mod_3) == Vote(answer="1", count=3, total=4, classes=(("1", 3), ("5", 1)))


def test_no_answer_joins_a_class_that_holds_one_unequal_to_it():
    """Equality of answers is not transitive (50 % equals 50 and 0.5)."""
    close = lambda a, b: abs(int(a) - int(b)) <= 1  # noqa: E731
    assert vote(["1", "2", "3"], close).classes == (("1", 2), ("3", 1))
    assert vote(["2", "1", "3"], close).classes == (("2", 2), ("3", 1))


@pytest.mark.parametrize(
    ("answers", "answer", "share"),
    [
        (["1101_3"] + 9 * ["1101_2"], "1101_2", 0.9),
        (["5", r"5\text{ cm}", r"5\text{ m}"], "5", 2 / 3),
        (["50", r"50\%", "0.5", "0.5"], "50", 0.5),  # the tie goes to the class first seen
        (["12,345", "12345", r"12\,345", "12345"], "12345", 1.0),
        (["7:30 AM", "7:30 PM", "7:30 PM"], "7:30 PM", 2 / 3),
    ],
)
def test_votes_that_must_not_merge(answers, answer, share):
    for outcome in (vote_many([answers], ExactGrader())[0], vote(answers, lambda a, b: compare(a, b).equal is True)):
        assert (outcome.answer, outcome.share) == (answer, share)


def test_a_vote_is_a_record():
    with pytest.raises(dataclasses.FrozenInstanceError):
        vote(["1"], never).answer = "2"


def in_band(low: float, high: float) -> Callable[[float], bool]:
    return lambda share: low <= share <= high


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 3), min_size=1, max_size=3)), min_size=1, max_size=3),
    st.sampled_from([(0, 1), (0.25, 0.75), (0.5, 1)]),
)
def test_each_answer_against_the_majority_of_the_others_one_by_one(questions, band):
    total, paid, counted = 10, 0.0, 0
    votes = [sizes for (sizes,) in questions]
    for sizes in votes:
        answers = [place for place, size in enumerate(sizes) for _ in range(size)]
        answers += [None] * (total - len(answers))
        for left_out, own in enumerate(answers):
            others = [each for each in answers[:left_out] + answers[left_out + 1 :] if each is not None]
            largest = max(map(others.count, others), default=0)
            tied = [place for place in set(others) if others.count(place) == largest]
            if tied and in_band(*band)(largest / (total - 1)):
                counted += 1
                paid += (own in tied) / len(tied)
    found = expected_accuracy(votes, total, in_band(*band))
    assert found == (pytest.approx(paid / counted) if counted else None)


@pytest.mark.parametrize("band", [(0.25, 0.75), (0.5, 1), (0.7, 1), (0, 1)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 12)])
def test_what_is_expected_is_what_another_answer_earns_whatever_the_band(band, shape):
    """Solvers who give one answer with a probability from a beta distribution, and else one of their own each time."""
    chance = random.Random(f"{band} {shape}")
    votes, earned = [], []
    for _ in range(4000):
        often = chance.betavariate(*shape)
        same = sum(chance.random() < often for _ in range(10))
        sizes = [size for size in (same, *[1] * (10 - same)) if size]
        votes.append(sizes)
        if in_band(*band)(max(sizes) / 10):
            earned.append(often if same > 1 else 0.0)
    kept = [sizes for sizes in votes if in_band(*band)(max(sizes) / 10)]
    found = expected_accuracy(votes, 10, in_band(*band))
    assert found is not None and found < fmean(earned) + 0.06
    assert found <= fmean(max(sizes) / 10 for sizes in kept) + 1e-9, "an answer has a part in its own majority"


def test_answers_that_are_right_or_wrong_by_chance_agree_with_the_others_half_of_the_time():
    """Two answers, each as likely: what is expected of a sixth one is .5, and the largest class of five has .69."""
    outcomes = [(k, math.comb(5, k) / 2**5) for k in range(6)]
    assert sum(p * (expected_accuracy([[k, 5 - k]], 5, in_band(0, 1)) or 0) for k, p in outcomes) == pytest.approx(0.5)
    assert sum(p * max(k, 5 - k) / 5 for k, p in outcomes) == pytest.approx(0.6875)


def test_no_answers_are_an_error_and_not_a_share_of_zero():
    with pytest.raises(ValueError, match="at least one answer"):
        vote([], never)
    with pytest.raises(ValueError, match="at least one answer"):
        vote_many([["1"], []], Modulo())


@given(ANSWERS)
def test_the_share_is_a_share(answers):
    outcome = vote(answers, equal_mod_3)
    boxed = sum(answer is not None for answer in answers)
    assert sum(count for _, count in outcome.classes) == boxed
    assert outcome.total == len(answers)
    if boxed:
        assert 0 < outcome.share <= 1
        assert outcome.count == max(count for _, count in outcome.classes)
        assert (outcome.answer, outcome.count) in outcome.classes
    else:
        assert outcome == Vote(answer=None, count=0, total=len(answers), classes=())


@given(st.data())
def test_counts_do_not_depend_on_the_order(data):
    """Where equality is an equivalence; the winner's name and ties may differ."""
    answers = data.draw(ANSWERS)
    shuffled = data.draw(st.permutations(answers))
    sizes = [sorted(count for _, count in vote(each, equal_mod_3).classes) for each in (answers, shuffled)]
    assert sizes[0] == sizes[1]


@given(st.lists(ANSWERS, max_size=6))
def test_the_batched_vote_is_the_plain_vote(answers_QM):
    assert vote_many(answers_QM, Modulo()) == [vote(answers, equal_mod_3) for answers in answers_QM]


class Close:
    """Not transitive."""

    def equal_many(self, pairs):
        return [close(a, b) for a, b in pairs]


def close(a, b):
    return abs(int(a) - int(b)) <= 3


@given(st.lists(ANSWERS, max_size=6))
def test_the_batched_vote_is_the_plain_vote_where_equality_is_not_transitive(answers_QM):
    assert vote_many(answers_QM, Close()) == [vote(answers, close) for answers in answers_QM]


@given(st.lists(ANSWERS, max_size=6))
def test_two_batches_a_class_at_most_and_no_pair_twice(answers_QM):
    comparer = Modulo()
    votes = vote_many(answers_QM, comparer)
    assert len(comparer.batches) <= 2 * max((len(outcome.classes) for outcome in votes), default=0)
    assert all(comparer.batches)
    for a, b in (pair for batch in comparer.batches for pair in batch):
        assert normalise_answer(a) != normalise_answer(b)


def test_texts_of_one_form_are_not_compared():
    comparer = Modulo()
    [outcome] = vote_many([["1000", "1,000", " $1000$ ", "+1000.0"]], comparer)
    assert outcome == Vote(answer="1000", count=4, total=4, classes=(("1000", 4),))
    assert comparer.batches == []


def test_integers_are_voted_on_without_a_worker():
    with Grader() as grader:
        votes = vote_many([["12", "13", "12", None], ["7", "+7", "7.0", "8"]], grader)
        assert [(outcome.answer, outcome.share) for outcome in votes] == [("12", 0.5), ("7", 0.75)]
        assert grader.stats.symbolic == 0


@pytest.mark.slow
def test_a_vote_over_formulas():
    with Grader(workers=1) as grader:
        [outcome] = vote_many([["x^2-1", r"\frac{1}{2}", "(x-1)(x+1)", "0.5", "1/2", None]], grader)
    assert outcome == Vote(answer=r"\frac{1}{2}", count=3, total=6, classes=(("x^2-1", 2), (r"\frac{1}{2}", 3)))
