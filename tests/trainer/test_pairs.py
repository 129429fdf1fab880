"""Pairs that are ordered by how they were made, what the gate drops of them, and when a judge is promoted."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Sequence
from typing import get_args

import pytest

from selfevo_contract.judging import AnchorRow, PairRow
from selfevo_contract.sizing.work import ANSWERS_OF
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.verifier import Gate, PairMaker
from selfevo_trainer import curriculum
from selfevo_trainer.curriculum import Task, select_tasks
from selfevo_trainer.inputs.anchors import Anchor
from selfevo_trainer.judges import promotion
from selfevo_trainer.judges.promotion import compare, lengths
from selfevo_trainer.pairs import MAKERS, Made, Part, Sources, corrupt, decomposition, reach
from selfevo_trainer.pairs.gate import gate
from selfevo_trainer.pairs.measured import measured
from selfevo_trainer.pairs.reach import lowest, within
from selfevo_trainer.rewards.judged import scored

TASKS = ["a tale", "a song", "a joke"]
OWN = ["once upon a time", "la la la lo", "knock knock who there"]


class Script:
    """A role that answers by what it is asked for."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.answers = answers
        self.asked: dict[str, list[str]] = {}

    def __call__(self, questions: Sequence[str], use: str) -> list[str]:
        self.asked[use] = list(questions)
        return list(self.answers[use][: len(questions)])


class Likes:
    """A judge that likes what ``scores`` says; 0 is what it does not know."""

    digest = "d"

    def __init__(self, scores: dict[tuple[str, str], float]) -> None:
        self.scores = scores

    def score(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [self.scores.get(pair, 0.0) for pair in zip(tasks, answers, strict=True)]

    def close(self) -> None: ...


def sources(solver: Script | None = None, **others: Script) -> Sources:
    prompt = Prompt(user="{question}")
    return Sources(tasks=TASKS, answers=OWN, prompt=prompt, seed=1, solver=solver or Script(), **others)


def texts(made: Sequence[Made]) -> list[tuple[int, str, str]]:
    return [(pair.task, pair.chosen, pair.rejected) for pair in made]


@pytest.mark.parametrize("module", [corrupt, decomposition, promotion, reach])
def test_examples_in_docstrings(module: object) -> None:
    outcome = doctest.testmod(module)  # type: ignore[arg-type]
    assert outcome.attempted > 0 and outcome.failed == 0


def test_every_maker_of_a_manifest_is_registered_and_has_its_cost() -> None:
    assert set(MAKERS) == set(get_args(PairMaker)) == set(ANSWERS_OF)


def test_an_answer_is_better_than_its_neighbours() -> None:
    assert texts(MAKERS["swap"](sources())) == [(0, OWN[0], OWN[1]), (1, OWN[1], OWN[2]), (2, OWN[2], OWN[0])]
    single = Sources(tasks=TASKS[:1], answers=OWN[:1], prompt=Prompt(user="{question}"), seed=1, solver=Script())
    assert MAKERS["swap"](single) == []


def test_a_corrupted_answer_has_the_same_words_and_another_order() -> None:
    made = MAKERS["corrupt"](sources())
    assert [pair.task for pair in made] and texts(made) == texts(MAKERS["corrupt"](sources()))
    for pair in made:
        assert pair.chosen == OWN[pair.task] != pair.rejected
        assert sorted(pair.chosen.split()) == sorted(pair.rejected.split())


def test_roles_and_times_are_compared() -> None:
    challenger, earlier = Script(role=["x", "y", "z"]), Script(temporal=["u", "v", "w"])
    assert texts(MAKERS["role"](sources(challenger=challenger)))[1] == (1, OWN[1], "y")
    assert texts(MAKERS["temporal"](sources(earlier=earlier)))[2] == (2, OWN[2], "w")
    assert MAKERS["temporal"](sources()) == []  # the first iteration has no Solver before


def test_a_task_is_split_answered_and_composed() -> None:
    solver = Script(
        split=["- hero\n- end", "no parts", "1. setup\n2. punch\n- more"],
        parts=["a hero", "an end", "a setup", "a punch", "more"],
        compose=["whole tale", "whole joke"],
    )
    made = MAKERS["decomposition"](sources(solver))
    assert texts(made) == [(0, "whole tale", OWN[0]), (2, "whole joke", OWN[2])]
    assert made[0].parts == (Part("hero", "a hero"), Part("end", "an end"))
    assert "a tale" in solver.asked["parts"][0] and "hero" in solver.asked["parts"][0]
    assert "a setup" in solver.asked["compose"][1]


def test_a_task_that_spells_a_place_of_the_template_stays_text() -> None:
    assert decomposition._fill("{task} / {part}", task="{part}", part="x") == "{part} / x"


WORDS = Gate.model_validate({"lengthRatio": 2.0})


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("a b", "c d", None),
        ("a b", "c d e f", None),
        ("a b", "c d e f g", "length"),
        ("a b c d e", "f g", "length"),
        (" a", "a ", "same"),
        ("", "a", "empty"),
        ("a", "  ", "empty"),
    ],
)
def test_the_gate_checks_the_texts(chosen: str, rejected: str, reason: str | None) -> None:
    assert gate([Made(0, chosen, rejected)], WORDS, lambda text: len(text.split()), None) == [reason]


def test_the_first_judge_is_asked_about_the_parts() -> None:
    parts = (Part("p", "P"), Part("q", "Q"), Part("r", "R"))
    made = [Made(0, "a", "b", parts), Made(1, "a", "b")]
    good = Likes({("p", "P"): 1.0, ("q", "Q"): 1.0})
    poor = Likes({("p", "P"): 1.0, ("q", "R"): 1.0, ("r", "P"): 1.0})
    assert gate(made, WORDS, len, good) == [None, None]
    assert gate(made, WORDS, len, poor) == ["parts", None]
    assert gate(made, Gate.model_validate({"parts": False}), len, poor) == [None, None]


def test_a_task_is_beyond_the_anchors_when_its_answers_score_below_nearly_all_of_theirs() -> None:
    anchors = [(f"anchor {i}", score) for i in range(20) for score in (i / 10 - 1, i / 10 - 1.4)]
    limit = lowest(anchors, 0.1)
    assert limit == pytest.approx((scored(-0.8) + scored(-1.2)) / 2)  # two of twenty are below
    made = [PairRow(question=task, chosen="a", rejected="b", maker="swap") for task in ("hard", "easy", "other", "at")]
    made.append(made[0].model_copy(update={"dropped": "length"}))
    means = {"hard": limit - 0.01, "easy": 0.9, "other": None, "at": limit}  # None: of another judge
    assert [row.dropped for row in within(made, means, limit)] == ["reach", None, None, None, "length"]
    assert within(made, {"hard": 0.0}, None) == made
    assert lowest(anchors[:30], 0.1) is None, "so few tasks are no evidence"


@pytest.mark.parametrize(("right", "used"), [(8, True), (4, True), (3, False), (0, False)])
def test_a_maker_that_entrenches_the_judges_errors_is_not_used(right: int, used: bool) -> None:
    wrong = [Anchor("q", "a", "b", "swap", agrees=i < right) for i in range(8)]
    others = [Anchor("q", "a", "b", "swap", agrees=False), Anchor("q", "a", "b", "role", agrees=False)]
    found = measured("swap", [*wrong, *others], [*[-1.0] * 8, 1.0, -1.0])
    assert (found.errors, found.right, found.used) == (8, right, used)


def test_a_few_errors_are_no_evidence() -> None:
    assert measured("swap", [Anchor("q", "a", "b", "swap", agrees=False)] * 7, [0.0] * 7).used
    assert measured("swap", [Anchor("q", "a", "b")], [-1.0]).share is None


def rows(before: Sequence[float], after: Sequence[float]) -> list[AnchorRow]:
    return [
        AnchorRow(question="q", chosen="a", rejected="b", source="data", before=b, after=a)
        for b, a in zip(before, after, strict=True)
    ]


@pytest.mark.parametrize(
    ("before", "after", "errors", "refused"),
    [
        ([1.0] * 20, [1.0] * 20, 2.0, False),
        ([1.0] * 20, [1.0] * 19 + [-1.0], 2.0, False),  # 5 points, one standard error
        ([1.0] * 20, [1.0] * 10 + [-1.0] * 10, 2.0, True),
        ([1.0] * 20, [0.0] * 20, 2.0, True),  # ties are not right
        ([1.0] * 20, [1.0] * 19 + [-1.0], 0.0, True),
        ([-1.0] * 20, [1.0] * 20, 0.0, False),
    ],
)
def test_a_judge_that_is_worse_on_the_anchors_is_not_promoted(
    before: list[float], after: list[float], errors: float, refused: bool
) -> None:
    found = compare(rows(before, after))
    assert found is not None and found.worse_by(errors) is refused


def test_without_a_judge_before_or_without_anchors_nothing_is_compared() -> None:
    assert compare([]) is None
    first = compare([AnchorRow(question="q", chosen="a", rejected="b", source="data", after=1.0)])
    assert first is not None and (first.before, first.worse_by(0.0)) == (None, False)


def of_lengths(count: int, before: Callable[[int], float] | None, after: Callable[[int], float]) -> list[AnchorRow]:
    """Every second time the better answer is the longer one; margins by how much longer it is."""
    return [
        AnchorRow(
            question="q",
            chosen="a" * (30 + longer),
            rejected="a" * 30,
            source="data",
            before=before and before(longer),
            after=after(longer),
        )
        for longer in ([10, -10] * count)[:count]
    ]


@pytest.mark.parametrize(
    ("before", "after", "limit", "refused"),
    [
        (lambda d: 1.0, lambda d: 1.0, 0.5, False),
        (lambda d: 1.0, lambda d: 0.1 * d, 0.5, True),  # by length alone
        (lambda d: 1.0, lambda d: -0.1 * d, 0.5, False),  # the shorter the better: not what this is about
        (lambda d: 0.1 * d, lambda d: 1.0 + 0.1 * d, 0.5, False),  # the one before is worse in this, and would stay
        (lambda d: 2.0 + 0.1 * d, lambda d: 1.0 + 0.1 * d, 0.5, True),  # .45 -> .71
        (lambda d: 2.0 + 0.1 * d, lambda d: 1.0 + 0.1 * d, 0.75, False),
        (lambda d: 1.0, lambda d: 0.1 * d, 1.0, False),
        (None, lambda d: 0.1 * d, 0.5, True),
        (lambda d: 1.0, lambda d: 0.0, 0.0, False),
    ],
)
def test_a_judge_whose_scores_follow_lengths_is_not_promoted(
    before: Callable[[int], float] | None, after: Callable[[int], float], limit: float, refused: bool
) -> None:
    assert lengths(of_lengths(32, before, after)).refuses(limit) is refused
    assert not lengths(of_lengths(15, before, after)).refuses(limit), "so few are no evidence"


def test_the_tasks_with_the_largest_spread_enter() -> None:
    tasks = [Task("a", 0.1), Task("b", 0.3), Task("b", 0.9), Task("c", 0.2), Task("prove d", 0.4), Task("e", 0.5, True)]
    selection = select_tasks(tasks, 0.5)
    assert selection.reasons == ["low_spread", None, "duplicate", "low_spread", None, "too_long"]
    assert selection.dropped["low_spread"] == 2 and set(selection.dropped) == set(curriculum.SCORED_REASONS)
    assert select_tasks([Task("a", 0.0), Task("b", 0.0)], 1.0).reasons == ["low_spread", "low_spread"]
    assert select_tasks([Task("a <question>", 1.0)], 1.0).reasons == ["markup"]
