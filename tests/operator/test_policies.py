"""A policy decides about a run from one file and one line of the list: what it may ask for, and who is heard first."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from test_reconcile import NOW, Scenario, at

from selfevo_core.policies import POLICIES, Decision, Hold, Policy, RunState, combined
from selfevo_core.reconcile import Blocker, Outcome, Start, Stop, reconcile

TRIPPED = Decision(phase="Suspended", reason="GuardTripped", message="half of the questions are copies")


def reconciled(scenario: Scenario, *policies: Policy, seconds: float = 0) -> Outcome:
    """One reconcile with ``policies`` in the list, before all others."""
    attempts = list(scenario.attempts.values())
    outcome = reconcile(scenario.run, scenario.plan, attempts, at(seconds), policies=(*policies, *POLICIES))
    scenario.run = scenario.run.model_copy(update={"status": outcome.status})
    return outcome


def low_score(state: RunState, now: datetime) -> Decision | None:
    """As a guard would be written: it reads what the steps measured."""
    worst = min((step.metrics["mean"] for step in state.steps.values() if "mean" in step.metrics), default=1.0)
    return TRIPPED if worst < 0.3 else None


def starts(outcome: Outcome) -> list[str]:
    return [action.step.name for action in outcome.actions if isinstance(action, Start)]


def test_a_policy_of_ones_own_suspends_the_run_when_its_figures_say_so() -> None:
    scenario = Scenario(spec__parallelSteps=2).done("evaluate-0", mean=0.4)
    assert starts(reconciled(scenario, low_score)) == ["challenger-train-1"]

    scenario = Scenario(spec__parallelSteps=2).done("evaluate-0", mean=0.2)
    running = scenario.attempt("challenger-train-1")
    outcome = reconciled(scenario, low_score)
    assert list(outcome.actions) == [Stop(running.name, "Suspended")]
    assert outcome.status.phase == "Suspended" and scenario.conditions()["Suspended"] == "True"
    (reconciling,) = [c for c in outcome.status.conditions if c.type == "Reconciling"]
    assert reconciling.reason == "GuardTripped"
    assert reconciling.message.startswith("half of the questions are copies, 1 of 9 steps done")


def test_a_policy_ends_the_run_with_its_own_words() -> None:
    scenario = Scenario()
    attempt = scenario.attempt("evaluate-0")
    spent = Decision(phase="Failed", reason="BudgetSpent", message="200 GPU hours are spent")
    outcome = reconciled(scenario, lambda state, now: spent)
    assert outcome.actions == (Stop(attempt.name, "RunFailed"),)
    assert outcome.status.phase == "Failed" and outcome.status.finished_at is not None
    assert {(c.reason, c.message) for c in outcome.status.conditions} == {("BudgetSpent", "200 GPU hours are spent")}


def test_a_held_step_waits_and_another_one_starts_in_its_place_unless_the_slot_is_kept() -> None:
    until = NOW + timedelta(seconds=5)
    for keeps_slot, started in ((False, ["challenger-train-1"]), (True, [])):
        hold = Decision(holds={"evaluate-0": Hold(until, keeps_slot)})
        outcome = reconciled(Scenario(), lambda state, now, hold=hold: hold)
        assert (starts(outcome), outcome.wake_at) == (started, until)


def test_what_nothing_goes_on_for_is_reported_when_nothing_goes_on() -> None:
    full = Decision(starts_nothing=True, blocker=Blocker("DiskFull", "the store is full"))
    scenario = Scenario()
    scenario.attempt("evaluate-0")
    assert reconciled(scenario, lambda state, now: full).status.conditions[0].reason == "StepsRunning"
    outcome = reconciled(Scenario(), lambda state, now: full)
    assert outcome.actions == ()
    assert outcome.status.conditions[0].message == "0 of 9 steps done, the store is full"


@pytest.mark.parametrize("suspend", [False, True])
def test_the_first_to_name_a_phase_is_the_last_that_is_asked(suspend: bool) -> None:
    asked: list[str] = []

    def last(state: RunState, now: datetime) -> None:
        asked.append("last")

    scenario = Scenario(spec__suspend=suspend)
    attempts = list(scenario.attempts.values())
    reconcile(scenario.run, scenario.plan, attempts, NOW, policies=(*POLICIES, last))
    assert asked == ([] if suspend else ["last"])


def test_of_two_wishes_about_one_step_the_earlier_holds() -> None:
    first, second = Hold(at(5)), Hold(at(50), keeps_slot=True)
    policies: list[Policy] = [
        lambda state, now: Decision(holds={"evaluate-0": first}),
        lambda state, now: Decision(holds={"evaluate-0": second, "evaluate-1": second}),
    ]
    decided = combined(policies, RunState(Scenario().run.spec, Scenario().plan, Scenario().reconcile().status, {}), NOW)
    assert decided.holds == {"evaluate-0": first, "evaluate-1": second}
