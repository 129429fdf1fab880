"""`spec.finetune` and `spec.publish` are about the best Solver, which is known when every Solver is scored: that is
recorded then."""

from __future__ import annotations

from datetime import datetime

from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.base import Decision, RunState
from selfevo_core.summary import best_scored


def chooses(spec: RunSpec) -> bool:
    """Whether scores decide what a run does, and not only what it says."""
    return spec.finetune is not None or (spec.publish is not None and spec.publish.what == "best")


def choosing(state: RunState, now: datetime) -> Decision | None:
    """When all that tells of it is done: the iteration of the best Solver, where the plan has another.

    No more is asked for, since those steps wait for no more: a record that was lost may be known again by the scores
    before it is by the steps that led to them, and the step of the last Solver, which stands for the best one's until
    then, would begin.
    """
    spec = state.spec
    others = [step for step in state.plan.steps if not step.type.closes]
    before = [step for step in others if step.type.scores or step.type.trains_solver] or others
    if state.other_version is not None or not chooses(spec) or not before:
        return None
    if any(state.steps[step.name].state != "Succeeded" for step in before):
        return None
    best = best_scored(spec, [*state.steps.values(), *state.earlier.values()])
    best = spec.iterations if best is None else best
    return None if state.plan.best == best else Decision(phase="Running", best=best, wake_at=now)
