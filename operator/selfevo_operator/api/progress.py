"""How far running steps are, read from the logs of their pods, now and then and beside everything else.

Nothing waits for it and nothing is decided by it. What it costs is bounded over all runs: some runs a second are
polled, however many there are; the one that was polled longest ago comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from selfevo_contract.status import StepProgress
from selfevo_core.progress import progress_of
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.observed.cache import Cache, Key, RunSnapshot
from selfevo_operator.observed.lru_cache import LruCache
from selfevo_operator.observed.reported import Report, newest_report, pods_that_report
from selfevo_operator.observed.snapshots import JobSnapshot

log = logging.getLogger("selfevo")

_PAUSE_S, _AT_ONCE = 0.2, 4
"""The poll of a run begins so often at most, and so many go on at a time: a lost node takes long to be silent."""
_JOBS, _PODS = 4, 4
"""Of a run, and of a Job, in one poll; the others' turn comes in the next ones."""
_SCAN_S, _ANSWER_S = 3.0, 10.0
_DENIED_S = 600.0
_REMEMBERED = 4096


@dataclass
class _Known:
    """Of a Job."""

    seen: tuple[int, int] = (-1, -1)
    """Pods of it that were ready and that had ended, when its pods were listed."""
    pods: dict[int, str] = field(default_factory=dict)
    reports: dict[int, tuple[str, Report]] = field(default_factory=dict)
    """Shard -> the pod, and its last report."""
    turn: int = 0
    progress: StepProgress | None = None


class ProgressReader:
    """All of it may be forgotten at any time: then it is read again.

    Args:
        seconds: between two polls of one run, and how long a step runs before the first one.
    """

    def __init__(self, api: Api, cache: Cache, clock: Callable[[], datetime], seconds: float) -> None:
        self._api, self._cache, self._clock = api, cache, clock
        self._every = timedelta(seconds=seconds)
        self._known: LruCache[str, _Known] = LruCache(_REMEMBERED)
        self._polled_at: dict[str, datetime] = {}
        """UID of a run -> when its turn was."""
        self._denied_until: dict[str, datetime] = {}
        """Namespaces whose logs are not to be read."""

    def of(self, job: JobSnapshot) -> StepProgress | None:
        """How far the Job's step was when it was polled last."""
        known = self._known.get(job.uid)
        return known.progress if known is not None else None

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Poll for ever; ``changed`` is called with each run that has something new to record."""
        free = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                for snapshot, jobs in self.due():
                    await free.acquire()
                    group.create_task(self._poll(snapshot, jobs, changed, free))
                    await asyncio.sleep(_PAUSE_S)
                await asyncio.sleep(min(_SCAN_S, self._every.total_seconds()))

    def due(self) -> Iterator[tuple[RunSnapshot, list[JobSnapshot]]]:
        """Runs whose turn it is, with their Jobs that have run for a while; the one that waits longest comes first."""
        now = self._clock()
        runs = {run.uid: run for run in self._cache.runs.values() if run.phase == "Running" and not run.deleting}
        self._polled_at = {uid: at for uid, at in self._polled_at.items() if uid in runs}
        waiting = [uid for uid in runs if uid not in self._polled_at or now - self._polled_at[uid] >= self._every]
        for uid in sorted(waiting, key=lambda uid: self._polled_at.get(uid, datetime.min.replace(tzinfo=now.tzinfo))):
            jobs = [job for job in self._cache.jobs_of(uid) if self._runs(job, now)]
            if jobs and now >= self._denied_until.get(runs[uid].key.namespace, now):
                self._polled_at[uid] = now
                yield runs[uid], jobs[:_JOBS]

    def _runs(self, job: JobSnapshot, now: datetime) -> bool:
        since = job.started_at or job.created_at
        return job.ready > 0 and not job.finished and not job.stopping and now - since >= self._every

    async def _poll(
        self, snapshot: RunSnapshot, jobs: list[JobSnapshot], changed: Callable[[Key], None], free: asyncio.Semaphore
    ) -> None:
        try:
            if await self.poll(snapshot, jobs):
                changed(snapshot.key)
        except Exception:  # it must not end the operator
            log.exception("%s: a defect in reading its progress", snapshot.key)
        finally:
            free.release()

    async def poll(self, snapshot: RunSnapshot, jobs: list[JobSnapshot]) -> bool:
        """Ask the pods of ``jobs``; returns whether one of them says something new."""
        advanced = False
        for job in jobs:
            known = self._known.get(job.uid) or self._known.put(job.uid, _Known())
            before = known.progress
            with contextlib.suppress(TimeoutError):
                try:
                    await asyncio.wait_for(self._ask(job, known), _ANSWER_S)
                except ApiError as error:
                    known.seen = (-1, -1)  # a pod may be gone
                    if error.status in (401, 403):
                        self._deny(snapshot.key.namespace, error)
                        return advanced
            advanced = advanced or known.progress != before
        return advanced

    async def _ask(self, job: JobSnapshot, known: _Known) -> None:
        if known.seen != (job.ready, job.ended_pods) or not known.pods:
            known.pods = pods_that_report(job, await self._api.list_pods(job.namespace, job.uid, cached=True))
            known.reports = {n: kept for n, kept in known.reports.items() if known.pods.get(n) == kept[0]}
            known.seen = (job.ready, job.ended_pods)
        shards = list(known.pods)
        for _ in range(min(_PODS, len(shards))):
            number = shards[known.turn % len(shards)]
            known.turn += 1
            name = known.pods[number]
            report = newest_report(await self._api.pod_log(job.namespace, name), job.step)
            if report is not None:
                known.reports[number] = (name, report)
        reports = sorted((report for _, report in known.reports.values()), key=lambda report: report.at)
        if reports:
            processes = 1 if job.together > 1 else job.completions
            at = min(reports[-1].at, self._clock())
            known.progress = progress_of([report.progress for report in reports], at, processes)

    def _deny(self, namespace: str, error: ApiError) -> None:
        if namespace not in self._denied_until:
            log.warning("progress in namespace %s is not read: %s; grant get of pods/log", namespace, error.message)
        self._denied_until[namespace] = self._clock() + timedelta(seconds=_DENIED_S)
