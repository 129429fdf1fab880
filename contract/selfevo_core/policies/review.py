"""`spec.review`: an iteration that wants an approval does not begin before `spec.approvedIteration` has reached it."""

from __future__ import annotations

from datetime import datetime

from selfevo_contract import reasons
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.base import Decision, Hold, RunState


def reviewed(spec: RunSpec) -> list[int]:
    """The run's own iterations that want an approval, whether they have it or not: those that it goes on from are
    another run's."""
    if spec.review is None:
        return []
    first = spec.fork_from.iteration + 1 if spec.fork_from is not None else 1
    return [number for number in range(first, spec.iterations + 1) if spec.review.waits(number)]


def awaited(spec: RunSpec) -> int | None:
    """The first iteration of the run that no one has approved and that wants it; None when there is none."""
    return next((number for number in reviewed(spec) if number > (spec.approved_iteration or 0)), None)


def review(state: RunState, now: datetime) -> Decision | None:
    """What belongs to earlier iterations goes on; when nothing of them is left to do, the run is Suspended."""
    waits = awaited(state.spec)
    if waits is None:
        return None
    held = [step for step in state.ready if step.iteration >= waits]
    if not held:
        return None
    if not state.live and len(held) == len(state.ready):
        message = (
            f"iteration {waits} waits for a person (spec.review); set spec.approvedIteration to {waits}, or use "
            "`selfevo approve`, to go on"
        )
        return Decision(phase="Suspended", reason=reasons.AWAITING_REVIEW, message=message)
    return Decision(holds={step.name: Hold(None) for step in held})
