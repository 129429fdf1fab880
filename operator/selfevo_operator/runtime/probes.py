"""What the probes are answered: whether the process is ready, and whether it should be started anew."""

from __future__ import annotations

import time

from selfevo_operator.observed.cache import Key
from selfevo_operator.runtime.queue import WorkQueue
from selfevo_operator.runtime.scopes import Scopes

_SLOW_RECONCILE = 10
"""Times as long as what counts as stuck: no reconcile takes that, however slow its few calls are."""


class Probes:
    """Why not, in words; empty when all is well.

    Args:
        stuck_s: seconds after which what waits counts as stuck, while no call to the API server ends.
    """

    def __init__(self, queue: WorkQueue[Key], scopes: Scopes, stuck_s: float) -> None:
        self._queue, self._scopes, self._stuck_s = queue, scopes, stuck_s
        self._call_ended_at = float("-inf")

    def call_ended(self) -> None:
        """A call to the API server was answered, or given up."""
        self._call_ended_at = time.monotonic()

    def unhealthy(self) -> str:
        """Why the process should be started anew; empty when it should not.

        An API server that is slow or refuses is no reason: every call ends in its time, and a process that is started
        anew asks it for more. Only where runs wait and no call has ended for long, something hangs in here.
        """
        now, stuck = time.monotonic(), self._stuck_s
        worked, waited = self._queue.longest_work(now), self._queue.age(now) if self._scopes.listed else 0.0
        hangs = now - self._call_ended_at > stuck
        if worked > stuck and (hangs or worked > _SLOW_RECONCILE * stuck):
            return f"a reconcile has taken {worked:.0f} s"
        if waited > stuck and hangs:
            return f"a run has waited {waited:.0f} s to be reconciled"
        return ""

    def unready(self) -> str:
        """Why it is not ready; empty when it is."""
        return "" if self._scopes.listed else "runs and Jobs are not listed yet"
