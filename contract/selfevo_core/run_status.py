"""The status of a run, made of its state: `RunStatus`, with its reason and its message. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from selfevo_contract import reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.engines import engines_of
from selfevo_contract.sizing.layout import layout_of
from selfevo_contract.status import RunPhase, RunStatus, StepStatus
from selfevo_core.attempt_end import UNKNOWN, attempt_history, with_
from selfevo_core.attempts import Blocker, ObservedAttempt, Start, Stop, stamp
from selfevo_core.conditions import conditions, guard_condition, watch_of
from selfevo_core.judges import judge_of
from selfevo_core.policies import Decision, RunState
from selfevo_core.summary import best_of, finetune_of, iterations_of, newest_and_best, publish_of, remembered
from selfevo_core.usage import is_due


def status_of(
    run: SelfEvolutionRun,
    state: RunState,
    phase: RunPhase,
    decision: Decision,
    starts: Sequence[Start],
    stops: Sequence[Stop],
    problem: Blocker | None,
    now: datetime,
) -> RunStatus:
    """The record of ``run`` at ``now``, in which nothing moves that has not changed.

    ``problem`` is why nothing goes on, where that is known from elsewhere than the attempts.
    """
    before, steps, at = state.recorded, state.steps, stamp(now) or ""
    iterations = iterations_of(run, state.plan, {**steps, **state.earlier})
    score = next((iteration.score for iteration in reversed(iterations) if iteration.score is not None), None)
    best, ended = best_of(run, state.plan, steps, iterations), phase in ("Succeeded", "Failed")
    shown, blocker = newest_and_best(iterations, best), None if ended else problem or _blocker(state.live)
    reason, message = _reason(phase, decision, steps, starts, blocker)
    if ended and problem is not None:  # a Job that cannot be stopped goes on, whatever the run has come to
        message = f"{message}; {problem.message}"
    stuck = blocker is not None and blocker.stuck
    status = RunStatus(
        observed_generation=run.metadata.generation,
        schema_version=SCHEMA_VERSION if state.other_version is None else state.other_version,
        phase=phase,
        iteration=max((s.iteration for s in steps.values() if s.attempts or s.state == "Succeeded"), default=0),
        score=score,
        best=best,
        model_uri=best.model_uri if best else None,
        started_at=before.started_at or at,
        finished_at=(before.finished_at or at) if ended else None,
        iterations=shown,
        steps=_steps_shown(state, {iteration.iteration for iteration in shown}),
        attempts=attempt_history(before.attempts, state.attempts, {stop.name: stop.reason for stop in stops}),
        fork=decision.fork or before.fork,
        layout=layout_of(run.spec),
        engines=engines_of(run.spec),
        rollbacks=[*before.rollbacks, *([decision.rollback] if decision.rollback else [])],
        finetune=finetune_of(run, state.plan, steps, decision.best),
        publish=publish_of(run, state.plan, steps, decision.best),
        guards=list(state.guards),
        watch=watch_of(state.guards),
        judge=judge_of([*state.earlier.values(), *steps.values()]),
        usage=before.usage,
        conditions=[
            *conditions(before.conditions, phase, reason, message, run.metadata.generation, at, stuck=stuck),
            *guard_condition(before.conditions, state.guards, run.metadata.generation, at),
        ],
    )
    # What is used grows with every reconcile; it is written with whatever else has changed.
    if status != before or is_due(before.usage, state.usage, bool(state.live), run.spec.budget):
        status = status.model_copy(update={"usage": state.usage})
    return status


def _blocker(live: Sequence[ObservedAttempt]) -> Blocker | None:
    """Why nothing goes on, when nothing does; what needs a person comes first."""
    if any(attempt.works for attempt in live):
        return None
    found = [attempt.waiting for attempt in live if attempt.waiting is not None]
    # What starts says more than what ends beside it.
    found.sort(key=lambda blocker: (not blocker.stuck, blocker.reason == reasons.ENDING))
    ending = next((attempt for attempt in live if attempt.stopping), None)
    if not found and ending is not None:
        return Blocker(reasons.ENDING, f"{ending.name} is ending: it was asked to, and saves its state", stuck=False)
    return found[0] if found else None


def _reason(
    phase: RunPhase,
    decision: Decision,
    steps: Mapping[str, StepStatus],
    starts: Sequence[Start],
    blocker: Blocker | None,
) -> tuple[str, str]:
    """Why the run stands where it stands: a constant for programs, a sentence for people."""
    if decision.phase in ("Failed", "Succeeded"):
        return decision.reason, decision.message
    done = f"{sum(step.state == 'Succeeded' for step in steps.values())} of {len(steps)} steps done"
    if not steps:
        done = "nothing is planned yet"
    if phase == "Succeeded":
        lost = [step.name for step in steps.values() if step.message.startswith(UNKNOWN)]
        return reasons.COMPLETE, f"{done}; what {', '.join(lost)} measured is unknown" if lost else done
    if decision.phase == "Suspended" and (blocker is None or blocker.reason == reasons.ENDING):
        return decision.reason, f"{decision.message}, {done}" + (f", {blocker.message}" if blocker else "")
    if blocker is not None:
        return blocker.reason, f"{done}, {blocker.message}"
    running = [step.name for step in steps.values() if step.state == "Running"]
    if running:
        return reasons.RUNNING, f"{done}, running {', '.join(running)}"
    waiting = next((step for step in steps.values() if step.retry_at), None)
    if waiting is not None and not starts:
        return reasons.BACKING_OFF, f"{done}, {waiting.name} is tried again at {waiting.retry_at}: {waiting.message}"
    return (reasons.STARTING if phase == "Pending" else reasons.RUNNING), done


def _steps_shown(state: RunState, iterations: set[int]) -> list[StepStatus]:
    """Steps that have begun or may begin. Figures of old iterations are in the store; scores stay, to know the best."""
    found = []
    # Of a run that another version has begun, only what that one has recorded: its plan is not ours to extend.
    recorded = None if state.other_version is None else {step.name for step in state.recorded.steps}
    for step in state.plan.keeping(state.earlier).steps:
        if recorded is not None and step.name not in recorded:
            continue
        status = state.steps.get(step.name) or state.earlier[step.name]
        if status.state == "Pending" and not status.attempts and not state.parents_done(step):
            continue
        if status.state == "Succeeded" and status.iteration not in iterations:
            names = remembered(step.type)
            scores = {name: value for name, value in status.metrics.items() if name in names}
            status = with_(status, metrics=scores, timings={})
        found.append(status)
    return found
