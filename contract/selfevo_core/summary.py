"""What a person reads of a run's iterations: scores, figures, and which model is the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from selfevo_contract.artifacts import step_uri
from selfevo_contract.phases import (
    EVALUATE,
    FINETUNE,
    FINETUNE_EVALUATE,
    PHASES,
    PUBLISH,
    ModelRef,
    PhaseType,
    StepModelRef,
)
from selfevo_contract.plan import Plan
from selfevo_contract.plan_publish import address_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.scores import SCORES
from selfevo_contract.spec.evaluation import Evaluation
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import FinetuneStatus, IterationStatus, PublishStatus, StepStatus

ITERATIONS_SHOWN = 10
SCORE_DIGITS = 4
"""A score is a column of `kubectl get`, which prints what it is given; the exact figure stays in the metrics."""


def iterations_of(run: SelfEvolutionRun, plan: Plan, steps: Mapping[str, StepStatus]) -> list[IterationStatus]:
    """Every iteration of which something is done, 0 (the base) first."""
    done: dict[int, list[StepStatus]] = {}
    for step in steps.values():
        if step.state == "Succeeded":
            done.setdefault(step.iteration, []).append(step)
    # What «best» goes by is not part of evaluate's key: a change of mind evaluates nothing again.
    metric = run.spec.evaluation.metric if run.spec.evaluation else ""
    keys = {step.key for members in done.values() for step in members}
    found = []
    for number, members in sorted(done.items()):
        metrics = {name: value for member in members for name, value in figures_of(member).items()}
        scored = next((m.metrics for m in members if PHASES[m.phase].scores), {})
        exact = scored.get(metric)
        score = None if exact is None else round(exact, SCORE_DIGITS)
        ref = plan.solvers[number]
        there = not isinstance(ref, StepModelRef) or ref.key in keys or number == plan.start  # made by another run
        uri = model_uri(run, ref) if there else None
        groups = groups_of(run.spec.evaluation, scored)
        found.append(IterationStatus(iteration=number, score=score, groups=groups, metrics=metrics, model_uri=uri))
    return found


def figures_of(step: StepStatus) -> dict[str, float]:
    """What a step has measured, by names such as ``rollout/kept``."""
    return {f"{PHASES[step.phase].metrics}/{name}": value for name, value in step.metrics.items()}


def remembered(phase: PhaseType) -> set[str]:
    """The metrics that the status keeps of a phase's step in an old iteration, so that the best stays known."""
    return {*SCORES, *phase.kept}


def groups_of(evaluation: Evaluation | None, scores: Mapping[str, float]) -> dict[str, float]:
    """The average of each group's tasks in `spec.evaluation.metric`, rounded, where all of them are known."""
    if evaluation is None:
        return {}
    found: dict[str, list[float | None]] = {}
    for task in evaluation.tasks:
        if task.group is not None:
            found.setdefault(task.group, []).append(scores.get(f"{task.name}/{evaluation.metric}"))
    known = {group: [value for value in values if value is not None] for group, values in found.items()}
    return {
        group: round(sum(known[group]) / len(values), SCORE_DIGITS)
        for group, values in found.items()
        if len(known[group]) == len(values)
    }


def model_uri(run: SelfEvolutionRun, ref: ModelRef) -> str:
    """Where a model of the plan lies, or will."""
    if not isinstance(ref, StepModelRef):
        return ref.uri
    return step_uri(run.spec.storage.uri, run.metadata.namespace, ref.phase, ref.key)


def highest(scores: Mapping[int, float | None]) -> int | None:
    """The number of the iteration with the highest score, the earlier of equals; the one place where «best» is decided.

    Exact scores are compared, not those that are shown: 0.73604 is better than 0.73601. None and NaN are no scores.
    """
    known = {number: score for number, score in scores.items() if score is not None and math.isfinite(score)}
    return min(known, key=lambda number: (-known[number], number), default=None)


def best_of(
    run: SelfEvolutionRun, plan: Plan, steps: Mapping[str, StepStatus], iterations: Sequence[IterationStatus]
) -> IterationStatus | None:
    """The iteration with the highest score, the earlier of equals; without evaluation the last one that is finished."""
    if run.spec.evaluation is not None:
        name = f"{EVALUATE.metrics}/{run.spec.evaluation.metric}"
        # A record may have lost the metrics, and has the rounded score still.
        best = highest({i.iteration: i.metrics.get(name, i.score) for i in iterations})
        return next((iteration for iteration in iterations if iteration.iteration == best), None)
    open_ones = {s.iteration for s in steps.values() if s.state != "Succeeded" and not PHASES[s.phase].closes}
    finished = [i for i in iterations if i.iteration > 0 and i.iteration not in open_ones and i.model_uri]
    return finished[-1] if finished else None


def best_scored(spec: RunSpec, steps: Iterable[StepStatus]) -> int | None:
    """The number of the best iteration by the scores of ``steps``; None without any."""
    metric = spec.evaluation.metric if spec.evaluation else ""
    scored = [step for step in steps if step.state == "Succeeded" and PHASES[step.phase].scores]
    return highest({step.iteration: step.metrics.get(metric) for step in scored})


def finetune_of(
    run: SelfEvolutionRun, plan: Plan, steps: Mapping[str, StepStatus], best: int | None
) -> FinetuneStatus | None:
    """What has come of `spec.finetune`; ``best`` is what it is decided to train. None before that."""
    chosen = plan.best if best is None else best
    if run.spec.finetune is None or chosen is None:
        return None
    metric = run.spec.evaluation.metric if run.spec.evaluation else ""
    # A Solver that was never trained is the base.
    number = chosen if f"{FINETUNE.name}-{chosen}" in plan.by_name else 0

    def score(of: int) -> float | None:
        known = steps.get(f"{FINETUNE_EVALUATE.name}-{of}")
        exact = None if known is None or chosen != plan.best else known.metrics.get(metric)
        return None if exact is None else round(exact, SCORE_DIGITS)

    step = plan.by_name.get(f"{FINETUNE.name}-{number}") if chosen == plan.best else None
    there = step is not None and steps[step.name].state == "Succeeded"
    return FinetuneStatus(
        iteration=chosen,
        score=score(number),
        control_score=score(0) if run.spec.finetune.control else None,
        model_uri=model_uri(run, StepModelRef(phase=step.phase, key=step.key)) if step and there else None,
    )


def publish_of(
    run: SelfEvolutionRun, plan: Plan, steps: Mapping[str, StepStatus], best: int | None
) -> PublishStatus | None:
    """What has come of `spec.publish`; ``best`` is what it is decided to publish. None before anything has."""
    publish = run.spec.publish
    if publish is None:
        return None
    chosen = (plan.best if best is None else best) if publish.what == "best" else None
    done = [step for step in plan.steps if step.phase == PUBLISH.name and steps[step.name].state == "Succeeded"]
    newest = done[-1] if done and (chosen is None or chosen == plan.best) else None
    if newest is None:
        return None if chosen is None else PublishStatus(best=chosen)
    return PublishStatus(best=chosen, iteration=newest.iteration, uri=address_of(newest.inputs))


def newest_and_best(iterations: Sequence[IterationStatus], best: IterationStatus | None) -> list[IterationStatus]:
    shown = list(iterations[-ITERATIONS_SHOWN:])
    if best is not None and best not in shown:
        shown[0] = best
    return shown
