"""An operator of a new artifact schema meets runs that an older one has begun: what runs ends, nothing new starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_controller import World
from test_reconcile import Scenario, starts, stops

from selfevo_contract import phases, reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.plan import plan
from selfevo_contract.status import RunStatus, StepStatus
from selfevo_core.skew import as_recorded
from selfevo_operator.controller import Controller
from selfevo_operator.manifests.settings import PodSettings

OLD = SCHEMA_VERSION - 1


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plans are those of the older version until it is called."""
    monkeypatch.setattr(phases, "SCHEMA_VERSION", OLD)
    return lambda: monkeypatch.setattr(phases, "SCHEMA_VERSION", SCHEMA_VERSION)


def upgraded(scenario: Scenario, **recorded: Any) -> Scenario:
    """The same run, its record as the older operator left it, under the plan of today."""
    old_keys = {step.key for step in scenario.plan.steps}
    scenario.run = scenario.run.model_copy(update={"status": scenario.status.model_copy(update=recorded)})
    scenario.plan = plan(scenario.run.spec)
    assert old_keys.isdisjoint(step.key for step in scenario.plan.steps)
    return scenario


def reason_of(scenario: Scenario) -> str:
    return next(condition.reason for condition in scenario.status.conditions if condition.type == "Ready")


def test_what_runs_ends_and_is_recorded_and_then_nothing_starts(older: Any) -> None:
    scenario = Scenario(spec__parallelSteps=2)
    scenario.attempt("evaluate-0", state="Succeeded", result=scenario.result("evaluate-0", metrics={"mean": 0.25}))
    attempt = scenario.attempt("challenger-train-1")
    scenario.reconcile()
    older()
    upgraded(scenario, schema_version=OLD)
    assert scenario.reconcile().actions == ()
    assert (scenario.status.schema_version, reason_of(scenario)) == (OLD, reasons.RUNNING)
    assert scenario.step("challenger-train-1").key == attempt.key
    ended = scenario.result("challenger-train-1").model_copy(update={"key": attempt.key})
    scenario.attempts = {}
    scenario.attempts[attempt.name] = replace(attempt, state="Succeeded", exit_code=0, result=ended)
    for _ in range(2):
        assert scenario.reconcile(60).actions == ()
    assert [(step.name, step.state) for step in scenario.status.steps[:2]] == [
        ("evaluate-0", "Succeeded"),
        ("challenger-train-1", "Succeeded"),
    ]
    assert {step.key for step in scenario.status.steps}.isdisjoint(step.key for step in scenario.plan.steps)
    assert (scenario.status.phase, scenario.conditions()["Stalled"], reason_of(scenario)) == (
        "Running",
        "True",
        reasons.PLAN_VERSION,
    )
    assert scenario.status.best is not None and scenario.status.best.score == 0.25


def test_the_last_step_under_way_ends_the_run(older: Any) -> None:
    scenario = Scenario(spec__iterations=1).done(
        "evaluate-0", "challenger-train-1", "solver-rollout-1", "solver-train-1"
    )
    attempt = scenario.attempt("evaluate-1")
    scenario.reconcile()
    uri = scenario.plan.solvers[1].key  # type: ignore[union-attr]
    older()
    upgraded(scenario, schema_version=OLD)
    ended = scenario.result("evaluate-1", metrics={"mean": 0.5}).model_copy(update={"key": attempt.key})
    scenario.attempts[attempt.name] = replace(attempt, state="Succeeded", exit_code=0, result=ended)
    scenario.reconcile()
    assert (scenario.status.phase, scenario.status.score) == ("Succeeded", 0.5)
    assert scenario.status.model_uri is not None and uri in scenario.status.model_uri


def test_a_status_that_says_no_version_is_of_the_first(older: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfevo_core.skew.FIRST_RECORDED", OLD)
    scenario = Scenario()
    scenario.attempt("evaluate-0")
    scenario.reconcile()
    older()
    upgraded(scenario, schema_version=None)
    assert scenario.reconcile().actions == () and scenario.status.schema_version == OLD


def test_what_has_not_begun_is_planned_anew(older: Any) -> None:
    scenario = Scenario()
    scenario.reconcile()
    older()
    upgraded(scenario, schema_version=OLD)
    assert starts(scenario.reconcile()) == [("evaluate-0", 1)]
    assert scenario.status.schema_version == SCHEMA_VERSION


def test_a_person_may_still_hold_the_run(older: Any) -> None:
    scenario = Scenario()
    attempt = scenario.attempt("evaluate-0")
    scenario.reconcile()
    older()
    upgraded(scenario, schema_version=OLD).change(spec__suspend=True)
    assert stops(scenario.reconcile()) == [(attempt.name, reasons.SUSPENDED)]


@pytest.mark.parametrize("version", [OLD, SCHEMA_VERSION + 1])
def test_a_failed_step_of_another_version_is_not_tried_again(version: int, older: Any) -> None:
    scenario = Scenario()
    scenario.attempt("evaluate-0", state="Failed", exit_code=3)
    scenario.reconcile()
    older()
    upgraded(scenario, schema_version=version)
    outcome = scenario.reconcile(3600)
    assert (outcome.actions, outcome.wake_at) == ((), None)
    assert reason_of(scenario) == reasons.PLAN_VERSION
    message = next(c.message for c in scenario.status.conditions if c.type == "Stalled")
    assert f"version {version}" in message and f"version {SCHEMA_VERSION}" in message


def test_a_job_under_way_or_queued_is_left_alone_by_the_operator_of_a_new_version(older: Any) -> None:
    world = World(spec__queue="team-a")
    world.reconcile()
    (job,) = world.cluster.jobs.values()
    job["spec"]["suspend"] = True
    world.cache.put_job(world.cluster.stored(job, job["metadata"]["uid"]))
    world.reconcile(10)
    status = world.cluster.run["status"]
    status["schemaVersion"], recorded = OLD, status["steps"]
    world.cluster.run = world.cluster.stored(world.cluster.run, "run-1")
    world.cache.put_run(world.cluster.run)
    older()
    world.controller = Controller(world.cluster, world.cache, PodSettings(image="new"), lambda: world.now)
    calls = len(world.cluster.calls)
    world.reconcile(10)
    world.reconcile(10)
    assert not [call for call in world.cluster.calls[calls:] if call.startswith(("create job", "delete job"))]
    assert [step["key"] for step in world.cluster.run["status"]["steps"]] == [step["key"] for step in recorded]


def test_scores_that_the_plan_asks_for_no_more_stay_recorded(older: Any) -> None:
    scenario = Scenario(spec__evaluation__every=3, spec__iterations=5)
    extended = scenario.plan
    short = Scenario(spec__evaluation__every=3, spec__iterations=4).plan
    assert "evaluate-4" in short.by_name and [step.name for step in extended.unscheduled]
    older()
    status = RunStatus(steps=[StepStatus(name="evaluate-4", phase="evaluate", iteration=4, key="a" * 64)])
    again = as_recorded(extended, status)
    assert [step.key for step in again.unscheduled if step.name == "evaluate-4"] == ["a" * 64]
    assert len(again.unscheduled) == len(extended.unscheduled)
