"""What a question may not have in common with held-out ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runs import make_run
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.spec.rollout import Band, Contamination
from selfevo_trainer.contamination import NOTHING_HELD_OUT, HeldOutQuestions, ngrams_of, words_of
from selfevo_trainer.curriculum import Candidate, select, unfit
from selfevo_trainer.inputs.data import held_out_questions
from selfevo_trainer.process.clock import Clock

HELD = "Let $x$ and $y$ be positive real numbers such that $x + y = 1$. Find the largest value of $x^2 y$."
OTHER = "A train leaves the station at noon and arrives three hours later; how far did it go?"


def held(words: int = 13, *, exclude: tuple[str, ...] = ()) -> HeldOutQuestions:
    return HeldOutQuestions([[OTHER], [HELD]], exclude, Contamination(words=words))


def run_of(count: int) -> str:
    """A question with exactly the first ``count`` words of HELD."""
    return "Suppose " + " ".join(words_of(HELD)[:count]) + " whatever"


@pytest.mark.parametrize(
    ("question", "words", "reason"),
    [
        (HELD, 13, "held_out"),
        (HELD.upper().replace(" ", "  "), 13, "held_out"),  # the whole, whatever its layout
        (HELD.replace("largest value", "smallest value"), 13, "contaminated"),
        ("First: " + HELD + " And then double it.", 13, "contaminated"),
        (HELD.lower().replace("$", "").replace(".", ","), 13, "contaminated"),  # no punctuation counts
        (run_of(13), 13, "contaminated"),
        (run_of(12), 13, None),
        (run_of(12), 8, "contaminated"),
        (run_of(8), 8, "contaminated"),
        (run_of(7), 8, None),
        (run_of(10), 10, "contaminated"),
        (run_of(9), 10, None),
        (" ".join(reversed(words_of(HELD))), 8, None),  # the same words in another order
        ("", 8, None),
        ("37 + 48", 8, None),
        ("\ud83d " * 20, 8, None),  # half of a surrogate pair, which a model can write
    ],
)
def test_what_repeats_a_held_out_question_is_dropped(question: str, words: int, reason: str | None) -> None:
    assert unfit(question, held(words)) == reason


def test_a_short_question_is_compared_as_a_whole() -> None:
    sums = HeldOutQuestions([["37 + 48", "9 - 4"]], rule=Contamination(words=8))
    assert unfit("37 + 48 - 1", sums) is None  # two words in common are nothing
    assert unfit("37 - 48", sums) is None  # nor is it the same for having the same words
    assert unfit("37+48", sums) == "held_out"


def test_what_is_excluded_counts_as_what_is_held_out() -> None:
    question = "Of ten red apples in the basket seven are eaten; how many of them are left for me?"
    assert unfit("Tell me. " + question, held()) is None
    assert unfit("Tell me. " + question, held(exclude=(question,))) == "contaminated"


def test_overlaps_are_counted_by_length_and_by_task_whatever_is_dropped() -> None:
    questions = [run_of(8), run_of(13), HELD, HELD + " " + OTHER, "37 + 48"]
    counts = {"overlap_8": 4, "overlap_13": 3, "overlap_8/1": 4, "overlap_13/1": 3, "overlap_8/0": 1, "overlap_13/0": 1}
    assert held(13).counts(questions) == held(8).counts(questions) == counts
    assert held().counts(["37 + 48"]) == {"overlap_8": 0, "overlap_13": 0}
    assert NOTHING_HELD_OUT.counts(questions) == {}  # where nothing is held out there is nothing to count


def test_the_curriculum_names_the_reason_before_the_band() -> None:
    candidates = [Candidate(run_of(13), "1", share) for share in (0.5, 1.0)] + [Candidate("another one", "1", 0.5)]
    selection = select(candidates, Band(), held())
    assert selection.reasons == ["contaminated", "duplicate", None]
    assert selection.dropped["contaminated"] == 1
    assert select([Candidate(run_of(13), "1", 1.0)], Band(), held()).reasons == ["contaminated"]
    assert select([Candidate(run_of(13), "1", 0.5)], Band()).reasons == [None]


def test_a_step_reads_tasks_and_exclusions_and_takes_the_runs_rule(tmp_path: Path) -> None:
    def file(name: str, question: str) -> dict[str, str]:
        (tmp_path / name).write_text(json.dumps({"question": question, "answer": "1"}) + "\n")
        return {"uri": f"file://{tmp_path}/{name}"}

    context: Any = SimpleNamespace(clock=Clock())
    spec = {
        "spec__evaluation__tasks": [{"name": "a", "data": file("a", HELD)}],
        "spec__exclude": [file("b", OTHER)],
    }
    for rule, reason in (({"words": 8}, "contaminated"), ({}, None)):
        steps = plan(make_run(**spec, spec__rollout__contamination=rule).spec).by_name
        for name in ("challenger-train-1", "solver-rollout-1"):
            inputs: Any = steps[name].inputs
            questions = held_out_questions(context, inputs)
            assert unfit(run_of(9), questions) == reason
            assert unfit("So: " + " ".join(words_of(OTHER)[:9]), questions) == reason
            assert unfit(HELD, questions) == unfit(OTHER, questions) == "held_out"
            assert questions.counts([run_of(9)])["overlap_8/0"] == 1
    (tmp_path / "a").unlink()
    with pytest.raises(InputError, match=r"spec\.evaluation\.tasks\[0\]\.data\.uri is .* cannot be read"):
        held_out_questions(context, inputs)


def test_ngrams_are_the_same_on_every_machine() -> None:
    assert list(ngrams_of("One, two three", 2)) == [561697725256166493, 13583517003226347355]


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=24)


@given(WORDS, WORDS, st.integers(8, 13))
def test_it_is_what_comparing_all_runs_of_words_says(asked: list[str], kept: list[str], words: int) -> None:
    def runs(text: list[str]) -> set[tuple[str, ...]]:
        return {tuple(text[i : i + words]) for i in range(len(text) - words + 1)}

    rule = Contamination(words=words)
    assert HeldOutQuestions([[" ".join(kept)]], rule=rule).overlaps(" ".join(asked)) == bool(runs(asked) & runs(kept))
