"""A step that another run has in work is waited for: what that one commits is found, and made here only if it fails."""

from __future__ import annotations

from datetime import datetime, timedelta

from selfevo_contract import reasons
from selfevo_core.attempts import Blocker
from selfevo_core.policies.base import Decision, Hold, RunState

AGAIN = timedelta(seconds=30)
"""A run that waits for another is reconciled when that one ends; should the event be lost, so often all the same."""


def sharing(state: RunState, now: datetime) -> Decision | None:
    shared = [step for step in state.ready if step.key in state.elsewhere]
    if not shared:
        return None
    first = shared[0]
    who = state.elsewhere[first.key]
    message = f"{first.name} is the same for {who}, which makes it; it is taken over when that ends"
    return Decision(
        holds={step.name: Hold(now + AGAIN) for step in shared},
        blocker=Blocker(reasons.WAITS_FOR_RUN, message, stuck=False),
    )
