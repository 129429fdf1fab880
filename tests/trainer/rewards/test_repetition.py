"""The repetition share equals the straightforward formulation, ties and all, and survives what models write."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfevo_trainer.rewards import repetition
from selfevo_trainer.rewards.repetition import near_share, repetition_share

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "repetition_share.json").read_text())

# A small vocabulary and short questions: full of ties, zero counts, repeated n-grams and copies.
WORDS = st.sampled_from(["a", "b", "c", "is", "2"])
QUESTIONS = st.lists(st.lists(WORDS, max_size=9).map(" ".join), min_size=2, max_size=12)


def reference_share(*arguments):
    """Its libraries take seconds to import: only tests that are slow anyway compare with it."""
    import reference_repetition

    return reference_repetition.reference_share(*arguments)


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_equals_the_public_code(case):
    shares = repetition_share(case["questions"])
    assert shares.dtype == np.float64
    np.testing.assert_allclose(shares, case["cluster_share"], rtol=0, atol=1e-9)


@pytest.mark.slow
@given(QUESTIONS, st.sampled_from([0.25, 0.5, 0.5, 0.75]))
@example(["", ""], 0.5)
@example(["a", "a", "a b c", "a b c"], 0.5)
@settings(max_examples=150, deadline=None)
def test_equals_the_straightforward_formulation(questions, distance):
    np.testing.assert_array_equal(repetition_share(questions, distance), reference_share(questions, distance))


@pytest.mark.slow
@given(QUESTIONS)
@settings(max_examples=100, deadline=None)
def test_distances_equal_nltk_to_the_last_bit(questions):
    """Or else ties would break another way: 1e-9 on the distances is not enough for equal clusters."""
    from scipy.spatial.distance import squareform

    from reference_repetition import reference_distances

    expected = squareform(reference_distances(questions), checks=False)
    np.testing.assert_array_equal(repetition._distances(questions), expected)


@pytest.mark.slow
def test_long_questions_and_many_blocks(monkeypatch):
    monkeypatch.setattr(repetition, "BLOCK", 160)
    monkeypatch.setattr(repetition, "CHUNK", 3)
    draw = random.Random(7)
    words = [f"w{i}" for i in range(30)]
    stem = draw.choices(words, k=60)
    starts = [draw.randrange(36) for _ in range(40)]
    questions = [" ".join(stem[start : start + 24] + draw.choices(words, k=6)) for start in starts]
    shares = repetition_share(questions)
    np.testing.assert_array_equal(shares, reference_share(questions))
    assert 1 / 40 < max(shares) < 1


def test_no_question_and_one_question():
    assert repetition_share([]).shape == (0,)
    assert repetition_share([]).dtype == np.float64
    assert repetition_share(["What is 2 + 3 ?"]).tolist() == [1.0]
    assert repetition_share([""]).tolist() == [1.0]


def test_the_earlier_question_is_the_hypothesis():
    """A short hypothesis pays the brevity penalty, a long one for what the reference lacks: not the same."""
    short, long = "a b c d e f", "a b c d e f g h i"
    forward = repetition._distances([short, long])[0]
    assert forward == pytest.approx(1 - math.exp(1 - 9 / 6))
    precisions = [6 / 9, 5 / 8, 4 / 7, 3 / 6]
    backward = repetition._distances([long, short])[0]
    assert backward == pytest.approx(1 - math.prod(precisions) ** 0.25)
    between = (forward + backward) / 2
    assert repetition_share([short, long], between).tolist() != repetition_share([long, short], between).tolist()


@pytest.mark.slow
def test_a_merge_at_exactly_the_distance_is_not_made():
    questions = ["a b c d e f", "a b c d e f g h i"]
    distance = repetition._distances(questions)[0]
    for limit in (distance, np.nextafter(distance, 1)):
        np.testing.assert_array_equal(repetition_share(questions, limit), reference_share(questions, limit))
    assert repetition_share(questions, distance).tolist() == [0.5, 0.5]
    assert repetition_share(questions, np.nextafter(distance, 1)).tolist() == [1.0, 1.0]


def test_empty_questions_share_nothing():
    shares = repetition_share(["", "What is 2 + 3 ?", " \n\t", "What is 2 + 3 ?"])
    assert shares.tolist() == [0.25, 0.5, 0.25, 0.5]


@pytest.mark.slow
def test_hostile_text_is_only_text():
    lone_surrogate = "\ud800"
    questions = [
        "\0 \0 \0 \0 a",
        "\0 \0 \0 \0 a",
        f"{lone_surrogate} b c d",
        "a\u00a0b\u2003c\x1cd",
        "<question> \\boxed{1} </question>",
        "é e\u0301 ﷽ 𝟚",
    ]
    np.testing.assert_array_equal(repetition_share(questions), reference_share(questions))
    assert repetition_share(questions)[0] == 2 / 6


@pytest.mark.slow
def test_a_megabyte_in_a_question_takes_megabytes():
    flood, unbroken = "a " * 500_000, "x" * 1_000_000
    questions = [flood, *(f"What is {i} + {i} ?" for i in range(60)), flood, unbroken, unbroken + "y"]
    tracemalloc.start()
    shares = repetition_share(questions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shares[0] == shares[61] == 2 / 64
    assert shares[62] == shares[63] == 1 / 64
    assert peak < 600e6


@pytest.mark.slow
def test_memory_is_bounded_for_a_large_batch():
    """2,048 questions: the pairs themselves are 17 MB, and linkage copies them once."""
    draw = random.Random(3)
    questions = [" ".join(draw.choices("abcdefghijklmnop", k=25)) for _ in range(2048)]
    tracemalloc.start()
    repetition_share(questions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6


@pytest.mark.parametrize("distance", [-0.1, math.nan])
def test_a_distance_that_is_none(distance):
    with pytest.raises(ValueError, match="distance"):
        repetition_share(["a", "b"], distance)


@pytest.mark.parametrize("questions", ["a b", ["a", None], ["a", b"a"]])
def test_what_is_not_a_sequence_of_strings(questions):
    with pytest.raises(TypeError, match="question"):
        repetition_share(questions)


@pytest.mark.slow
@given(QUESTIONS, QUESTIONS, st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=50, deadline=None)
def test_what_lies_near_is_found_by_the_same_distances(asked, earlier, distance):
    from scipy.spatial.distance import squareform

    between = squareform(repetition._distances([*asked, *earlier]), checks=False)[: len(asked), len(asked) :]
    np.testing.assert_array_equal(near_share(asked, earlier, distance), (between < distance).mean(axis=1))


def test_nothing_lies_near_where_nothing_was_asked():
    assert near_share(["a b c d"], []).tolist() == [0.0] and near_share([], ["a"]).tolist() == []
    assert near_share(["", "a b c d"], ["a b c d", ""]).tolist() == [0.0, 0.5]


def test_many_questions_are_held_against_many_block_by_block(monkeypatch):
    texts = [f"{i} and {i % 7} make {i % 5} of {i % 3}" for i in range(60)]
    whole = near_share(texts[:40], texts[20:])
    monkeypatch.setattr(repetition, "_blocks", lambda B: [(i, min(i + 7, B)) for i in range(0, B, 7)])
    np.testing.assert_array_equal(near_share(texts[:40], texts[20:]), whole)
    assert whole[20:].min() > 0 and whole.max() < 1
