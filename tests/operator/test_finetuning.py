"""spec.finetune in the core: what is trained is the best Solver, once that is known; its messages."""

from __future__ import annotations

from typing import Any

from test_reconcile import ALL, NOW, Scenario, starts

from selfevo_contract.plan import plan_of
from selfevo_contract.status import FinetuneStatus, RunStatus
from selfevo_core.reconcile import Outcome

LABELLED: dict[str, Any] = {"data": {"uri": "s3://bucket/labelled.jsonl"}}


def replanned(scenario: Scenario) -> Scenario:
    """The next reconcile's plan, with what is recorded."""
    scenario.plan = plan_of(scenario.run.spec, scenario.status)
    return scenario


def last_outcome(scenario: Scenario) -> Outcome:
    assert scenario.outcome is not None
    return scenario.outcome


def tuned(scenario: Scenario) -> FinetuneStatus:
    assert scenario.status.finetune is not None
    return scenario.status.finetune


def scored(*means: float, **changes: Any) -> Scenario:
    """A run of two iterations whose base and Solvers have these scores."""
    scenario = Scenario(**{"spec__finetune": LABELLED, **changes})
    for name in ALL:
        phase, _, number = name.rpartition("-")
        scenario.done(name, **({"mean": means[int(number)]} if phase == "evaluate" else {}))
    return scenario


def finished(scenario: Scenario, **means: float) -> Scenario:
    for name, step in replanned(scenario).plan.by_name.items():
        if step.type.closes:
            scenario.done(name, **({"mean": means[f"of_{step.iteration}"]} if step.type.generates else {}))
    return scenario


def test_nothing_is_chosen_before_every_solver_is_scored() -> None:
    scenario = Scenario(spec__finetune=LABELLED, spec__parallelSteps=8)
    for name in ALL[:-1]:
        scenario.done(name, mean=0.5)
        assert scenario.status.finetune is None
        assert not [step for step, _ in starts(last_outcome(scenario)) if step.startswith("finetune")]


def test_the_best_is_chosen_recorded_and_then_trained_beside_its_control() -> None:
    scenario = scored(0.5, 0.75, 0.625, spec__parallelSteps=2)
    assert (last_outcome(scenario).actions, last_outcome(scenario).wake_at, scenario.status.phase) == (
        (),
        NOW,
        "Running",
    )
    assert tuned(scenario).model_dump(exclude_none=True) == {"iteration": 1}
    assert "finetune-2" in scenario.plan.by_name  # as it was planned before
    assert starts(replanned(scenario).reconcile()) == [("finetune-1", 1), ("finetune-0", 1)]
    finished(scenario, of_1=0.9, of_0=0.8)
    assert scenario.status.phase == "Succeeded" and starts(scenario.reconcile()) == []
    assert (tuned(scenario).score, tuned(scenario).control_score) == (0.9, 0.8)
    assert str(tuned(scenario).model_uri).endswith(f"/finetune/{scenario.plan.by_name['finetune-1'].key}")
    # Its scores say nothing of which iteration is the best, nor of an iteration.
    best = scenario.status.best
    assert best is not None and (best.iteration, best.score, scenario.status.iteration) == (1, 0.75, 2)
    assert [line.score for line in scenario.status.iterations] == [0.5, 0.75, 0.625]


def test_where_the_base_is_the_best_it_is_its_own_control() -> None:
    scenario = scored(0.75, 0.5, 0.625)
    assert starts(replanned(scenario).reconcile()) == [("finetune-0", 1)]
    finished(scenario, of_0=0.8)
    assert (tuned(scenario).iteration, tuned(scenario).score, tuned(scenario).control_score) == (0, 0.8, 0.8)


def test_a_solver_that_was_never_trained_is_the_base() -> None:
    scenario = Scenario(spec__finetune=LABELLED, spec__solver__grpo__maxSteps=0, spec__evaluation=None)
    scenario.done(*(name for name in scenario.plan.by_name if not name.startswith("finetune")))
    assert starts(replanned(scenario).reconcile()) == [("finetune-0", 1)]
    finished(scenario)
    assert scenario.status.phase == "Succeeded" and str(tuned(scenario).model_uri).endswith(
        scenario.step("finetune-0").key
    )


def test_without_scores_the_last_solver_is_trained() -> None:
    scenario = Scenario(spec__finetune={**LABELLED, "control": False}, spec__evaluation=None)
    scenario.done(*(name for name in ALL if not name.startswith("evaluate")))
    assert starts(replanned(scenario).reconcile()) == [("finetune-2", 1)]
    finished(scenario)
    assert (scenario.status.phase, tuned(scenario).iteration, tuned(scenario).score) == ("Succeeded", 2, None)
    assert tuned(scenario).control_score is None


def test_it_may_be_asked_for_when_the_run_has_ended() -> None:
    scenario = scored(0.5, 0.625, 0.75, spec__finetune=None)
    assert scenario.status.phase == "Succeeded" and scenario.status.finetune is None
    scenario.change(spec__finetune=LABELLED).reconcile()
    assert scenario.status.phase == "Running" and scenario.status.finished_at is None
    assert starts(replanned(scenario).reconcile()) == [("finetune-2", 1)]


def test_more_iterations_choose_again_and_keep_the_control() -> None:
    scenario = finished(scored(0.5, 0.75, 0.625), of_1=0.9, of_0=0.8)
    control = scenario.plan.by_name["finetune-0"].key
    scenario.change(spec__iterations=3)
    replanned(scenario).reconcile()
    for name in ("challenger-train-3", "solver-rollout-3", "solver-train-3", "evaluate-3"):
        assert tuned(scenario).iteration == 1
        scenario.done(name, mean=0.875)
    assert tuned(scenario).model_dump(exclude_none=True) == {"iteration": 3}
    assert starts(replanned(scenario).reconcile()) == [("finetune-3", 1)]
    assert scenario.plan.by_name["finetune-0"].key == control
    assert scenario.step("finetune-0").state == "Succeeded"


def test_a_run_that_another_version_has_begun_is_not_decided_about() -> None:
    scenario = scored(0.5, 0.75, 0.625, spec__finetune=LABELLED)
    older = RunStatus.model_validate({**scenario.status.model_dump(), "schema_version": 1, "finetune": None})
    scenario.run = scenario.run.model_copy(update={"status": older})
    scenario.plan = plan_of(scenario.run.spec, older)
    scenario.reconcile()
    assert scenario.status.finetune is None
