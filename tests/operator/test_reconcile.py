"""reconcile by tables: one observation in, actions and status out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.runs import make_run
from selfevo_contract.plan import Plan, plan
from selfevo_contract.process import PhaseResult
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus, StepStatus
from selfevo_core.reconcile import Backoff, Blocker, ObservedAttempt, Outcome, Start, Stop, attempt_name, reconcile

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
QUEUED = Blocker("Queued", "held in queue team-a", stuck=False)
NO_IMAGE = Blocker("ImagePullBackOff", "no such image")


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


class Scenario:
    """One run under observation: what is recorded, what exists, and the calls in between."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.run: SelfEvolutionRun = make_run(**changes)
        self.plan: Plan = plan(self.run.spec)
        self.attempts: dict[str, ObservedAttempt] = {}
        self.outcome: Outcome | None = None

    def change(self, *, answer: bool = True, **changes: Any) -> Scenario:
        """A person changes the spec, which makes a new generation."""
        status, generation = self.run.status, self.run.metadata.generation + int(answer)
        self.changes = {**self.changes, **changes, "metadata__generation": generation}
        self.run = make_run(**self.changes).model_copy(update={"status": status})
        self.plan = plan(self.run.spec, status.rollbacks if status else ())
        return self

    def attempt(self, step: str, number: int = 1, state: str = "Running", **fields: Any) -> ObservedAttempt:
        """An attempt exists as described."""
        of = self.plan.by_name[step]
        name = attempt_name(self.run.metadata.name, of, number)
        ended = state in ("Succeeded", "Failed")
        made = ObservedAttempt(
            name=name,
            step=step,
            key=of.key,
            number=number,
            state=state,  # type: ignore[arg-type]
            **{"started_at": NOW, "finished_at": NOW if ended else None, **fields},
        )
        if state == "Succeeded" and "result" not in fields:
            made = replace(made, exit_code=0, result=self.result(step))
        self.attempts[name] = made
        return made

    def result(self, step: str, outcome: str = "committed", **fields: Any) -> PhaseResult:
        of = self.plan.by_name[step]
        return PhaseResult(phase=of.phase, key=of.key, outcome=outcome, **fields)  # type: ignore[arg-type]

    def done(self, *names: str, **metrics: float) -> Scenario:
        """Steps are recorded as done."""
        for name in names:
            self.attempt(name, state="Succeeded", result=self.result(name, metrics=metrics), exit_code=0)
        self.reconcile()
        self.attempts = {}
        return self

    def reconcile(self, seconds: float = 0, backoff: Backoff | None = None) -> Outcome:
        """Reconcile once, keep the status, and insist that a second reconcile changes nothing."""
        attempts: Sequence[ObservedAttempt] = list(self.attempts.values())
        backoff = backoff or Backoff()
        outcome = reconcile(self.run, self.plan, attempts, at(seconds), backoff)
        self.run = self.run.model_copy(update={"status": outcome.status})
        again = reconcile(self.run, self.plan, list(reversed(attempts)), at(seconds), backoff)
        assert again == outcome
        self.outcome = outcome
        return outcome

    @property
    def status(self) -> RunStatus:
        assert self.run.status is not None
        return self.run.status

    def step(self, name: str) -> StepStatus:
        return next(step for step in self.status.steps if step.name == name)

    def conditions(self) -> dict[str, str]:
        return {condition.type: condition.status for condition in self.status.conditions}


def starts(outcome: Outcome) -> list[tuple[str, int]]:
    return [(a.step.name, a.number) for a in outcome.actions if isinstance(a, Start)]


def stops(outcome: Outcome) -> list[tuple[str, str]]:
    return [(a.name, a.reason) for a in outcome.actions if isinstance(a, Stop)]


ALL = [
    "evaluate-0",
    *("challenger-train-1", "solver-rollout-1", "solver-train-1", "evaluate-1"),
    *("challenger-train-2", "solver-rollout-2", "solver-train-2", "evaluate-2"),
]


# --- starting steps ---------------------------------------------------------------------------------------------------


def test_a_fresh_run_starts_its_first_step_and_is_pending() -> None:
    scenario = Scenario()
    assert starts(scenario.reconcile()) == [("evaluate-0", 1)]
    assert scenario.status.phase == "Pending"
    assert scenario.conditions()["Reconciling"] == "True"


def test_steps_that_do_not_wait_for_each_other_start_together_within_parallel_steps() -> None:
    assert starts(Scenario(spec__parallelSteps=2).reconcile()) == [("evaluate-0", 1), ("challenger-train-1", 1)]


def test_a_running_attempt_takes_a_slot() -> None:
    scenario = Scenario(spec__parallelSteps=2)
    scenario.attempt("evaluate-0")
    assert starts(scenario.reconcile()) == [("challenger-train-1", 1)]
    scenario.attempt("challenger-train-1", state="Pending")
    assert starts(scenario.reconcile()) == []


def test_a_step_waits_for_its_parents() -> None:
    scenario = Scenario(spec__parallelSteps=9).done("evaluate-0", "challenger-train-1")
    assert starts(scenario.reconcile()) == [("solver-rollout-1", 1)]


def test_evaluation_of_one_iteration_runs_beside_the_challenger_of_the_next() -> None:
    scenario = Scenario(spec__parallelSteps=2).done(*ALL[:4])
    assert starts(scenario.reconcile()) == [("evaluate-1", 1), ("challenger-train-2", 1)]


def test_two_steps_with_one_key_do_not_run_at_once() -> None:
    # Neither role is trained: every iteration's evaluation is of the base.
    scenario = Scenario(spec__parallelSteps=9, spec__solver__grpo__maxSteps=0, spec__challenger__grpo__maxSteps=0)
    assert scenario.plan.by_name["evaluate-0"].key == scenario.plan.by_name["evaluate-2"].key
    assert starts(scenario.reconcile()) == [("evaluate-0", 1), ("solver-rollout-1", 1), ("solver-rollout-2", 1)]


def test_the_step_follows_its_attempt() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Pending", waiting=QUEUED)
    scenario.reconcile()
    assert scenario.step("evaluate-0").state == "Pending"
    scenario.attempt("evaluate-0")
    scenario.reconcile()
    assert (scenario.step("evaluate-0").state, scenario.status.phase) == ("Running", "Running")


# --- the end of a step ------------------------------------------------------------------------------------------------


def test_an_attempt_that_succeeded_ends_its_step_and_starts_the_next() -> None:
    scenario = Scenario()
    result = scenario.result("evaluate-0", metrics={"mean": 0.5}, timings={"total": 3.0})
    scenario.attempt("evaluate-0", state="Succeeded", exit_code=0, result=result)
    outcome = scenario.reconcile()
    assert starts(outcome) == [("challenger-train-1", 1)]
    step = scenario.step("evaluate-0")
    assert (step.state, step.metrics, step.timings, step.reused) == ("Succeeded", {"mean": 0.5}, {"total": 3.0}, False)


def test_an_output_that_was_there_already_is_reported() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Succeeded", result=scenario.result("evaluate-0", "found"))
    scenario.reconcile()
    assert scenario.step("evaluate-0").reused


def test_a_missing_attempt_of_a_step_that_is_done_means_nothing() -> None:
    scenario = Scenario().done(*ALL)
    assert scenario.reconcile().actions == ()
    assert scenario.status.phase == "Succeeded"


def test_an_attempt_that_vanished_is_started_again_under_its_name_and_not_counted() -> None:
    scenario = Scenario()
    attempt = scenario.attempt("evaluate-0")
    scenario.reconcile()
    scenario.attempts.clear()
    outcome = scenario.reconcile()
    # The same name: should the attempt be there after all and the list be stale, creating it again does nothing.
    assert [a.name for a in outcome.actions if isinstance(a, Start)] == [attempt.name]
    assert scenario.step("evaluate-0").failures == 0
    assert [(a.state, a.reason) for a in scenario.status.attempts] == [("Failed", "Lost")]
    scenario.attempt("evaluate-0")
    scenario.reconcile()
    assert [(a.state, a.reason) for a in scenario.status.attempts] == [("Running", "")]


def test_an_ended_attempt_that_is_seen_alive_later_changes_nothing_but_waits() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=137)
    scenario.reconcile()
    ghost = scenario.attempt("evaluate-0", state="Running")
    outcome = scenario.reconcile(60)
    assert starts(outcome) == []  # never two live attempts of one step
    assert stops(outcome) == [(ghost.name, "Superseded")]
    assert scenario.step("evaluate-0").failures == 1


def test_success_without_a_result_is_found_by_another_attempt() -> None:
    scenario = Scenario(spec__backoffLimit=1, spec__challenger__grpo__maxSteps=0, spec__parallelSteps=2)
    scenario.attempt("solver-rollout-1")
    scenario.attempt("evaluate-0", state="Succeeded", result=None)
    assert starts(scenario.reconcile()) == []
    assert starts(scenario.reconcile(10)) == [("evaluate-0", 2)]
    scenario.attempt(
        "evaluate-0", 2, state="Succeeded", result=scenario.result("evaluate-0", "found", metrics={"mean": 0.4})
    )
    scenario.reconcile(10)
    assert scenario.status.score == 0.4


def test_success_without_a_result_is_believed_in_the_end() -> None:
    scenario = Scenario(spec__backoffLimit=0)
    scenario.attempt("evaluate-0", state="Succeeded", result=None)
    scenario.reconcile()
    assert (scenario.step("evaluate-0").state, scenario.step("evaluate-0").metrics) == ("Succeeded", {})
    assert "is unknown: the result of demo-evaluate-0-" in scenario.step("evaluate-0").message
    for step in scenario.plan.steps[1:]:
        scenario.done(step.name, mean=0.5)
    message = next(c.message for c in scenario.status.conditions if c.type == "Complete")
    assert message.endswith("steps done; what evaluate-0 measured is unknown")


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"spec__publish": {"to": "s3://releases/sums"}}, "Failed"),
        ({"spec__finetune": {"data": {"uri": "s3://labelled"}}}, "Failed"),
        ({"spec__publish": {"to": "s3://releases/sums", "what": "each"}}, "Succeeded"),
        ({}, "Succeeded"),
    ],
    ids=["published", "fine-tuned", "each published", "neither"],
)
def test_a_lost_score_that_decides_what_is_published_fails_its_step_until_it_is_asked_for_again(
    changes: dict[str, Any], state: str
) -> None:
    scenario = Scenario(spec__backoffLimit=0, **changes)
    scenario.attempt("evaluate-0", state="Succeeded", result=None)
    scenario.reconcile()
    step = scenario.step("evaluate-0")
    assert step.state == state
    if state == "Failed":
        assert (scenario.status.phase, step.reason, step.failures) == ("Failed", "ResultLost", 1)
        message = condition(scenario, "Failed")
        assert message == ("True", "ResultLost") and "raise spec.backoffLimit, which is 0" in step.message
        scenario.change(spec__pods={"image": "other"})
        assert ("evaluate-0", 2) in starts(scenario.reconcile(1))
        found = scenario.result("evaluate-0", "found", metrics={"mean": 0.4})
        scenario.attempt("evaluate-0", 2, state="Succeeded", result=found)
        scenario.reconcile(10)
        assert scenario.status.iterations[0].score == 0.4


def test_a_lost_result_of_a_step_that_scores_nothing_ends_no_run_that_publishes_its_best() -> None:
    scenario = Scenario(spec__backoffLimit=0, spec__publish={"to": "s3://releases/sums"}).done("evaluate-0", mean=0.5)
    scenario.attempt("challenger-train-1", state="Succeeded", result=None)
    scenario.reconcile()
    assert (scenario.step("challenger-train-1").state, scenario.status.phase) == ("Succeeded", "Running")


def test_an_indexed_attempt_whose_shards_never_saw_each_other_is_tried_again() -> None:
    scenario = Scenario().done("evaluate-0", "challenger-train-1")
    scenario.attempt("solver-rollout-1", state="Succeeded", result=scenario.result("solver-rollout-1", "shard"))
    assert starts(scenario.reconcile()) == []
    assert starts(scenario.reconcile(10)) == [("solver-rollout-1", 2)]


def test_the_end_of_an_attempt_is_recorded_before_the_next_one_starts() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=1)
    first = reconcile(scenario.run, scenario.plan, list(scenario.attempts.values()), at(60))
    assert (starts(first), first.status.steps[0].ended, first.wake_at) == ([], 1, at(60))
    scenario.run = scenario.run.model_copy(update={"status": first.status})
    assert starts(scenario.reconcile(60)) == [("evaluate-0", 2)]


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "usual_reason"), [(2, "InvalidInput"), (4, "BadData")], ids=["wrong input", "bad data"]
)
def test_what_trying_again_cannot_help_ends_the_run(code: int, usual_reason: str) -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=code)
    assert scenario.reconcile(9999).actions == ()
    assert scenario.status.phase == "Failed"
    assert scenario.step("evaluate-0").reason == usual_reason


def test_the_trainers_own_words_reach_the_condition() -> None:
    scenario = Scenario()
    failure = scenario.result(
        "evaluate-0", "failed", exit_code=4, reason="EmptyCurriculum", message="no question in the band"
    )
    scenario.attempt("evaluate-0", state="Failed", exit_code=4, result=failure)
    scenario.reconcile()
    failed = next(condition for condition in scenario.status.conditions if condition.type == "Failed")
    assert failed.status == "True"
    assert failed.reason == "EmptyCurriculum"
    assert failed.message == "evaluate-0: no question in the band"
    assert (scenario.conditions()["Stalled"], scenario.conditions()["Ready"]) == ("True", "False")


def test_a_reason_that_kubernetes_would_refuse_is_replaced() -> None:
    scenario = Scenario()
    failure = scenario.result("evaluate-0", "failed", exit_code=2, reason="not a reason!", message="x" * 5000)
    scenario.attempt("evaluate-0", state="Failed", exit_code=2, result=failure)
    scenario.reconcile()
    assert {condition.reason for condition in scenario.status.conditions} == {"Failed"}
    assert max(len(condition.message) for condition in scenario.status.conditions) == 1024


@pytest.mark.parametrize("code", [3, 1, 137, 139, None], ids=str)
def test_other_failures_are_counted_and_tried_again_after_a_wait(code: int | None) -> None:
    scenario = Scenario().done(*[name for name in ALL if name != "evaluate-0"])
    scenario.attempt("evaluate-0", state="Failed", exit_code=code)
    outcome = scenario.reconcile()
    assert (starts(outcome), outcome.wake_at) == ([], at(10))
    assert next(c for c in scenario.status.conditions if c.type == "Reconciling").reason == "BackingOff"
    assert starts(scenario.reconcile(9.9)) == []
    assert starts(scenario.reconcile(10)) == [("evaluate-0", 2)]
    assert scenario.step("evaluate-0").failures == 1


def test_waits_double_up_to_a_cap() -> None:
    backoff = Backoff(timedelta(seconds=10), timedelta(minutes=5))
    assert [backoff.delay(n).total_seconds() for n in (1, 2, 3, 5, 6, 100)] == [10, 20, 40, 160, 300, 300]


def test_a_waiting_step_leaves_its_slot_to_others() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=3)
    scenario.reconcile()
    assert starts(scenario.reconcile(1)) == [("challenger-train-1", 1)]


def test_the_backoff_limit_ends_the_run() -> None:
    scenario = Scenario(spec__backoffLimit=2)
    for number in (1, 2, 3):
        scenario.attempt("evaluate-0", number, state="Failed", exit_code=3, message="the endpoint does not answer")
        scenario.reconcile()
    assert scenario.status.phase == "Failed"
    assert scenario.step("evaluate-0").reason == "BackoffLimitExceeded"
    ready = next(condition for condition in scenario.status.conditions if condition.type == "Ready")
    assert ready.message == (
        "evaluate-0 failed 3 times (spec.backoffLimit is 2), the last time: ended with exit code 3: "
        "the endpoint does not answer"
    )


def test_termination_is_not_counted() -> None:
    scenario = Scenario(spec__backoffLimit=0)
    for number in (1, 2, 3):
        scenario.attempt("evaluate-0", number, state="Failed", exit_code=143, finished_at=at(number * 100))
        scenario.reconcile(number * 100)
    assert starts(scenario.reconcile(310)) == [("evaluate-0", 4)]
    assert scenario.step("evaluate-0").failures == 0


def test_a_failed_run_stops_what_is_still_running() -> None:
    scenario = Scenario(spec__parallelSteps=2)
    running = scenario.attempt("challenger-train-1")
    scenario.attempt("evaluate-0", state="Failed", exit_code=2)
    assert stops(scenario.reconcile()) == [(running.name, "RunFailed")]


def test_a_new_generation_is_an_answer_to_a_failure() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=2)
    scenario.reconcile()
    assert scenario.reconcile().actions == ()
    # The storage's endpoint was wrong, say: not part of any key.
    scenario.change(spec__storage__endpoint="https://s3.example.org")
    assert starts(scenario.reconcile()) == [("evaluate-0", 2)]
    assert (scenario.status.phase, scenario.step("evaluate-0").failures) == ("Running", 0)


def test_a_later_attempt_that_succeeded_outweighs_earlier_failures_when_the_status_is_lost() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", 1, state="Failed", exit_code=2)
    scenario.attempt("evaluate-0", 2, state="Succeeded")
    scenario.reconcile()
    assert scenario.step("evaluate-0").state == "Succeeded"


def test_what_fails_after_the_success_changes_nothing() -> None:
    recorded = Scenario().done("evaluate-0")
    recorded.attempt("evaluate-0", 2, state="Failed", exit_code=2)  # a ghost that ended late
    recorded.reconcile()
    lost = Scenario()
    lost.attempt("evaluate-0", 1, state="Succeeded")
    lost.attempt("evaluate-0", 2, state="Failed", exit_code=3)
    lost.reconcile()
    for scenario in (recorded, lost):
        assert (scenario.step("evaluate-0").state, scenario.step("evaluate-0").failures) == ("Succeeded", 0)
        assert scenario.status.phase != "Failed"


# --- what a person changes --------------------------------------------------------------------------------------------


def test_suspend_stops_attempts_and_resume_goes_on() -> None:
    scenario = Scenario()
    attempt = scenario.attempt("evaluate-0")
    scenario.reconcile()
    scenario.change(spec__suspend=True)
    assert stops(scenario.reconcile()) == [(attempt.name, "Suspended")]
    assert scenario.status.phase == "Suspended"
    assert (scenario.conditions()["Suspended"], scenario.conditions()["Reconciling"]) == ("True", "False")
    scenario.attempt("evaluate-0", state="Failed", exit_code=143)
    assert scenario.reconcile(1).actions == ()
    scenario.change(spec__suspend=False)
    assert starts(scenario.reconcile(60)) == [("evaluate-0", 2)]


def test_a_finished_run_stays_finished_when_suspended() -> None:
    scenario = Scenario().done(*ALL).change(spec__suspend=True)
    scenario.reconcile()
    assert scenario.status.phase == "Succeeded"


def test_raised_iterations_extend_a_finished_run() -> None:
    scenario = Scenario().done(*ALL, mean=0.5)
    finished = scenario.status.finished_at
    assert finished is not None
    scenario.change(spec__iterations=3)
    assert starts(scenario.reconcile(50)) == [("challenger-train-3", 1)]
    assert (scenario.status.phase, scenario.status.finished_at) == ("Running", None)
    scenario.done("challenger-train-3", "solver-rollout-3", "solver-train-3", "evaluate-3")
    assert scenario.status.phase == "Succeeded"


def test_the_last_score_of_before_stays_when_iterations_is_raised_between_two_evaluations() -> None:
    scenario = Scenario(spec__iterations=3, spec__evaluation__every=2)
    for step in scenario.plan.steps:
        scenario.done(step.name, mean={"evaluate-3": 0.9}.get(step.name, 0.5))
    assert (
        scenario.status.phase == "Succeeded"
        and scenario.status.best is not None
        and scenario.status.best.iteration == 3
    )
    scenario.change(spec__iterations=5)
    assert starts(scenario.reconcile()) == [("challenger-train-4", 1)]
    names = [step.name for step in scenario.plan.steps if step.iteration > 3]
    for name in names:
        scenario.done(name, mean=0.6)
    assert scenario.status.phase == "Succeeded"
    assert scenario.status.best is not None and (scenario.status.best.iteration, scenario.status.best.score) == (3, 0.9)
    scores = {line.iteration: line.score for line in scenario.status.iterations}
    assert scores == {0: 0.5, 1: None, 2: 0.5, 3: 0.9, 4: 0.6, 5: 0.6}
    assert scenario.step("evaluate-3").metrics["mean"] == 0.9
    message = next(c.message for c in scenario.status.conditions if c.type == "Ready")
    assert message == f"{len(scenario.plan.steps)} of {len(scenario.plan.steps)} steps done"
    # Another model has another score: what was evaluated before is not this run's any more.
    scenario.change(spec__solver__grpo__learningRate=1e-4)
    scenario.reconcile()
    assert all(step.name != "evaluate-3" for step in scenario.status.steps)


def test_a_changed_spec_keeps_what_it_shares_and_plans_the_rest_anew() -> None:
    scenario = Scenario().done(*ALL[:4])
    old = scenario.attempt("evaluate-1")
    before = {step.name: step for step in scenario.status.steps}
    scenario.change(spec__solver__grpo__learningRate=1e-4)
    outcome = scenario.reconcile()
    # The old attempt still holds the only slot: it is stopped first.
    assert (stops(outcome), starts(outcome)) == ([(old.name, "NotInPlan")], [])
    scenario.attempts.clear()
    assert starts(scenario.reconcile()) == [("solver-train-1", 1)]
    kept = {step.name for step in scenario.status.steps if step.state == "Succeeded"}
    assert kept == {"evaluate-0", "challenger-train-1", "solver-rollout-1"}
    assert scenario.step("solver-train-1").key != before["solver-train-1"].key


def test_a_step_is_not_started_while_its_old_self_is_alive() -> None:
    scenario = Scenario(spec__parallelSteps=3)
    scenario.attempt("challenger-train-1")
    scenario.change(spec__challenger__grpo__learningRate=1e-4)
    assert starts(scenario.reconcile()) == [("evaluate-0", 1)]


# --- what keeps a run from going on ---------------------------------------------------------------------------------


def condition(scenario: Scenario, kind: str) -> tuple[str, str]:
    found = next(c for c in scenario.status.conditions if c.type == kind)
    return found.status, found.reason


def test_an_attempt_that_has_not_begun_to_wait_counts_as_running_so_that_its_beginning_is_no_write() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Pending")
    before = scenario.reconcile().status
    scenario.attempt("evaluate-0", state="Running")
    assert scenario.reconcile(1).status == before


def test_a_queue_is_no_reason_to_worry() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Pending", waiting=QUEUED)
    scenario.reconcile()
    assert condition(scenario, "Reconciling") == ("True", "Queued")
    assert condition(scenario, "Stalled")[0] == "False"
    assert scenario.status.attempts[0].reason == "Queued"


def test_an_image_that_is_not_there_stalls_the_run_until_it_is() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Pending", waiting=NO_IMAGE)
    scenario.reconcile()
    assert condition(scenario, "Stalled") == ("True", "ImagePullBackOff")
    assert condition(scenario, "Reconciling")[0] == "False"
    assert scenario.status.phase == "Running"
    scenario.attempt("evaluate-0", state="Running")
    scenario.reconcile(1)
    assert condition(scenario, "Stalled")[0] == "False"
    assert scenario.status.attempts[0].reason == ""


def test_what_runs_is_not_hindered_by_what_waits() -> None:
    scenario = Scenario(spec__parallelSteps=2)
    scenario.attempt("evaluate-0")
    scenario.attempt("challenger-train-1", state="Pending", waiting=NO_IMAGE)
    scenario.reconcile()
    assert condition(scenario, "Stalled")[0] == "False"


def test_a_problem_with_carrying_an_action_out_is_reported_and_the_action_is_still_wanted() -> None:
    scenario = Scenario()
    problem = Blocker("CreateRefused", "exceeded quota")
    outcome = reconcile(scenario.run, scenario.plan, [], NOW, problem=problem)
    scenario.run = scenario.run.model_copy(update={"status": outcome.status})
    assert starts(outcome) == [("evaluate-0", 1)]
    assert condition(scenario, "Stalled") == ("True", "CreateRefused")
    scenario.reconcile()
    assert condition(scenario, "Stalled")[0] == "False"


def test_an_attempt_that_has_not_begun_and_is_outdated_is_replaced_by_one_of_the_same_number() -> None:
    scenario = Scenario()
    old = scenario.attempt("evaluate-0", state="Pending", waiting=NO_IMAGE, outdated=True)
    outcome = scenario.reconcile()
    assert (stops(outcome), starts(outcome)) == ([(old.name, "SpecChanged")], [])
    scenario.attempts.clear()
    assert starts(scenario.reconcile(1)) == [("evaluate-0", 1)]
    assert scenario.step("evaluate-0").failures == 0


def test_an_attempt_that_runs_goes_on_however_outdated() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", outdated=True)
    assert scenario.reconcile().actions == ()


def test_an_attempt_that_is_ending_is_not_asked_again_and_keeps_its_slot_and_its_reason() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0")
    scenario.reconcile()
    scenario.change(spec__suspend=True)
    assert [reason for _, reason in stops(scenario.reconcile(1))] == ["Suspended"]
    scenario.attempt("evaluate-0", stopping=True)
    assert scenario.reconcile(2).actions == ()
    scenario.change(spec__suspend=False)
    assert scenario.reconcile(3).actions == ()
    scenario.attempts.clear()
    assert starts(scenario.reconcile(4)) == [("evaluate-0", 1)]
    assert [(a.state, a.reason) for a in scenario.status.attempts] == [("Failed", "Suspended")]
    scenario.attempt("evaluate-0")
    scenario.reconcile(5)
    assert [(a.state, a.reason) for a in scenario.status.attempts] == [("Running", "")]


def test_what_an_attempt_comes_to_while_it_is_taken_away_is_no_failure() -> None:
    scenario = Scenario(spec__backoffLimit=0)
    scenario.attempt("evaluate-0")
    scenario.reconcile()
    scenario.change(spec__suspend=True)
    scenario.reconcile(1)
    scenario.attempt("evaluate-0", state="Failed", stopping=True, exit_code=None, failures=1, message="no pods left")
    scenario.reconcile(2)
    assert scenario.status.phase == "Suspended"
    assert scenario.step("evaluate-0").failures == 0
    assert [(a.state, a.reason) for a in scenario.status.attempts] == [("Failed", "Suspended")]


def test_a_score_has_as_many_digits_as_a_column_wants_and_the_exact_figure_stays() -> None:
    scenario = Scenario().done("evaluate-0", mean=2 / 3)
    assert scenario.status.score == 0.6667
    assert scenario.status.iterations[0].metrics["evaluation/mean"] == 2 / 3


def test_a_group_of_tasks_has_the_average_of_all_of_them_or_none() -> None:
    tasks = [
        {"name": name, "data": {"uri": f"s3://bucket/{name}"}, **({"group": group} if group else {})}
        for name, group in (("one", "math"), ("two", "math"), ("three", "general"), ("four", None))
    ]
    scenario = Scenario(spec__evaluation__tasks=tasks, spec__evaluation__metric="maj")
    scenario.done("evaluate-0", maj=0.4, **{"one/maj": 1.0, "two/maj": 1 / 3, "two/mean": 0.9, "four/maj": 0.2})
    [base] = scenario.status.iterations
    assert (base.score, base.groups) == (0.4, {"math": 0.6667})


def test_a_job_that_has_tried_as_often_as_it_may_is_not_tried_again() -> None:
    scenario = Scenario(spec__backoffLimit=3)
    scenario.attempt("evaluate-0", state="Failed", exit_code=3, failures=4, message="the store is down")
    assert scenario.reconcile().actions == ()
    assert scenario.status.phase == "Failed"
    assert condition(scenario, "Failed") == ("True", "BackoffLimitExceeded")
    scenario.change(spec__backoffLimit=4)
    assert starts(scenario.reconcile(1)) == [("evaluate-0", 2)]


def test_a_deadline_ends_the_step_at_once() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=None, reason="DeadlineExceeded", message="too long")
    assert scenario.reconcile().actions == ()
    assert condition(scenario, "Failed") == ("True", "DeadlineExceeded")


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_are_deterministic_and_tell_what_they_are_of() -> None:
    scenario = Scenario()
    step = scenario.plan.by_name["solver-train-2"]
    assert attempt_name("demo", step, 3) == f"demo-solver-train-2-{step.key[:8]}-3"


def test_names_fit_and_differ_for_long_runs() -> None:
    step = replace(Scenario().plan.by_name["challenger-train-1"], name="challenger-train-1000")
    for length in range(1, 64):
        name = attempt_name("r" * length, step, 100)
        assert len(name) <= 57 and name[0].isalpha() and "--" not in name
        assert attempt_name("r" * (length - 1) + "s", step, 100) != name


# --- the status -------------------------------------------------------------------------------------------------------


def test_best_is_the_highest_score_and_the_earlier_of_equals() -> None:
    scenario = Scenario(spec__iterations=3)
    for number, score in enumerate((0.2, 0.6, 0.6, 0.4)):
        scenario.done(*[name for name in scenario.plan.by_name if name.endswith(f"-{number}")], mean=score, greedy=0.1)
    best = scenario.status.best
    assert best is not None
    assert (best.iteration, best.score, scenario.status.score) == (1, 0.6, 0.4)
    key = scenario.plan.by_name["solver-train-1"].key
    assert scenario.status.model_uri == best.model_uri == f"file:///store/default/solver-train/{key}"


def test_best_goes_by_the_metric_that_the_spec_names_and_a_change_of_it_runs_nothing() -> None:
    scenario = Scenario(spec__iterations=1)
    scenario.done("evaluate-0", mean=0.2, greedy=0.9)
    scenario.done("challenger-train-1", "solver-rollout-1", "solver-train-1")
    scenario.done("evaluate-1", mean=0.6, greedy=0.1)
    assert scenario.status.best is not None and scenario.status.best.iteration == 1
    scenario.change(spec__evaluation__metric="greedy")
    assert scenario.reconcile().actions == ()
    assert scenario.status.best is not None and scenario.status.best.iteration == 0
    assert scenario.status.model_uri == "file:///models/base"


def test_without_evaluation_the_last_finished_iteration_is_best() -> None:
    scenario = Scenario(spec__evaluation=None)
    scenario.reconcile()
    assert scenario.status.best is None
    scenario.done("challenger-train-1", "solver-rollout-1", "solver-train-1", "challenger-train-2")
    assert scenario.status.best is not None and scenario.status.best.iteration == 1


def test_iterations_show_the_figures_of_their_steps_under_the_phase() -> None:
    scenario = Scenario().done("evaluate-0", mean=0.3).done("challenger-train-1", reward=0.4)
    assert [line.metrics for line in scenario.status.iterations] == [
        {"evaluation/mean": 0.3},
        {"challenger/reward": 0.4},
    ]


def test_status_keeps_ten_iterations_and_the_best_one() -> None:
    scenario = Scenario(spec__iterations=30)
    for number in range(31):
        names = [step.name for step in scenario.plan.steps if step.iteration == number]
        scenario.done(*names, mean=0.9 if number == 4 else number / 100, loss=1.0)
    assert [line.iteration for line in scenario.status.iterations] == [4, *range(22, 31)]
    assert scenario.status.best is not None and scenario.status.best.iteration == 4
    # Older steps keep what tells the best model, and no more: the status has to fit into etcd.
    assert scenario.step("evaluate-3").metrics == {"mean": 0.03}
    assert "loss" in scenario.step("evaluate-4").metrics
    assert scenario.status.phase == "Succeeded"


@pytest.mark.slow
def test_a_large_status_fits_into_etcd() -> None:
    scenario = Scenario(spec__iterations=500)
    metrics = {f"a-rather-long-name/{n}": n / 7 for n in range(24)}
    for step in scenario.plan.steps:
        scenario.attempt(
            step.name, state="Succeeded", result=scenario.result(step.name, metrics={"mean": 0.5, **metrics})
        )
    scenario.reconcile()
    assert len(scenario.status.model_dump_json(by_alias=True, exclude_defaults=True)) < 1_000_000


def test_attempts_keep_the_last_twenty_in_order_of_their_start() -> None:
    scenario = Scenario(spec__backoffLimit=100)
    for number in range(1, 31):
        started = at(number * 1000)
        scenario.attempt(
            "evaluate-0", number, state="Failed", exit_code=3, started_at=started, finished_at=started, log="a.log"
        )
        scenario.reconcile(number * 1000)
    assert [line.attempt for line in scenario.status.attempts] == list(range(11, 31))
    assert {(line.exit_code, line.reason, line.log) for line in scenario.status.attempts} == {
        (3, "ServiceFailed", "a.log")
    }


def test_conditions_move_their_transition_time_only_when_they_flip() -> None:
    scenario = Scenario()
    scenario.reconcile(0)
    scenario.attempt("evaluate-0")
    scenario.reconcile(100)
    times = {condition.type: condition.last_transition_time for condition in scenario.status.conditions}
    assert set(times.values()) == {"2026-01-01T12:00:00.000Z"}
    scenario.change(spec__suspend=True)
    scenario.reconcile(200)
    moved = {c.type for c in scenario.status.conditions if c.last_transition_time != times[c.type]}
    assert moved == {"Reconciling", "Suspended"}
    assert {condition.observed_generation for condition in scenario.status.conditions} == {2}
    assert scenario.status.observed_generation == 2


def test_a_finished_run_says_so() -> None:
    scenario = Scenario().done(*ALL)
    assert scenario.conditions() == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Suspended": "False",
        "Complete": "True",
        "Failed": "False",
    }
    assert (scenario.status.iteration, scenario.status.started_at, scenario.status.finished_at) == (
        2,
        "2026-01-01T12:00:00.000Z",
        "2026-01-01T12:00:00.000Z",
    )


def test_the_record_survives_json() -> None:
    scenario = Scenario().done(*ALL[:5], mean=0.25)
    text = scenario.status.model_dump_json(by_alias=True)
    assert RunStatus.model_validate_json(text) == scenario.status


# --- ending -----------------------------------------------------------------------------------------------------------


def test_a_run_whose_only_attempt_is_ending_says_so_and_not_that_it_runs() -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", stopping=True)
    scenario.reconcile()
    (reconciling,) = [c for c in scenario.status.conditions if c.type == "Reconciling"]
    assert (reconciling.status, reconciling.reason) == ("True", "Ending")
    assert "is ending" in reconciling.message
    scenario.change(spec__suspend=True).reconcile()
    (suspended,) = [c for c in scenario.status.conditions if c.type == "Suspended"]
    assert (suspended.reason, suspended.message.endswith("is ending: it was asked to, and saves its state")) == (
        "Suspended",
        True,
    )


@pytest.mark.parametrize("stuck", [True, False])
def test_an_attempt_that_ends_or_is_lost_keeps_its_step_running_and_is_not_replaced(stuck: bool) -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", waiting=Blocker("NodeLost", "node n1", stuck=stuck), outdated=True)
    assert stops(scenario.reconcile()) == []
    assert (scenario.step("evaluate-0").state, scenario.conditions()["Stalled"]) == ("Running", str(stuck))


def test_what_goes_on_beside_what_ends_is_what_the_run_does() -> None:
    scenario = Scenario(spec__parallelSteps=2)
    scenario.attempt("evaluate-0", stopping=True)
    scenario.attempt("challenger-train-1")
    scenario.reconcile()
    assert {c.reason for c in scenario.status.conditions if c.type == "Reconciling"} == {"StepsRunning"}
