"""`spec.budget`: a run that has used up an amount stops at a checkpoint, and goes on when the amount is raised."""

from __future__ import annotations

from datetime import datetime, timedelta

from selfevo_contract import reasons
from selfevo_core.policies.base import Decision, RunState
from selfevo_core.usage import COUNTED_EVERY, LOW, Amount, amounts

_LATER = timedelta(seconds=0.1)
"""Hours are rounded: a moment after an amount is used up it is so in any case."""


def budget(state: RunState, now: datetime) -> Decision | None:
    found = amounts(state.spec.budget, state.usage)
    if not found or state.complete:
        return None
    spent = next((amount for amount in found if amount.share >= 1), None)
    if spent is not None:
        message = f"budget.{spent.field} is used up: {spent}; raise it to go on"
        return Decision(phase="Suspended", reason=reasons.BUDGET_EXCEEDED, message=message)
    working = [attempt for attempt in state.live if not attempt.held]
    if not working:
        return None
    gpus = sum(attempt.gpus for attempt in working)
    ends = [end for amount in found if (end := _next_mark(amount, gpus, now)) is not None]
    return Decision(wake_at=min([now + COUNTED_EVERY, *ends]))


def _next_mark(amount: Amount, gpus: int, now: datetime) -> datetime | None:
    """When the next share of ``amount`` that matters is used, as it goes on now; None when never."""
    rate = amount.rate * (gpus if amount.by_gpus else 1)
    left = amount.limit * (LOW if amount.share < LOW else 1) - amount.used
    hours = left / rate if rate else 1e9
    return now + timedelta(hours=hours) + _LATER if hours < COUNTED_EVERY.total_seconds() / 3600 else None
