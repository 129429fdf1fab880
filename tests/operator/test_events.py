"""Events: one a change of status, telling all that is new, under a name that telling it again does not change."""

from __future__ import annotations

from typing import Any

from harness.runs import make_run
from selfevo_contract.status import Condition, GuardStatus, RunStatus, StepStatus, Usage
from selfevo_operator.writes.events import event

RUN = make_run(metadata__uid="u1")
AT = "2026-01-01T00:00:01.500Z"


def step(name: str, **fields: Any) -> StepStatus:
    return StepStatus(name=name, phase=name.rsplit("-", 1)[0], iteration=1, key="k", **fields)


def status(*steps: StepStatus, phase: str = "Running", stalled: str = "", message: str = "fine") -> RunStatus:
    found = [("Ready", "False", "Running"), ("Stalled", "True" if stalled else "False", stalled or "Running")]
    conditions = [
        Condition(type=kind, status=value, reason=reason, message=message, last_transition_time=AT)  # type: ignore[arg-type]
        for kind, value, reason in found
    ]
    return RunStatus(phase=phase, steps=list(steps), conditions=conditions)  # type: ignore[arg-type]


def event_of(before: RunStatus, after: RunStatus) -> tuple[str, str, str] | None:
    made = event(RUN, before, after, AT)
    return made and (made["type"], made["reason"], made["message"])


def test_the_end_of_a_step_and_the_start_of_the_next_are_one_event() -> None:
    before = status(step("challenger-train-1", state="Running", attempts=1))
    after = status(
        step("challenger-train-1", state="Succeeded", attempts=1), step("solver-rollout-1", state="Pending", attempts=1)
    )
    assert event_of(before, after) == (
        "Normal",
        "StepSucceeded",
        "challenger-train-1 is done; solver-rollout-1 started",
    )


def test_a_failure_is_a_warning_and_gives_the_reason_also_when_it_is_not_alone() -> None:
    before = status(
        step("evaluate-0", state="Running", attempts=1), step("solver-train-1", state="Running", attempts=1)
    )
    after = status(
        step("evaluate-0", state="Succeeded", attempts=1),
        step("solver-train-1", state="Pending", attempts=1, ended=1, failures=1, message="the store is down"),
    )
    assert event_of(before, after) == (
        "Warning",
        "AttemptFailed",
        "evaluate-0 is done; solver-train-1, attempt 1: the store is down",
    )


def test_the_end_of_a_run_says_how() -> None:
    assert event_of(status(), status(phase="Succeeded", message="9 of 9 steps done")) == (
        "Normal",
        "Succeeded",
        "run Succeeded: 9 of 9 steps done",
    )
    assert event_of(status(), status(phase="Failed", message="x"))[:2] == ("Warning", "Failed")  # type: ignore[index]


def test_suspending_and_resuming_are_reported() -> None:
    assert event_of(status(), status(phase="Suspended"))[1] == "Suspended"  # type: ignore[index]
    assert event_of(status(phase="Suspended"), status())[1] == "Resumed"  # type: ignore[index]


def test_a_run_that_is_held_as_a_step_ends_says_that_it_is_held() -> None:
    """A slow operator records both at once; who waits for the reason Suspended must find it."""
    before = status(step("solver-rollout-1", state="Running", attempts=1))
    after = status(step("solver-rollout-1", state="Succeeded", attempts=1), phase="Suspended")
    assert event_of(before, after) == ("Normal", "Suspended", "solver-rollout-1 is done; run Suspended: fine")


def test_what_needs_a_person_is_reported_once() -> None:
    stuck = status(stalled="ImagePullBackOff", message="no such image")
    assert event_of(status(), stuck) == ("Warning", "ImagePullBackOff", "no such image")
    assert event_of(stuck, stuck) is None


def test_a_pod_that_starts_to_run_is_not_worth_an_event() -> None:
    before, after = (status(step("evaluate-0", state=state, attempts=1)) for state in ("Pending", "Running"))
    assert event_of(before, after) is None


def test_the_same_events_have_the_same_name_and_other_events_another() -> None:
    before = status(step("evaluate-0", state="Running", attempts=1))
    after = status(step("evaluate-0", state="Succeeded", attempts=1))
    names = [event(RUN, before, after, at)["metadata"]["name"] for at in (AT, "2026-01-02T00:00:00.000Z")]  # type: ignore[index]
    other = event(RUN, before, status(step("evaluate-0", state="Succeeded", attempts=2)), AT)
    assert names[0] == names[1] and other is not None and other["metadata"]["name"] != names[0]


def test_its_time_has_whole_seconds_as_the_api_wants() -> None:
    made = event(RUN, status(), status(phase="Succeeded"), AT)
    assert made is not None and made["firstTimestamp"] == "2026-01-01T00:00:01Z"


def test_a_guard_that_warns_trips_or_passes_again_is_reported_once() -> None:
    def guarded(state: str) -> RunStatus:
        guard = GuardStatus(name="kl", state=state, message="it is 3")  # type: ignore[arg-type]
        return status().model_copy(update={"guards": [guard]})

    assert event_of(status(), guarded("Passing")) is None
    assert event_of(guarded("Passing"), guarded("Warned")) == ("Warning", "GuardWarned", "guard kl: it is 3")
    assert event_of(guarded("Warned"), guarded("Warned")) is None
    assert event_of(guarded("Warned"), guarded("Tripped")) == ("Warning", "GuardTripped", "guard kl: it is 3")
    assert event_of(guarded("Tripped"), guarded("Passing")) == (
        "Normal",
        "GuardsPassing",
        "guard kl passes again: it is 3",
    )


def test_a_budget_of_which_little_is_left_is_a_warning_once_and_one_that_is_used_up_says_so() -> None:
    run = make_run(metadata__uid="u1", spec__budget={"gpuHours": 10})
    little = status().model_copy(update={"usage": Usage(counted_at=AT, gpu_hours=8.25, low=["gpuHours"])})
    made = event(run, status(), little, AT)
    assert made is not None
    assert (made["type"], made["reason"]) == ("Warning", "BudgetLow")
    assert made["message"] == "82% of budget.gpuHours is used: 8.25 of 10 GPU hours"
    assert event(run, little, little, AT) is None
    spent = status(phase="Suspended", message="budget.gpuHours is used up")
    spent.conditions[0] = spent.conditions[0].model_copy(update={"reason": "BudgetExceeded"})
    made = event(run, little, spent.model_copy(update={"usage": little.usage}), AT)
    assert made is not None and (made["type"], made["reason"]) == ("Warning", "BudgetExceeded")
