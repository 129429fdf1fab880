"""The evidence of Jobs' pods: asked when it matters, and remembered while it holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from selfevo_contract import reasons
from selfevo_core.attempts import Blocker, parse_stamp, stamp
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.api.queued import Queued
from selfevo_operator.observed.lru_cache import LruCache
from selfevo_operator.observed.podless import PATIENCE_S, RECENT_S, has_not_ended, why_no_pod
from selfevo_operator.observed.snapshots import NOTHING, Evidence, JobSnapshot, evidence_of

_PATIENCE_S = 10.0
"""A Job that has no ready pod for so long is asked for the reason."""
_QUEUED_PATIENCE_S = 3.0
"""The same in a queue, which may take the place away again before long when pods do not get ready (Kueue's
waitForPodsReady), and the pods with all that they could have shown."""
_ASK_AGAIN_S = 30.0
_REMEMBERED = 4096
_REASONS_AT_ONCE = 4
"""In a full cluster hundreds of Jobs wait for a place: why, is asked for a few at a time."""


Beside = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None] | None"]
"""Runs something beside the reconcile that asks for it; None when it has ended already."""


class PodEvidence:
    """All of it may be forgotten at any time: it saves calls and nothing else."""

    def __init__(self, api: Api, clock: Callable[[], datetime], beside: Beside = asyncio.create_task) -> None:
        self._api, self._clock, self._beside = api, clock, beside
        self._ends: LruCache[str, Evidence] = LruCache(_REMEMBERED)
        """Of Jobs that are finished, by UID."""
        self._prefetched: LruCache[str, Evidence] = LruCache(_REMEMBERED)
        """Of Jobs that are about to succeed, by UID."""
        self._prefetching: dict[str, asyncio.Task[None]] = {}
        """Questions that are under way, by UID of the Job."""
        self._asking = 0
        self._asked: dict[str, dict[str, tuple[datetime, Evidence]]] = {}
        """UID of a run, UID of a Job of it that does not start -> when its pods were asked, and their evidence."""
        self._queued = Queued(api, clock)
        self._before: LruCache[str, Blocker] = LruCache(_REMEMBERED)
        """UID of a Job -> why its pods did not run when they were asked last."""

    async def of_end(self, job: JobSnapshot) -> Evidence:
        """The evidence of a finished Job's pods: asked once, they do not change.

        Raises:
            ApiError: they cannot be asked.
        """
        if job.uid not in self._ends:
            self._ends.put(job.uid, await self._read_end(job))
        return self._ends[job.uid]

    def prefetch_result(self, job: JobSnapshot) -> None:
        """All pods of ``job`` have ended well, and its controller is about to record it: by then we know the result.

        Nothing waits for the answer but the end itself: a reconcile that did would keep a worker from what is pressing.
        """
        if job.uid in self._prefetched or job.uid in self._prefetching:
            return
        task = self._beside(self._prefetch(job))
        if task is not None:
            self._prefetching[job.uid] = task
            task.add_done_callback(lambda _: self._prefetching.pop(job.uid, None))

    async def _prefetch(self, job: JobSnapshot) -> None:
        with contextlib.suppress(ApiError):  # it is asked again at the end
            evidence = await self._from_cache(job)
            if _tells_all(job, evidence):
                self._prefetched.put(job.uid, evidence)

    async def of_start(self, run_uid: str, job: JobSnapshot) -> Evidence:
        """Why a Job does not start, asked when it takes long.

        Raises:
            ApiError: its pods cannot be asked.
        """
        now = self._clock()
        if job.all_there:
            self._before.pop(job.uid, None)
        if not job.doubtful:
            self._asked.get(run_uid, {}).pop(job.uid, None)
            if not job.suspended or job.stopping:
                self._queued.forget(run_uid, job.uid)
                return NOTHING
            return Evidence(before=self._before.get(job.uid), waiting=await self._queued.why(run_uid, job))
        self._queued.forget(run_uid, job.uid)
        waits_s = (now - _since(job)).total_seconds()
        if waits_s < _patience(job):
            return NOTHING
        known = self._asked.setdefault(run_uid, {})
        asked = known.get(job.uid)
        due = asked is None or (now - asked[0]).total_seconds() >= _ask_again(job, *asked)
        if due and self._asking < _REASONS_AT_ONCE:
            self._asking += 1
            try:
                asked = known[job.uid] = (now, await self._why(job, now))
            finally:
                self._asking -= 1
        if asked is None:
            return NOTHING
        blocker = asked[1].waiting
        if blocker is None or blocker.reason in (reasons.ENDING, reasons.POD_STARTING):
            early = blocker is not None and waits_s < _PATIENCE_S  # a pod that begins is not worth a write
            return replace(asked[1], waiting=None) if early else asked[1]
        self._before.put(job.uid, blocker)
        return asked[1]

    async def _why(self, job: JobSnapshot, now: datetime) -> Evidence:
        """The evidence of the pods; where one is missing, also what keeps the Job from having it."""
        pods = await self._api.list_pods(job.namespace, job.uid, cached=True)
        began = _since(job)
        missing = sum(map(has_not_ended, pods)) < job.together and not job.stopping
        if not missing or (now - began).total_seconds() < PATIENCE_S:
            return evidence_of(pods, now)
        pods = await self._api.list_pods(job.namespace, job.uid)  # the cache may be a little old
        evidence = evidence_of(pods, now)
        there = sum(map(has_not_ended, pods))
        if there >= job.together or evidence.waiting is not None:
            return evidence
        last = max((end.at for end in evidence.ends), default="") or (stamp(began) if job.ended_pods else "") or ""
        waited_s = (now - (parse_stamp(last) or began)).total_seconds()
        if there:  # some of those that train together
            last = stamp(now - timedelta(seconds=RECENT_S)) or ""
        if waited_s < PATIENCE_S:
            return evidence
        events: list[dict[str, Any]] = []
        with contextlib.suppress(ApiError):  # an older Role does not let us read them
            events = await self._api.list_events(job.namespace, job.uid)
        return replace(evidence, waiting=why_no_pod(job.name, events, waited_s, last[:19]))

    def ask_again_in(self, run_uid: str, jobs: Iterable[JobSnapshot]) -> float:
        """Seconds after which a Job of the run that does not start is worth a question."""
        asked = self._asked.get(run_uid, {})
        waits = (_ask_again(job, *asked[job.uid]) if job.uid in asked else _patience(job) for job in jobs)
        return min(waits, default=_PATIENCE_S)

    def ask_queue_in(self, run_uid: str) -> float | None:
        """Seconds after which a Job of the run that its queue holds is worth a question; None when none is."""
        return self._queued.ask_again_in(run_uid)

    def forget_end(self, job: JobSnapshot) -> None:
        """The end of ``job`` is recorded."""
        self._ends.pop(job.uid, None)
        self._prefetched.pop(job.uid, None)

    def forget_run(self, run_uid: str) -> None:
        self._asked.pop(run_uid, None)
        self._queued.forget_run(run_uid)

    async def _read_end(self, job: JobSnapshot) -> Evidence:
        if (asking := self._prefetching.get(job.uid)) is not None:
            await asyncio.wait([asking])
        prefetched = self._prefetched.pop(job.uid, None)
        if job.succeeded:
            evidence = prefetched or await self._from_cache(job)
            if _tells_all(job, evidence):
                return evidence
        return await self.ask(job)

    async def ask(self, job: JobSnapshot) -> Evidence:
        """The evidence of its pods now.

        Raises:
            ApiError: they cannot be asked.
        """
        return evidence_of(await self._api.list_pods(job.namespace, job.uid), self._clock())

    async def _from_cache(self, job: JobSnapshot) -> Evidence:
        return evidence_of(await self._api.list_pods(job.namespace, job.uid, cached=True), self._clock())


def _since(job: JobSnapshot) -> datetime:
    """From when on its pods should run, or end."""
    return job.stopping_since or job.started_at or job.created_at


def _ask_again(job: JobSnapshot, asked_at: datetime, evidence: Evidence) -> float:
    """Seconds between the question at ``asked_at``, which brought ``evidence``, and the next one."""
    waited_s = (asked_at - _since(job)).total_seconds()
    if waited_s < _PATIENCE_S:
        return _PATIENCE_S
    if evidence == NOTHING and waited_s < PATIENCE_S:  # one that has no pod yet is asked in time to report that
        return max(1.0, PATIENCE_S - waited_s)
    return _ASK_AGAIN_S


def _patience(job: JobSnapshot) -> float:
    return _QUEUED_PATIENCE_S if job.queue and not job.stopping else _PATIENCE_S


def _tells_all(job: JobSnapshot, evidence: Evidence) -> bool:
    """Whether nothing is missing: a list from the API server's cache may be a little old."""
    ended_well = [end for end in evidence.ends if end.code == 0]
    return len(ended_well) >= job.completions and any(end.result is not None for end in ended_well)
