"""Jobs that wait in a queue: now and then, Kueue is asked why, and its reason is remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from selfevo_core.attempts import Blocker
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.observed.snapshots import JobSnapshot
from selfevo_operator.observed.workloads import is_taken, nobody_says, why_no_workload, why_queued

_PATIENCE_S = 10.0
_NO_WORKLOAD_S = 30.0
"""Kueue that lives makes a Workload at once."""
_OFTEN_S, _SELDOM_S = 30.0, 300.0
_OFTEN_FOR_S = 180.0
_LONG_S = 60.0
"""After so long, the status names the command that shows the queue: its name may be mistyped."""
_AT_ONCE = 4


@dataclass
class _Wait:
    since: datetime
    asked_at: datetime | None = None
    reason: Blocker | None = None
    silent: bool = False
    """No more will be known."""


class Queued:
    """All of it may be forgotten at any time: it saves calls and nothing else."""

    def __init__(self, api: Api, clock: Callable[[], datetime]) -> None:
        self._api, self._clock, self._asking = api, clock, 0
        self._waits: dict[str, dict[str, _Wait]] = {}
        """UID of a run, UID of a Job of it that its queue holds."""

    async def why(self, run_uid: str, job: JobSnapshot) -> Blocker | None:
        """Why the queue of ``job``, which is suspended, does not admit it; None while that is not known."""
        if not job.queue or job.stopping:
            return None
        now = self._clock()
        wait = self._waits.setdefault(run_uid, {}).setdefault(job.uid, _Wait(now))
        due = (now - (wait.asked_at or wait.since)).total_seconds() >= self._pause(wait, now)
        if due and not wait.silent and self._asking < _AT_ONCE:
            self._asking += 1
            try:
                await self._ask(job, wait, now)
            finally:
                self._asking -= 1
        if wait.reason is None and (now - wait.since).total_seconds() >= _LONG_S:
            return nobody_says(job.queue, job.namespace)
        return wait.reason

    async def _ask(self, job: JobSnapshot, wait: _Wait, now: datetime) -> None:
        wait.asked_at = now
        try:
            workloads = await self._api.list_workloads(job.namespace, job.uid)
        except ApiError:
            return  # nothing was found out; the reason of before still holds
        if workloads:
            wait.reason = why_queued(max(workloads, key=lambda each: each["metadata"].get("creationTimestamp", "")))
        elif (now - wait.since).total_seconds() >= _NO_WORKLOAD_S:
            events: list[dict[str, Any]] = []
            with contextlib.suppress(ApiError):
                events = await self._api.list_events(job.namespace, job.uid)
            wait.reason = why_no_workload(workloads, events)
            wait.silent = workloads is None and is_taken(events)

    @staticmethod
    def _pause(wait: _Wait, now: datetime) -> float:
        if wait.asked_at is None:
            return _PATIENCE_S
        return _OFTEN_S if (now - wait.since).total_seconds() < _OFTEN_FOR_S else _SELDOM_S

    def ask_again_in(self, run_uid: str) -> float | None:
        """Seconds after which a Job of the run is worth a question; None when none is."""
        now, waits = self._clock(), self._waits.get(run_uid, {}).values()
        pauses = [self._pause(wait, now) for wait in waits if not wait.silent]
        left = (_LONG_S - (now - wait.since).total_seconds() for wait in waits if wait.reason is None)
        return min([*pauses, *(max(1.0, seconds) for seconds in left if seconds > 0)], default=None)

    def forget(self, run_uid: str, job_uid: str) -> None:
        """The Job waits in no queue."""
        self._waits.get(run_uid, {}).pop(job_uid, None)

    def forget_run(self, run_uid: str) -> None:
        self._waits.pop(run_uid, None)
