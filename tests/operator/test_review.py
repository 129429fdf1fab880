"""An iteration that wants an approval does not begin before a person has given it."""

from __future__ import annotations

from typing import Any

import pytest
from test_reconcile import Scenario, starts, stops

from harness.runs import document
from selfevo_contract.errors import InputError
from selfevo_core.invalid_spec import parse_run
from selfevo_core.reconcile import Outcome

FIRST = ("evaluate-0", "challenger-train-1", "solver-rollout-1", "solver-train-1")


def reason(outcome: Outcome) -> str:
    (found,) = [c.reason for c in outcome.status.conditions if c.type == "Suspended"]
    return found


def message(outcome: Outcome) -> str:
    return outcome.status.conditions[0].message


@pytest.mark.parametrize("review", [{"before": [2]}, {"every": True}])
def test_a_run_waits_before_an_iteration_until_it_is_approved(review: dict[str, Any]) -> None:
    scenario = Scenario(spec__review=review).done(*FIRST, "evaluate-1")
    outcome = scenario.reconcile(1)
    assert (outcome.actions, outcome.status.phase, outcome.wake_at) == ((), "Suspended", None)
    assert reason(outcome) == "AwaitingReview"
    assert message(outcome) == (
        "iteration 2 waits for a person (spec.review); set spec.approvedIteration to 2, or use `selfevo approve`, to "
        "go on, 5 of 9 steps done"
    )
    outcome = scenario.change(spec__approvedIteration=2).reconcile(2)
    assert starts(outcome) == [("challenger-train-2", 1)] and outcome.status.phase == "Running"


def test_what_belongs_to_earlier_iterations_goes_on_and_is_not_stopped() -> None:
    scenario = Scenario(spec__review={"before": [2]}, spec__parallelSteps=2).done(*FIRST)
    outcome = scenario.reconcile(1)
    assert starts(outcome) == [("evaluate-1", 1)], "and not the Challenger of iteration 2 beside it"
    scenario.attempt("evaluate-1")
    outcome = scenario.reconcile(2)
    assert (outcome.actions, outcome.status.phase, outcome.wake_at) == ((), "Running", None)


def test_what_runs_is_not_stopped_when_somebody_wants_it_reviewed_later() -> None:
    scenario = Scenario().done(*FIRST, "evaluate-1")
    scenario.attempt("challenger-train-2")
    outcome = scenario.change(spec__review={"every": True}).reconcile(1)
    assert stops(outcome) == [] and outcome.status.phase == "Running"
    scenario.done("challenger-train-2")
    assert reason(scenario.reconcile(2)) == "AwaitingReview"


def test_before_the_first_iteration_the_base_is_evaluated() -> None:
    scenario = Scenario(spec__review={"before": [1]})
    assert starts(scenario.reconcile()) == [("evaluate-0", 1)]
    assert reason(scenario.done("evaluate-0").reconcile(1)) == "AwaitingReview"


def test_an_approval_covers_all_iterations_before_it() -> None:
    scenario = Scenario(spec__review={"every": True}, spec__approvedIteration=2).done(*FIRST, "evaluate-1")
    assert starts(scenario.reconcile(1)) == [("challenger-train-2", 1)]


def test_one_that_is_not_in_the_plan_waits_for_nothing() -> None:
    scenario = Scenario(spec__review={"before": [3]})
    for step in scenario.plan.steps:
        scenario.done(step.name)
    assert scenario.reconcile(1).status.phase == "Succeeded"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec__approvedIteration": 3}, "approvedIteration is above iterations; lower it, or raise iterations with"),
        ({"spec__review": {}}, "review names no iteration; write before: .2. or every: true, or remove review"),
        ({"spec__review": {"before": [0]}}, "spec.review.before"),
        ({"spec__review": {"before": [2, 2]}}, "2 is there twice; remove one"),
    ],
)
def test_a_review_that_makes_no_sense_is_refused_in_a_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_run(document(**changes))
