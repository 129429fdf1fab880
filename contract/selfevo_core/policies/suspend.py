"""`spec.suspend`: what runs saves and ends, and nothing starts. A run that is done has nothing to suspend."""

from __future__ import annotations

from datetime import datetime

from selfevo_contract import reasons
from selfevo_core.policies.base import Decision, RunState


def suspend(state: RunState, now: datetime) -> Decision | None:
    if not state.spec.suspend or state.complete:
        return None
    return Decision(phase="Suspended", reason=reasons.SUSPENDED, message="suspended")
