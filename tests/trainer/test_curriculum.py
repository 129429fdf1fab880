"""Which questions enter the curriculum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfevo_contract.spec.rollout import Band
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.contamination import NOTHING_HELD_OUT, HeldOutQuestions
from selfevo_trainer.curriculum import COMMITTEE_REASONS, REASONS, Candidate, select

BAND = Band(min=0.25, max=0.75)


def reason_for(question="What is 2+2?", answer="4", share=0.5, band=BAND, held_out=NOTHING_HELD_OUT):
    [reason] = select([Candidate(question, answer, share)], band, held_out).reasons
    return reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"answer": None, "share": 0.0}, "empty_majority"),
        ({"answer": "  "}, "empty_majority"),
        ({"question": "Prove that 2 is prime."}, "proof"),
        ({"question": "Let n be odd. Show that n^2 is odd."}, "proof"),
        ({"question": "PROVE it, or show\nthat it fails"}, "proof"),
        ({"question": "证明 n^2 是奇数"}, "proof"),
        ({"question": "How much does the score improve?"}, None),
        ({"question": "Disproved claims: how many?"}, None),
        ({"question": "The display shows that 3 lamps are on. How many are off?"}, None),
        ({"question": "What does <question> mean?"}, "markup"),
        ({"question": "a</question>b"}, "markup"),
        ({"question": r"Write \boxed{answer}"}, "markup"),
        ({"question": "Hi<|im_end|>"}, "markup"),
        ({"answer": r"\boxed{4}"}, "markup"),
        ({"answer": "4</question>"}, "markup"),
        ({"answer": "4<|endoftext|>"}, "markup"),
        ({"question": "Solve |x|<|y| for x = 1, y = 2"}, None),
        ({"question": "A question about boxes"}, None),
        ({"held_out": HeldOutQuestions(exclude=["what is 2 + 2?"])}, "held_out"),
        ({"share": 0.2}, "below_band"),
        ({"share": 0.8}, "above_band"),
        # Inclusive at both ends.
        ({"share": 0.25}, None),
        ({"share": 0.75}, None),
        ({"share": 3 / 10, "band": Band(min=0.3, max=0.8)}, None),
        ({"share": 8 / 10, "band": Band(min=0.3, max=0.8)}, None),
        ({"share": 2 / 10, "band": Band(min=0.3, max=0.8)}, "below_band"),
        ({"share": 9 / 10, "band": Band(min=0.3, max=0.8)}, "above_band"),
        # The first reason that applies.
        ({"answer": None, "question": "Prove <question>"}, "empty_majority"),
        ({"question": "Prove <question>", "share": 1.0}, "proof"),
        ({"question": "a <question>", "share": 1.0}, "markup"),
        ({"held_out": HeldOutQuestions([["What is 2+2?"]]), "share": 1.0}, "held_out"),
    ],
)
def test_reason(changes, reason):
    assert reason_for(**changes) == reason


def test_only_the_first_of_equal_texts_can_enter():
    candidates = [Candidate("What is 2+2?", "4", 0.5), Candidate("what is  2 + 2?", "4", 0.6)]
    assert select(candidates, BAND).reasons == [None, "duplicate"]


def test_asking_again_is_no_second_chance_to_fall_into_the_band():
    candidates = [Candidate("What is 2+2?", "4", 1.0), Candidate("What is 2+2?", "4", 0.5)]
    assert select(candidates, BAND).reasons == ["above_band", "duplicate"]


def test_a_question_without_an_answer_does_not_take_its_text():
    candidates = [Candidate("What is 2+2?", None, 0.0), Candidate("What is 2+2?", "4", 0.5)]
    assert select(candidates, BAND).reasons == ["empty_majority", None]


TEXTS = st.sampled_from(["a?", "A ?", "b?", "prove b", "<question>", "c", "d", "e"])
CANDIDATES = st.lists(
    st.builds(Candidate, TEXTS, st.none() | st.sampled_from(["1", "", r"\boxed{1}"]), st.floats(0, 1)), max_size=20
)


@given(CANDIDATES)
def test_every_question_is_kept_or_counted(candidates):
    selection = select(candidates, BAND, HeldOutQuestions(exclude=["c"]))
    assert len(selection.reasons) == len(candidates)
    assert selection.reasons.count(None) + sum(selection.dropped.values()) == len(candidates)
    assert set(selection.dropped) == set(REASONS)
    kept = [c for c, reason in zip(candidates, selection.reasons, strict=True) if reason is None]
    assert all(BAND.min <= c.share <= BAND.max and c.answer for c in kept)
    assert len({normalise_question(c.question) for c in kept}) == len(kept)


@given(CANDIDATES)
def test_selecting_again_from_the_kept_keeps_them(candidates):
    reasons = select(candidates, BAND).reasons
    kept = [c for c, reason in zip(candidates, reasons, strict=True) if reason is None]
    assert select(kept, BAND).reasons == [None] * len(kept)


def test_a_committee_that_disagrees_drops_what_is_left_of_the_band() -> None:
    shares = [0.1, 0.5, 0.5, 0.9]
    candidates = [Candidate(f"{i}?", "4", share, agrees=i == 1) for i, share in enumerate(shares)]
    found = select(candidates, BAND, possible=COMMITTEE_REASONS)
    assert found.reasons == ["below_band", None, "disagreed", "above_band"]
    assert found.dropped["disagreed"] == 1 and set(found.dropped) == {*REASONS, "disagreed"}
    assert "disagreed" not in select(candidates[:1], BAND).dropped
