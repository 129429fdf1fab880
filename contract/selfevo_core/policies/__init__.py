"""What decides whether a run goes on: one policy a file, each a pure ``(state, now) -> Decision | None``.

A new one is a file here and a line of `POLICIES`. They are asked in this order, and the first that names a phase is the
last that is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from selfevo_core.policies.base import Decision, Hold, NotFound, Policy, RunState
from selfevo_core.policies.budget import budget
from selfevo_core.policies.choosing import choosing
from selfevo_core.policies.failed_step import failed_step
from selfevo_core.policies.forking import forking
from selfevo_core.policies.guarding import guarding
from selfevo_core.policies.plan_version import plan_version
from selfevo_core.policies.record_first import record_first
from selfevo_core.policies.retry import retry
from selfevo_core.policies.review import review
from selfevo_core.policies.sharing import sharing
from selfevo_core.policies.suspend import suspend

__all__ = ["POLICIES", "Decision", "Hold", "NotFound", "Policy", "RunState", "combined"]

POLICIES: Sequence[Policy] = (
    plan_version,
    failed_step,
    suspend,
    forking,
    guarding,
    choosing,
    budget,
    review,
    retry,
    record_first,
    sharing,
)


def combined(policies: Iterable[Policy], state: RunState, now: datetime) -> Decision:
    """The policies' wishes as one decision: of two about the same, the earlier one's."""
    phase, reason, message = None, "", ""
    starts_nothing, blocker, rollback, fork, best = False, None, None, None, None
    holds: dict[str, Hold] = {}
    wakes: list[datetime] = []
    for policy in policies:
        decision = policy(state, now)
        if decision is None:
            continue
        starts_nothing = starts_nothing or decision.starts_nothing
        blocker, rollback = blocker or decision.blocker, rollback or decision.rollback
        fork = fork or decision.fork
        best = decision.best if best is None else best
        holds = {**decision.holds, **holds}
        if decision.wake_at is not None:
            wakes.append(decision.wake_at)
        if decision.phase is not None:
            phase, reason, message = decision.phase, decision.reason, decision.message
            break
    wake_at = min(wakes, default=None)
    starts_nothing = starts_nothing or phase is not None
    return Decision(phase, reason, message, starts_nothing, holds, rollback, fork, best, blocker, wake_at)
