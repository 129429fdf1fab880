"""spec.finetune in the core: what is trained is the best Solver, once that is known; what is said of it."""

from __future__ import annotations

from typing import Any

from test_reconcile import ALL, NOW, Sight, starts

from selfevo_contract.plan import plan_of
from selfevo_contract.status import FinetuneStatus, RunStatus
from selfevo_core.reconcile import Outcome

LABELLED: dict[str, Any] = {"data": {"uri": "s3://bucket/labelled.jsonl"}}


def replanned(sight: Sight) -> Sight:
    """The next look's plan, with what is recorded."""
    sight.plan = plan_of(sight.run.spec, sight.status)
    return sight


def looked(sight: Sight) -> Outcome:
    assert sight.outcome is not None
    return sight.outcome


def tuned(sight: Sight) -> FinetuneStatus:
    assert sight.status.finetune is not None
    return sight.status.finetune


def scored(*means: float, **changes: Any) -> Sight:
    """A run of two iterations whose base and Solvers have these scores."""
    sight = Sight(**{"spec__finetune": LABELLED, **changes})
    for name in ALL:
        phase, _, number = name.rpartition("-")
        sight.done(name, **({"mean": means[int(number)]} if phase == "evaluate" else {}))
    return sight


def finished(sight: Sight, **means: float) -> Sight:
    for name, step in replanned(sight).plan.by_name.items():
        if step.type.closes:
            sight.done(name, **({"mean": means[f"of_{step.iteration}"]} if step.type.generates else {}))
    return sight


def test_nothing_is_chosen_before_every_solver_is_scored() -> None:
    sight = Sight(spec__finetune=LABELLED, spec__parallelSteps=8)
    for name in ALL[:-1]:
        sight.done(name, mean=0.5)
        assert sight.status.finetune is None
        assert not [step for step, _ in starts(looked(sight)) if step.startswith("finetune")]


def test_the_best_is_chosen_recorded_and_then_trained_beside_its_control() -> None:
    sight = scored(0.5, 0.75, 0.625, spec__parallelSteps=2)
    assert (looked(sight).actions, looked(sight).wake_at, sight.status.phase) == ((), NOW, "Running")
    assert tuned(sight).model_dump(exclude_none=True) == {"iteration": 1}
    assert "finetune-2" in sight.plan.by_name  # as it was planned before
    assert starts(replanned(sight).look()) == [("finetune-1", 1), ("finetune-0", 1)]
    finished(sight, of_1=0.9, of_0=0.8)
    assert sight.status.phase == "Succeeded" and starts(sight.look()) == []
    assert (tuned(sight).score, tuned(sight).control_score) == (0.9, 0.8)
    assert str(tuned(sight).model_uri).endswith(f"/finetune/{sight.plan.by_name['finetune-1'].key}")
    # Its scores say nothing of which iteration is the best, nor of an iteration.
    best = sight.status.best
    assert best is not None and (best.iteration, best.score, sight.status.iteration) == (1, 0.75, 2)
    assert [line.score for line in sight.status.iterations] == [0.5, 0.75, 0.625]


def test_where_the_base_is_the_best_it_is_its_own_control() -> None:
    sight = scored(0.75, 0.5, 0.625)
    assert starts(replanned(sight).look()) == [("finetune-0", 1)]
    finished(sight, of_0=0.8)
    assert (tuned(sight).iteration, tuned(sight).score, tuned(sight).control_score) == (0, 0.8, 0.8)


def test_a_solver_that_was_never_trained_is_the_base() -> None:
    sight = Sight(spec__finetune=LABELLED, spec__solver__grpo__maxSteps=0, spec__evaluation=None)
    sight.done(*(name for name in sight.plan.by_name if not name.startswith("finetune")))
    assert starts(replanned(sight).look()) == [("finetune-0", 1)]
    finished(sight)
    assert sight.status.phase == "Succeeded" and str(tuned(sight).model_uri).endswith(sight.step("finetune-0").key)


def test_without_scores_the_last_solver_is_trained() -> None:
    sight = Sight(spec__finetune={**LABELLED, "control": False}, spec__evaluation=None)
    sight.done(*(name for name in ALL if not name.startswith("evaluate")))
    assert starts(replanned(sight).look()) == [("finetune-2", 1)]
    finished(sight)
    assert (sight.status.phase, tuned(sight).iteration, tuned(sight).score) == ("Succeeded", 2, None)
    assert tuned(sight).control_score is None


def test_it_may_be_asked_for_when_the_run_has_ended() -> None:
    sight = scored(0.5, 0.625, 0.75, spec__finetune=None)
    assert sight.status.phase == "Succeeded" and sight.status.finetune is None
    sight.change(spec__finetune=LABELLED).look()
    assert sight.status.phase == "Running" and sight.status.finished_at is None
    assert starts(replanned(sight).look()) == [("finetune-2", 1)]


def test_more_iterations_choose_again_and_keep_the_control() -> None:
    sight = finished(scored(0.5, 0.75, 0.625), of_1=0.9, of_0=0.8)
    control = sight.plan.by_name["finetune-0"].key
    sight.change(spec__iterations=3)
    replanned(sight).look()
    for name in ("challenger-train-3", "solver-rollout-3", "solver-train-3", "evaluate-3"):
        assert tuned(sight).iteration == 1
        sight.done(name, mean=0.875)
    assert tuned(sight).model_dump(exclude_none=True) == {"iteration": 3}
    assert starts(replanned(sight).look()) == [("finetune-3", 1)]
    assert sight.plan.by_name["finetune-0"].key == control
    assert sight.step("finetune-0").state == "Succeeded"


def test_a_run_that_another_version_has_begun_is_not_decided_about() -> None:
    sight = scored(0.5, 0.75, 0.625, spec__finetune=LABELLED)
    older = RunStatus.model_validate({**sight.status.model_dump(), "schema_version": 1, "finetune": None})
    sight.run = sight.run.model_copy(update={"status": older})
    sight.plan = plan_of(sight.run.spec, older)
    sight.look()
    assert sight.status.finetune is None
