"""A step that is given up ends the run: nothing that follows from it can be made."""

from __future__ import annotations

from datetime import datetime

from selfevo_core.policies.base import Decision, RunState


def failed_step(state: RunState, now: datetime) -> Decision | None:
    step = next((step for step in state.steps.values() if step.state == "Failed"), None)
    if step is None:
        return None
    message = step.message if step.message.startswith(step.name) else f"{step.name}: {step.message}"
    return Decision(phase="Failed", reason=step.reason, message=message)
