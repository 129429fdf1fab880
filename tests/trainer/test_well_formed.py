"""Which answers may vote (rollout.wellFormed), and which questions are asked again (rollout.replay)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.phases import SolverRolloutInputs, input_key
from selfevo_contract.plan import plan
from selfevo_contract.rows import CURRICULUM, POOL, QUESTIONS, TEXTS, CurriculumRow
from selfevo_contract.spec.rollout import Replay
from selfevo_contract.spec.well_formed import Check
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.labelling import labelling_of
from selfevo_trainer.replay import Pool, newest, replayed
from selfevo_trainer.rewards.repetition import near_share
from selfevo_trainer.well_formed import KINDS, vote_well_formed

_CHECK: TypeAdapter[Check] = TypeAdapter(Check)


def check(kind: str, **settings: Any) -> Check:
    return _CHECK.validate_python({"kind": kind, **settings})


TABLE: list[tuple[Check, str, list[str], list[str]]] = [
    (
        check("number"),
        "How many?",
        ["7", "-1,018", r"\frac{3}{4}", "50\\%", "5 km", r"12\text{ apples}", "1e5", "1101_2"],
        ["", "x", "3 or 4", "about ten", "(1,2)", "seven of them", "7 8", "2x", r"\pi"],
    ),
    (
        check("choice"),
        "Which is even?\n(A) 3\n(B) 4\n(C) 5",
        ["B", "(b)", "B. 4", r"\text{(C)}", r"\textbf{A}"],
        ["D", "4", "A and B", "A, C", "none", ""],
    ),
    (check("choice"), "Compute 2 + 2. Plan A. is to add.", ["4", "anything"], []),
    (
        check("expression"),
        "Factor.",
        [
            "(x-1)(x+1)",
            r"\frac{1}{x}",
            "x = 3",
            "[0,1)",
            "3 km/h",
            "6abc",
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            "-5",
        ],
        ["", "x+", "(x", "no solution exists", "I think it is 4", "*3", "2**", "x = ", "4)", r"\frac{1}{"],
    ),
    (check("length", after="Sort: "), "Sort: q a c", ["acq", "a c q", r"\text{acq}"], ["ac", "aacq", ""]),
    (check("length", after="Sort: "), "Arrange: q a c", [], ["acq", ""]),
    (check("length", after=": "), "Note: sort: q a", ["aq"], ["aqq"]),
    (check("length", unit="words"), "pear apple", ["apple pear", "a b"], ["apple", "applepear"]),
    (check("alphabet", characters="01"), "In binary?", ["0110", "1 0"], ["12", "ten"]),
    (check("alphabet", after="Sort: "), "Sort: q a c", ["acq", "aaa"], ["abc", "Sort"]),
    (check("alphabet"), "abc", ["cab"], ["abd"]),
    (check("alphabet", after="Sort: "), "no mark", [], ["a"]),
]


@pytest.mark.parametrize(("one", "question", "fit", "unfit"), TABLE)
def test_what_is_well_formed(one: Check, question: str, fit: list[str], unfit: list[str]) -> None:
    assert {text: KINDS[one.kind](one, question, text) for text in [*fit, *unfit]} == {
        **dict.fromkeys(fit, True),
        **dict.fromkeys(unfit, False),
    }


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_a_model_writes_gets_a_verdict(question: str, answer: str) -> None:
    for one in (each[0] for each in TABLE):
        assert KINDS[one.kind](one, question, answer) in (True, False)


def test_every_kind_has_its_check() -> None:
    assert set(KINDS) == set(_CHECK.json_schema()["discriminator"]["mapping"])


def test_what_is_refused_counts_and_has_no_vote() -> None:
    """By majority alone the answers that skip a letter win, and label the question (METHOD.md's frontier)."""
    answers = [["ab", "ab", "ab", "abc", "abc", None, "abcd", "cab"]]
    [plain], none, _ = vote_well_formed(None, ["Sort: c b a"], answers, ExactGrader())
    assert (plain.answer, plain.share, none) == ("ab", 3 / 8, [0])
    checks = [check("length", after="Sort: "), check("alphabet", after="Sort: ")]
    [voted], refused, verdicts = vote_well_formed(checks, ["Sort: c b a"], answers, ExactGrader())
    assert (voted.answer, voted.share, refused) == ("abc", 2 / 8, [4])
    assert voted.class_of == (None, None, None, 0, 0, None, None, 1)
    assert verdicts == {"timed_out": 0, "crashed": 0}
    [nothing], refused, _ = vote_well_formed([check("number")], ["?"], [["x", "y"]], ExactGrader())
    assert (nothing.answer, nothing.share, nothing.classes, refused) == (None, 0, (), [2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "alphabet", "characters": "a", "after": "b"}, "remove one of them"),
        ({"kind": "length", "after": ""}, "at least 1 character"),
        ({"kind": "rhyme"}, "'alphabet', 'choice', 'expression', 'length', 'number'"),
    ],
)
def test_a_check_that_says_nothing_useful_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _CHECK.validate_python(settings)


# --- replay ---------------------------------------------------------------------------------------------------------


def rows(texts: str) -> list[CurriculumRow]:
    return [CurriculumRow(question=text, answer=text, share=0.5) for text in texts]


@given(
    st.sets(st.sampled_from("abcdefghij")),
    st.sets(st.sampled_from("abcdefghij")),
    st.sampled_from([0.1, 0.25, 0.5, 0.9]),
)
def test_a_replay_is_its_share_and_repeats_nothing(own: set[str], pool: set[str], share: float) -> None:
    one, other = rows("".join(sorted(own))), rows("".join(sorted(pool)))
    drawn = replayed(one, other, Replay(share=share), 0)
    texts = [row.question for row in drawn]
    assert len(set(texts)) == len(texts) and set(texts) <= pool - own and all(row.replayed for row in drawn)
    assert len(drawn) == min(len(pool - own), round(len(own) * share / (1 - share)))
    assert drawn == replayed(one, other, Replay(share=share), 0)


def test_the_pool_keeps_the_newest() -> None:
    assert [row.question for row in newest(rows("de"), rows("abcd"), 4)] == list("bcde")
    assert newest(rows("ab"), [], 9) == rows("ab")


ROWS = [
    CurriculumRow(question="What is 1 + 1?", answer="2", share=0.5, truth="2"),
    CurriculumRow(question="What is 1 + 2?", answer="4", share=0.5, truth="3"),
    CurriculumRow(question="Write a poem.", answer="", share=0.4),
    CurriculumRow(question="What is held out?", answer="5", share=0.4, truth="5"),
]
LEFT: list[tuple[dict[str, Any], str | None, list[int]]] = [
    ({"labels": "majority"}, "majority", [0, 1]),
    ({"labels": "committee"}, "majority", [0, 1]),
    ({"labels": "majority"}, None, [0, 1]),
    ({"labels": "truth"}, "majority", [0]),
    ({"labels": "majority", "well_formed": [check("alphabet", characters="123")]}, "majority", [0]),
    ({"labels": "random", "well_formed": [check("alphabet", characters="123")]}, "random", [0, 1]),
    ({"labels": "majority"}, "random", []),
    ({"labels": "random"}, "majority", []),
    ({"labels": "random"}, "random", [0, 1]),
    ({"judge": {"kind": "step", "phase": "verifier-train", "key": "a" * 64}}, "majority", [2]),
]


@pytest.mark.parametrize(("inputs", "labels", "left"), LEFT)
def test_a_fork_replays_no_label_of_another_kind_and_nothing_held_out(
    inputs: dict[str, Any], labels: str | None, left: list[int]
) -> None:
    from selfevo_trainer.phases.solver_rollout import trainable

    planned = plan(arithmetic(settings({}), store=Path("/nowhere")).spec).by_name["solver-rollout-1"].inputs
    assert isinstance(planned, SolverRolloutInputs)
    own = SolverRolloutInputs.model_validate({**planned.wire(), **inputs})
    held_out = HeldOutQuestions(exclude=["What is held out?"])
    assert trainable(Pool(ROWS, labels), labelling_of(own), held_out) == [ROWS[i] for i in left]


def as_of_a_fork(phases: Phases, step: str, **inputs: Any) -> Phases:
    """``phases`` with other inputs of ``step``."""
    own = phases.step(step)
    changed = own.inputs.model_copy(update=inputs)
    forked = Phases(phases.run, phases.folder)
    other = replace(own, inputs=changed, key=input_key(changed))
    forked.plan = replace(forked.plan, steps=tuple(other if each.name == step else each for each in forked.plan.steps))
    return forked


def test_what_a_rollout_replays_is_read_before_anything_is_generated(tmp_path: Path) -> None:
    run = arithmetic(settings({"iterations": 2, "rollout": {"replay": {}}}), store=tmp_path / "store")
    ended = Phases(run, tmp_path)("solver-rollout-2")  # no model is there either
    assert ended.code == 2 and "and this step replays that curriculum" in ended.result.message


@pytest.mark.slow
def test_a_rollout_asks_earlier_questions_again_and_counts_what_has_no_vote(tmp_path: Path) -> None:
    still = {"grpo": {"maxSteps": 0}}

    def made(replay: dict[str, Any] | None, **rollout: Any) -> Phases:
        over = {
            "iterations": 2,
            "challenger": still,
            "solver": still,
            "rollout": {"shards": 1, "replay": replay, **rollout},
        }
        spec = settings(over, questions=write_questions(tmp_path / "heldout.jsonl"))
        phases = Phases(arithmetic(spec, store=tmp_path / "store"), tmp_path)
        assert [phases(f"solver-rollout-{n}").code for n in (1, 2)] == [0, 0]
        return phases

    phases = made({"share": 0.5, "pool": 1000})
    assert "similar_share" not in phases.committed("solver-rollout-1").metrics
    # As similar as the phase finds it, by each question alone.
    pool = [row["question"] for row in phases.rows("solver-rollout-1", POOL)]
    asked = [row["question"] for row in phases.rows("solver-rollout-2", QUESTIONS) if row["question"] is not None]
    similar = [near_share([question], pool)[0] > 0 for question in asked]
    assert phases.committed("solver-rollout-2").metrics["similar_share"] == sum(similar) / len(asked) > 0
    first, second = (phases.rows(f"solver-rollout-{n}", CURRICULUM) for n in (1, 2))
    own = [row for row in second if not row.get("replayed")]
    again = [row for row in second if row.get("replayed")]
    assert not any(row.get("replayed") for row in first) and second == [*own, *again]
    new = {row["question"] for row in first} - {row["question"] for row in own}
    assert len(again) == min(len(own), len(new)) > 0 and {row["question"] for row in again} <= new
    labels = {row["question"]: row["answer"] for row in first}
    assert all(row["answer"] == labels[row["question"]] for row in again)
    metrics = phases.committed("solver-rollout-2").metrics
    assert metrics["kept"] == len(own)
    pool = [row["question"] for row in phases.rows("solver-rollout-2", POOL)]
    assert pool == [row["question"] for row in first if row["question"] in new] + [row["question"] for row in own]
    parent = phases.step("solver-rollout-1")
    assert phases.committed("solver-rollout-2").parents["earlier"] == f"{parent.phase}/{parent.key}"

    assert metrics["replay_left_out"] == 0
    # Labels by chance are not learnt among labels by votes, and are no part of the next pool.
    forked = as_of_a_fork(phases, "solver-rollout-2", labels="random")
    assert forked("solver-rollout-2").code == 0
    assert forked.committed("solver-rollout-2").metrics["replay_left_out"] == len(first)
    dealt = forked.rows("solver-rollout-2", CURRICULUM)
    assert forked.rows("solver-rollout-2", POOL) == dealt and len(dealt) == len(own)
    assert not any(row.get("replayed") for row in dealt)

    # Without replay the second rollout does not know the first, and its own questions are the same.
    alone = made(None)
    assert alone.rows("solver-rollout-2", CURRICULUM) == own
    assert "earlier" not in alone.committed("solver-rollout-2").parents

    # A fork that begins to replay finds no pool, and leaves the first one.
    begins: dict[str, Any] = {"replay": Replay(), "earlier": alone.step("solver-rollout-1").key}
    forked = as_of_a_fork(alone, "solver-rollout-2", **begins)
    assert forked("solver-rollout-2").code == 0
    assert forked.rows("solver-rollout-2", CURRICULUM) == forked.rows("solver-rollout-2", POOL) == own
    assert "replay_left_out" not in forked.committed("solver-rollout-2").metrics

    # Two digits are asked of every answer: the same answers, and fewer of them vote.
    checked = made(None, wellFormed=[{"kind": "length", "after": "+ "}])
    before, after = (each.rows("solver-rollout-1", QUESTIONS) for each in (alone, checked))
    assert [row["question"] for row in before] == [row["question"] for row in after]
    for row in after:
        if row["question"] is not None and row.get("answers") is not None:
            width = len(row["question"].split("+ ")[-1].replace(" ", "")) if "+ " in row["question"] else None
            assert all(len(text) == width for text, _ in row["votes"])
            counts = row["answers"]
            assert sum(size for _, size in row["votes"]) == 4 - counts["unboxed"] - counts.get("ill_formed", 0)
    metrics = checked.committed("solver-rollout-1").metrics
    texts = checked.rows("solver-rollout-1", TEXTS)
    refused = sum(row["vote"] is None and row["answer"] is not None for row in texts)
    assert metrics["answers/ill_formed"] == refused / len(texts) > 0
    assert alone.committed("solver-rollout-1").metrics["answers/ill_formed"] == 0
