"""A step's states: the table is whole, evidence comes to its events, and what it says is what is recorded."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from test_reconcile import NO_IMAGE, NOW, Scenario

from selfevo_contract.status import StepState, StepStatus
from selfevo_core.observe import observe
from selfevo_core.policies.retry import Backoff
from selfevo_core.transitions import TRANSITIONS, Event, is_final, next_state

LIMIT = 2
OPEN: tuple[StepState, ...] = ("Pending", "Running")
EVIDENCE: dict[Event, tuple[dict[str, Any] | None, int]] = {
    Event.GONE: (None, 0),
    Event.WAITS: ({"state": "Pending", "waiting": NO_IMAGE}, 0),
    Event.RUNS: ({"state": "Running"}, 0),
    Event.COMMITTED: ({"state": "Succeeded"}, 0),
    Event.RESULT_LOST: ({"state": "Succeeded", "result": None}, 0),
    Event.FIGURES_LOST: ({"state": "Succeeded", "result": None}, LIMIT),
    Event.SCORE_LOST: ({"state": "Succeeded", "result": None}, LIMIT),
    Event.TERMINATED: ({"state": "Failed", "exit_code": 143}, LIMIT),
    Event.FAILED: ({"state": "Failed", "exit_code": 3}, 0),
    Event.FAILED_TOO_OFTEN: ({"state": "Failed", "exit_code": 3}, LIMIT),
    Event.INVALID_INPUT: ({"state": "Failed", "exit_code": 2}, 0),
    Event.BAD_DATA: ({"state": "Failed", "exit_code": 4}, 0),
    Event.DEADLINE_EXCEEDED: ({"state": "Failed", "reason": "DeadlineExceeded"}, 0),
}
"""What is seen of the step's only attempt (None: nothing), and how often the step had failed before."""


def seen(state: StepState, event: Event) -> StepStatus:
    """The record of a step that was in ``state``, after the evidence of ``event``."""
    scenario = Scenario()
    fields, failures = EVIDENCE[event]
    attempts = [] if fields is None else [scenario.attempt("evaluate-0", **fields)]
    key = scenario.plan.by_name["evaluate-0"].key
    record = StepStatus(name="evaluate-0", phase="evaluate", iteration=0, key=key, state=state, failures=failures)
    score_decides = event is Event.SCORE_LOST
    return observe(record, attempts, False, LIMIT, Backoff(), NOW, score_decides=score_decides)


def test_a_step_that_is_not_done_knows_every_event_and_one_that_is_done_only_a_changed_spec() -> None:
    of_attempts = set(Event) - {Event.SPEC_CHANGED}
    for state in OPEN:
        assert {event for of, event in TRANSITIONS if of == state} == of_attempts
        assert not is_final(state)
    assert {(state, event) for state, event in TRANSITIONS if is_final(state)} == {("Failed", Event.SPEC_CHANGED)}
    assert set(TRANSITIONS.values()) == set(get_args(StepState))
    assert set(EVIDENCE) == of_attempts


@pytest.mark.parametrize("event", EVIDENCE, ids=lambda event: event.name)
@pytest.mark.parametrize("state", OPEN)
def test_what_is_recorded_is_the_tables_word(state: StepState, event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(state, event).state == TRANSITIONS[state, event]
    others = [other for other in get_args(StepState) if other != TRANSITIONS[state, event]]
    for other in others:  # the table decides, not what stands beside it
        monkeypatch.setitem(TRANSITIONS, (state, event), other)
        assert seen(state, event).state == other


@pytest.mark.parametrize("event", EVIDENCE, ids=lambda event: event.name)
@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_a_final_record_outweighs_whatever_is_seen(state: StepState, event: Event) -> None:
    assert seen(state, event).state == next_state(state, event) == state


def test_a_changed_spec_opens_what_had_failed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=2)
    scenario.reconcile()
    assert scenario.step("evaluate-0").state == "Failed"
    monkeypatch.delitem(TRANSITIONS, ("Failed", Event.SPEC_CHANGED))
    scenario.change(spec__pods={"image": "other"}).reconcile()
    assert scenario.step("evaluate-0").state == "Failed"
