"""What a question's page says of rewards: the formulas of the run's modes, and nothing that no row has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.runs import RUBRIC, make_run
from selfevo.ui.rewards import OfSolver, of_challenger, of_solver

VOTES = (("12", 6), ("13", 2))
"""Of ten answers, two without a box."""


def row(**changes: Any) -> SimpleNamespace:
    known = {"question": "what?", "dropped": None, "share": 0.6, "majority": "12", "label": "12", **changes}
    votes = list(enumerate(SimpleNamespace(answer=answer, count=count) for answer, count in known.pop("votes", VOTES)))
    return SimpleNamespace(**known, votes=votes)


def spec(challenger: str = "paper", solver: str = "paper", unboxed: str = "counts") -> Any:
    if challenger == "judged":
        return make_run(**RUBRIC).spec
    changes: dict[str, Any] = {
        "spec__challenger__reward": {"mode": challenger, "unboxed": unboxed},
        "spec__solver__reward": {"mode": solver},
    }
    return make_run(**changes).spec


@pytest.mark.parametrize(
    ("mode", "changes", "uncertainty", "most", "valid"),
    [
        ("paper", {}, 0.8, 0.8, True),
        ("code", {}, 0.4, 0.4, True),
        ("paper", {"share": 0.0, "majority": None, "votes": ()}, 0.0, 0.0, True),
        ("paper", {"question": None, "share": None, "votes": ()}, 0.0, 0.0, False),
        ("code", {"question": None, "share": None, "votes": ()}, 0.0, -1.0, False),
        ("code", {"dropped": "held_out"}, 0.0, -1.0, False),
        ("code", {"dropped": "above_band"}, 0.4, 0.4, True),
        ("judged", {"share": 0.7, "majority": None, "label": "", "votes": ()}, 0.3, 0.3, True),
    ],
)
def test_the_challengers_reward_is_its_modes_before_penalties(
    mode: str, changes: dict[str, Any], uncertainty: float, most: float, valid: bool
) -> None:
    found = of_challenger(spec(mode), row(**changes))
    assert found is not None and (found.uncertainty, found.most) == pytest.approx((uncertainty, most))
    assert found.valid is valid


def test_shares_are_of_boxed_answers_where_the_others_drop_out() -> None:
    found = of_challenger(spec(unboxed="drops"), row())
    assert found is not None and found.share == 0.75 and found.uncertainty == 0.5


def test_of_a_question_that_was_not_answered_nothing_is_known() -> None:
    assert of_challenger(spec(), row(share=None, majority=None, votes=())) is None


@pytest.mark.parametrize(
    ("mode", "changes", "right", "mean"),
    [
        ("paper", {}, 6, 0.6),
        ("code", {}, 6, 0.6 + 0.1 * 0.2),
        ("paper", {"label": "13"}, 2, 0.2),  # the truth is the label, or another question's majority
        ("paper", {"majority": "12.0", "label": "12.0"}, 6, 0.6),  # the commonest spelling is not the first
        ("confidence", {}, None, 0.6 * 0.6 + 0.2 * 0.2),
    ],
)
def test_the_solvers_is_the_mean_over_the_answers(
    mode: str, changes: dict[str, Any], right: int | None, mean: float
) -> None:
    assert of_solver(spec(solver=mode), row(**changes), 10) == OfSolver(mode, right, 10, pytest.approx(mean))


def test_what_no_row_has_is_not_made_up() -> None:
    assert of_solver(spec(), row(label=None), 10) is None
    assert of_solver(spec(), row(label="14"), 10) is None  # perhaps it equals one of the votes
    judged = row(majority=None, label="", share=0.7, votes=())
    assert of_solver(spec("judged"), judged, 10) == OfSolver("judged", None, 10, None)
