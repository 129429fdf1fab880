"""One run is reconciled: what the cache knows -> the pure reconcile -> the few writes that follow from it.

Order of writes: what is not needed any more is deleted, what is needed is created, then the status is written, then an
Event. Between any two of them we may be killed: names of attempts are deterministic, so that creating one again
meets itself, and whatever the status does not have yet is read off the Jobs the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import SelfevoError
from selfevo_contract.plan import Plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus
from selfevo_core.attempts import Stop
from selfevo_core.invalid_spec import invalid_spec_status
from selfevo_core.reconcile import Backoff, Outcome, reconcile
from selfevo_operator.api.kube import Api
from selfevo_operator.api.pod_evidence import Beside
from selfevo_operator.controller.act import Executor
from selfevo_operator.controller.forks import Forks
from selfevo_operator.controller.memory import AT_ONCE, Memories, RunMemory
from selfevo_operator.controller.read import ProgressOf, Reader
from selfevo_operator.controller.sharing import Sharing
from selfevo_operator.controller.write import StatusWriter, Wrote
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Cache, Key, RunSnapshot
from selfevo_operator.observed.snapshots import JobSnapshot, attempt_of


@dataclass
class MetricsHooks:
    """What is called while a run is reconciled: for metrics, traces, and the runs that wait for another one."""

    created: Callable[[Key], None] = lambda key: None
    facts: Callable[[str], None] = lambda reason: None
    freed: Callable[[Key], None] = lambda key: None
    """The run waits for what another one has done now: it is to be reconciled, and something hangs on it."""
    wrote: Wrote = lambda run, before, after: None


class Controller:
    """Reconciles runs. ``reconcile_run`` may be called for many keys at once, for one key by one caller at a time."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        settings: PodSettings,
        clock: Callable[[], datetime],
        backoff: Backoff | None = None,
        hooks: MetricsHooks | None = None,
        beside: Beside = asyncio.create_task,
        progress: ProgressOf = lambda job: None,
    ) -> None:
        self._cache, self._clock = cache, clock
        self._backoff, self._hooks = backoff or Backoff(), hooks or MetricsHooks()
        self._memories = Memories(RunMemory)
        self._sharing, self._forks = Sharing(cache), Forks(cache)
        self._reader = Reader(api, cache, settings, clock, self._memories, beside, progress)
        self._executor = Executor(api, cache, settings, self._created)
        self._writer = StatusWriter(api, cache, clock, self._memories, self._hooks.facts, self._hooks.wrote)

    async def reconcile_run(self, key: Key, may_record: Callable[[], bool] = lambda: True) -> float | None:
        """Bring the run at ``key`` one step further.

        Args:
            may_record: asked when there is a record to write. When it answers False, it sees to it that the run is
                reconciled again; what the cluster waits for is done by then in any case.

        Returns:
            seconds until it is to be reconciled although nothing has happened; None for not at all.

        Raises:
            ApiError: the cluster did not do what was asked; try again after a while.
        """
        for waiting in self._sharing.freed():
            self._hooks.freed(waiting)
        try:
            return await self._reconcile_run(key, may_record)
        finally:  # what was written just now, too
            for waiting in self._forks.changed():
                self._hooks.freed(waiting)

    async def _reconcile_run(self, key: Key, may_record: Callable[[], bool]) -> float | None:
        snapshot = self._cache.runs.get(key)
        if snapshot is None:
            return None
        if not await self._reader.is_current(snapshot):
            return AT_ONCE
        jobs = self._cache.jobs_of(snapshot.uid) if snapshot.deleting else await self._reader.jobs(snapshot)
        if snapshot.deleting or _settled(snapshot, jobs):  # what is deleted, the garbage collector cleans up after
            self._memories.pop(snapshot.uid, None)
            self._reader.forget(snapshot, jobs)
            return None
        recorded, before = self._reader.record(snapshot)
        try:
            run, steps = self._reader.parse(snapshot, before)
        except SelfevoError as error:
            return await self._refuse(snapshot, jobs, recorded, before, error)
        return await self._advance(snapshot, run, steps, jobs, recorded, may_record)

    async def _advance(
        self,
        snapshot: RunSnapshot,
        run: SelfEvolutionRun,
        steps: Plan,
        jobs: Sequence[JobSnapshot],
        recorded: dict[str, Any],
        may_record: Callable[[], bool],
    ) -> float | None:
        """Read, decide and act, then read and decide again: what was done is part of what is written."""
        before = run.status or RunStatus()
        memory = self._memories[snapshot.uid]
        memory.unreadable = None
        attempts = await self._reader.attempts(run, steps, jobs)
        store = run.spec.storage.uri.rstrip("/")
        elsewhere = self._sharing.elsewhere(snapshot, store, steps, before)
        beginning = self._forks.beginning(run)
        outcome = reconcile(
            run, steps, attempts, self._clock(), self._backoff, memory.unreadable, elsewhere, beginning=beginning
        )
        with self._sharing.claimed(snapshot, store, outcome.actions):
            acted = bool(outcome.actions)
            problem, failure = await self._executor.carry_out(run, snapshot, outcome.actions)
        memory.in_vain = memory.in_vain + 1 if acted and jobs == self._cache.jobs_of(snapshot.uid) else 0
        if acted and problem is None and not may_record():
            return None  # what it comes to is decided in the reconcile that has a slot to write it
        if acted:
            jobs = self._cache.jobs_of(snapshot.uid)
            attempts = await self._reader.attempts(run, steps, jobs)
            blocker = problem or memory.unreadable
            outcome = reconcile(
                run, steps, attempts, self._clock(), self._backoff, blocker, elsewhere, beginning=beginning
            )
        memory.refusals = memory.refusals + 1 if problem and failure is None else 0
        waits = [self._wait(snapshot, outcome, memory, jobs)]
        quiet = self._writer.quiet_for(snapshot.uid, before, outcome.status)
        if quiet > 0:
            waits.append(quiet)
        elif before == outcome.status or may_record():
            waits.append(await self._writer.write(snapshot, run, recorded, before, outcome.status))
        elif not outcome.actions:  # what waits for nothing but the record waits until there is room for it
            waits = [wait for wait in waits if wait]
        if failure is not None:
            raise failure  # it is written; the queue knows when to try again
        return min((wait for wait in waits if wait is not None), default=None)

    async def _refuse(
        self,
        snapshot: RunSnapshot,
        jobs: Sequence[JobSnapshot],
        recorded: dict[str, Any],
        before: RunStatus,
        error: SelfevoError,
    ) -> float | None:
        """A run that cannot be understood: what runs goes on, nothing new begins, and suspending it stops it."""
        suspended = snapshot.document()["spec"].get("suspend") is True
        live = [attempt_of(job, gpus_each=self._reader.gpus_each(job)) for job in jobs if not job.finished]
        stops = [Stop(attempt.name, reasons.SUSPENDED) for attempt in live] if suspended else []
        problem, failure = await self._executor.carry_out(None, snapshot, stops)
        memory = self._memories[snapshot.uid]
        memory.refusals = memory.refusals + 1 if problem and failure is None else 0
        message = f"{error}; {problem.message}" if problem else str(error)
        status = invalid_spec_status(
            before, snapshot.generation, error.reason, message, self._clock(), suspended=suspended, live=live,
            ended=[job.name for job in jobs if job.finished], stops={stop.name: stop.reason for stop in stops},
        )  # fmt: skip
        again = await self._writer.write(snapshot, None, recorded, before, status)
        if failure is not None:
            raise failure
        if again is None and memory.refusals:
            again = memory.refused_wait()
        return again

    def prefetch_result(self, job: JobSnapshot) -> None:
        """All pods of ``job`` have ended well: they are asked before its controller marks it as Complete."""
        self._reader.prefetch_result(job)

    def _created(self, run: SelfEvolutionRun, key: Key, step: str, digest: str) -> None:
        self._reader.keep_template(run, step, digest)
        self._hooks.created(key)

    def _wait(
        self, snapshot: RunSnapshot, outcome: Outcome, memory: RunMemory, jobs: Sequence[JobSnapshot]
    ) -> float | None:
        """Seconds until the run wants to be reconciled although nothing has happened; None for not at all."""
        waits = [self._reader.ask_again_in(snapshot, jobs)]
        if outcome.wake_at is not None:
            waits.append(max(0.0, (outcome.wake_at - self._clock()).total_seconds()))
        if memory.refusals:
            waits.append(memory.refused_wait())
        elif outcome.actions:
            # One thing made room for another. If nothing has become otherwise, nothing has.
            waits.append(memory.no_progress_wait())
        return min((wait for wait in waits if wait is not None), default=None)


def _settled(snapshot: RunSnapshot, jobs: Sequence[JobSnapshot]) -> bool:
    """The record is final, of this generation, and nothing runs: there is nothing to think about."""
    ended = snapshot.phase in ("Succeeded", "Failed") and snapshot.observed_generation == snapshot.generation
    return ended and not snapshot.unended and all(job.finished for job in jobs)
