"""One look at one run: what the cache knows -> the pure reconcile -> the few writes that follow from it.

Order of writes: what is not needed any more is deleted, what is needed is created, then the status says so, then an
Event tells. Between any two of them we may be killed: names of attempts are deterministic, so that creating one again
meets itself, and whatever the status did not come to say is read off the Jobs at the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.errors import SelfevoError
from selfevo_contract.plan import Plan, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus
from selfevo_core.attempts import Action, Blocker, ObservedAttempt, Start, Stop, stamp
from selfevo_core.invalid_spec import invalid_spec_status, parse_run
from selfevo_core.reconcile import Backoff, Outcome, reconcile
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.api.pod_evidence import Beside, PodEvidence
from selfevo_operator.manifests.job import render, template_digest
from selfevo_operator.manifests.labels import TEMPLATE
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Cache, Key, RunSnapshot
from selfevo_operator.observed.lru_cache import LruCache
from selfevo_operator.observed.snapshots import Evidence, JobSnapshot, attempt_of, job_snapshot
from selfevo_operator.sharing import Sharing
from selfevo_operator.writes.events import event
from selfevo_operator.writes.status_patch import status_patch

AT_ONCE = 0.0
_NO_PROGRESS_BASE_S, _NO_PROGRESS_CAP_S = 1.0, 60.0
"""After looks that did something and by which nothing became otherwise."""
_UNLISTED_S = 20.0
"""A Job that has lost our label is asked for by its name so often: nobody else tells of it."""
_REMEMBERED = 4096
"""Of plans and templates: what is forgotten is computed again."""
_QUIET_S = 2.0
"""Changes that no decision hangs on (a pod runs now) are written at most this often for one run."""
_REFUSED_BASE_S, _REFUSED_CAP_S = 5.0, 300.0


_DENIED, _DENIED_S = (401, 403), 30.0
_FINAL = (400, 401, 403, 404, 422)
"""Refusals that trying again soon does not help."""


@dataclass
class MetricsHooks:
    """What is called while a run is reconciled: for metrics, and for the runs that wait for this one."""

    created: Callable[[Key], None] = lambda key: None
    facts: Callable[[str], None] = lambda reason: None
    freed: Callable[[Key], None] = lambda key: None
    """The run waits for a step of another one that has ended: it wants to be looked at. Something hangs on this one."""


@dataclass
class _Memory:
    """Of one run, what may be forgotten at any time: it saves calls and nothing else."""

    wrote_at: datetime | None = None
    in_vain: int = 0
    """Looks in a row that acted, and after which the Jobs were as before."""
    asked_at: datetime | None = None
    """When Jobs of it that no list finds were asked for."""
    unreadable: Blocker | None = None
    """Why the end of one of its Jobs cannot be read, in this look."""
    doubted: dict[str, JobSnapshot] = field(default_factory=dict)
    """By UID, those that are to be asked for."""
    refusals: int = 0


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
    ) -> None:
        self._api, self._cache, self._settings, self._clock = api, cache, settings, clock
        self._backoff, self._hooks = backoff or Backoff(), hooks or MetricsHooks()
        self._plans: LruCache[str, tuple[int, Plan]] = LruCache(_REMEMBERED)
        self._sharing = Sharing(cache)
        self._pod_evidence = PodEvidence(api, clock, beside)
        self._templates: LruCache[tuple[str, int, str], str] = LruCache(_REMEMBERED)
        self._memory: dict[str, _Memory] = {}

    async def reconcile_run(self, key: Key, may_record: Callable[[], bool] = lambda: True) -> float | None:
        """Bring the run at ``key`` one step further.

        Args:
            may_record: asked when there is a record to write. When it says no, it sees to it that the run is looked
                at again; what the cluster waits for is done by then in any case.

        Returns:
            seconds until it wants to be looked at although nothing has happened; None for not at all.

        Raises:
            ApiError: the cluster did not do what was asked; look again after a while.
        """
        for waiting in self._sharing.freed():
            self._hooks.freed(waiting)
        snapshot = self._cache.runs.get(key)
        if snapshot is None:
            return None
        jobs = self._cache.jobs_of(snapshot.uid) if snapshot.deleting else await self._jobs(snapshot)
        if snapshot.deleting or _settled(snapshot, jobs):  # what is deleted, the garbage collector cleans up after
            self._forget(snapshot, jobs)
            return None
        recorded = snapshot.recorded()
        before = _recorded(recorded)
        try:
            run, steps = self._understand(snapshot)
        except SelfevoError as error:
            return await self._refuse(snapshot, jobs, recorded, before, error)
        run = run.model_copy(update={"status": before})

        memory = self._memory.setdefault(snapshot.uid, _Memory())
        memory.unreadable = None
        attempts = await self._attempts(run, steps, jobs)
        store = run.spec.storage.uri.rstrip("/")
        elsewhere = self._sharing.elsewhere(snapshot, store, steps, before)
        outcome = reconcile(run, steps, attempts, self._clock(), self._backoff, memory.unreadable, elsewhere)
        with self._sharing.claimed(snapshot, store, outcome.actions):
            acted, (problem, failure) = bool(outcome.actions), await self._act(run, snapshot, outcome.actions)
        memory.in_vain = memory.in_vain + 1 if acted and jobs == self._cache.jobs_of(snapshot.uid) else 0
        if acted and problem is None and not may_record():
            return None  # what it comes to is thought out in the look that has room to say it
        if acted:
            # What was just created and deleted is part of what the status says.
            jobs = self._cache.jobs_of(snapshot.uid)
            attempts = await self._attempts(run, steps, jobs)
            said = problem or memory.unreadable
            outcome = reconcile(run, steps, attempts, self._clock(), self._backoff, said, elsewhere)
        memory.refusals = memory.refusals + 1 if problem and failure is None else 0
        waits = [self._wait(snapshot, outcome, memory, jobs)]
        quiet = self._quiet_for(memory, before, outcome.status)
        if quiet > 0:
            waits.append(quiet)
        elif before == outcome.status or may_record():
            waits.append(await self._write(snapshot, run, recorded, before, outcome.status))
        elif not outcome.actions:  # what waits for nothing but the record waits until there is room for it
            waits = [wait for wait in waits if wait]
        if failure is not None:
            raise failure  # it is said; the queue knows when to try again
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
        live = [attempt_of(job) for job in jobs if not job.finished]
        stops = [Stop(attempt.name, reasons.SUSPENDED) for attempt in live] if suspended else []
        problem, failure = await self._act(None, snapshot, stops)
        memory = self._memory.setdefault(snapshot.uid, _Memory())
        memory.refusals = memory.refusals + 1 if problem and failure is None else 0
        message = f"{error}; {problem.message}" if problem else str(error)
        status = invalid_spec_status(
            before, snapshot.generation, error.reason, message, self._clock(), suspended=suspended, live=live,
            ended=[job.name for job in jobs if job.finished], stops={stop.name: stop.reason for stop in stops},
        )  # fmt: skip
        again = await self._write(snapshot, None, recorded, before, status)
        if failure is not None:
            raise failure
        if again is None and memory.refusals:
            again = _growing(memory.refusals, _REFUSED_BASE_S, _REFUSED_CAP_S)
        return again

    def prefetch_result(self, job: JobSnapshot) -> None:
        """All pods of ``job`` have ended well: they are asked before its controller says that it is Complete."""
        self._pod_evidence.prefetch_result(job)

    def _forget(self, snapshot: RunSnapshot, jobs: Sequence[JobSnapshot]) -> None:
        self._memory.pop(snapshot.uid, None)
        self._pod_evidence.forget_run(snapshot.uid)
        for job in jobs:
            self._pod_evidence.forget_end(job)

    # --- what is there

    async def _jobs(self, snapshot: RunSnapshot) -> list[JobSnapshot]:
        """The Jobs of the run. Those that no list finds are asked for by their names, now and then."""
        memory, now = self._memory.setdefault(snapshot.uid, _Memory()), self._clock()
        memory.doubted |= {job.uid: job for job in self._cache.take_doubted(snapshot.uid)}
        unlisted = [job for job in self._cache.jobs_of(snapshot.uid) if not job.listed]
        if memory.asked_at is None or (now - memory.asked_at).total_seconds() >= _UNLISTED_S:
            memory.doubted |= {job.uid: job for job in unlisted}
        for job in list(memory.doubted.values()):
            memory.asked_at = now
            try:
                found = await self._api.get_job(job.namespace, job.name)
            except ApiError as error:
                if error.status != 404:
                    raise
                self._cache.bury_job(job.uid)
            else:
                if found["metadata"]["uid"] != job.uid:
                    self._cache.bury_job(job.uid)
                self._cache.meet_job(found)
            memory.doubted.pop(job.uid, None)
        return self._cache.jobs_of(snapshot.uid)

    def _understand(self, snapshot: RunSnapshot) -> tuple[SelfEvolutionRun, Plan]:
        run = parse_run(snapshot.document())
        known = self._plans.get(snapshot.uid)
        if known is None or known[0] != snapshot.generation:
            known = self._plans.put(snapshot.uid, (snapshot.generation, plan(run.spec)))
        return run, known[1]

    async def _attempts(self, run: SelfEvolutionRun, steps: Plan, jobs: Sequence[JobSnapshot]) -> list[ObservedAttempt]:
        ended = {(step.name, step.key): step.ended for step in (run.status or RunStatus()).steps}
        attempts = []
        for job in jobs:
            if job.finished and job.attempt > ended.get((job.step, job.key), 0):
                attempts.append(await self._ended(job))
            elif job.finished:
                self._pod_evidence.forget_end(job)
                attempts.append(attempt_of(job))
            else:
                if job.succeeding:
                    self._pod_evidence.prefetch_result(job)
                evidence = await self._pod_evidence.of_start(run.metadata.uid, job)
                attempts.append(await self._unfinished(run, steps, job, evidence))
        return attempts

    async def _ended(self, job: JobSnapshot) -> ObservedAttempt:
        """A Job that has ended; as long as its pods must not be asked how, it waits for somebody to allow that."""
        try:
            return attempt_of(job, await self._pod_evidence.of_end(job))
        except ApiError as error:
            if error.status not in _DENIED:
                raise
            message = f"{job.name} has ended, and the cluster does not let us ask its pods how: {error.message}"
            held = replace(job, succeeded=False, failed=False, ready=0, suspended=False, ended_pods=0, stopping=True)
            memory = self._memory.setdefault(job.owner, _Memory())
            memory.unreadable = Blocker(reasons.PODS_UNREADABLE, message)
            return attempt_of(held)

    async def _unfinished(
        self, run: SelfEvolutionRun, steps: Plan, job: JobSnapshot, evidence: Evidence
    ) -> ObservedAttempt:
        template = self._template(run, steps, job, evidence)
        attempt = attempt_of(job, evidence, template)
        if attempt.outdated and attempt.state == "Pending" and not job.suspended and not job.stopping:
            # Before it is replaced, its pods are asked: a Job counts a pod as ready a second after it is, and between
            # the end of the container and that of the pod it counts it as nothing at all.
            attempt = attempt_of(job, await self._pod_evidence.ask(job), template)
        return attempt

    def _template(self, run: SelfEvolutionRun, steps: Plan, job: JobSnapshot, evidence: Evidence) -> str:
        """Digest of the Job as it would be made now; empty when it does not matter or cannot be made."""
        step = steps.by_name.get(job.step)
        # One that its queue has sent away has ended its pods, at their checkpoints: it may be made anew as well.
        begun = job.ready or (job.ended_pods and evidence.waiting is None and not job.suspended)
        if step is None or step.key != job.key or begun:
            return ""
        now = (run.metadata.uid, run.metadata.generation, step.name)
        if now not in self._templates:
            try:
                digest = template_digest(render(run, step, job.attempt, job.name, self._settings)[0])
            except SelfevoError:
                digest = ""
            self._templates.put(now, digest)
        return self._templates[now]

    # --- what is done

    async def _act(
        self, run: SelfEvolutionRun | None, snapshot: RunSnapshot, actions: Sequence[Action]
    ) -> tuple[Blocker | None, ApiError | None]:
        """Carry the actions out.

        Returns:
            what kept one from it, for the status; and the error where trying again soon may help.
        """
        problem, failure = None, None
        for action in actions:
            try:
                if isinstance(action, Stop):
                    await self._stop(snapshot, action)
                elif run is not None:
                    problem = await self._start(run, snapshot, action) or problem
            except ApiError as error:
                problem = _blocker(action, error)
                failure = failure if problem.stuck else failure or error
        return problem, failure

    async def _stop(self, snapshot: RunSnapshot, action: Stop) -> None:
        job = next((job for job in self._cache.jobs_of(snapshot.uid) if job.name == action.name), None)
        if job is None or job.stopping:
            return
        try:
            left = await self._api.delete_job(job.namespace, job.name, job.uid)
        except ApiError as error:
            if error.status != 404 and not (error.status == 409 and await self._is_gone(job)):
                raise
            self._cache.bury_job(job.uid)
            return
        if left.get("kind") == "Job":
            self._cache.put_job(left)

    async def _is_gone(self, job: JobSnapshot) -> bool:
        """Whether a conflict means that another one bears its name by now; it may mean that a write was in the way."""
        try:
            current = await self._api.get_job(job.namespace, job.name)
        except ApiError as error:
            if error.status != 404:
                raise
            return True
        return bool(current["metadata"]["uid"] != job.uid)

    async def _start(self, run: SelfEvolutionRun, snapshot: RunSnapshot, action: Start) -> Blocker | None:
        namespace = snapshot.key.namespace
        try:
            job, *services = render(run, action.step, action.number, action.name, self._settings)
            for service in services:
                await self._create_service(namespace, service)
            made = await self._api.create_job(namespace, job)
        except SelfevoError as error:
            return Blocker(error.reason, str(error))
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return await self._meet(snapshot, action)
            raise
        self._cache.put_job(made)
        digest = made["metadata"].get("annotations", {}).get(TEMPLATE, "")
        self._templates.put((run.metadata.uid, run.metadata.generation, action.step.name), digest)
        self._hooks.created(snapshot.key)
        return None

    async def _create_service(self, namespace: str, service: dict[str, Any]) -> None:
        try:
            await self._api.create_service(namespace, service)
        except ApiError as error:
            if error.status != 409:
                raise

    async def _meet(self, snapshot: RunSnapshot, action: Start) -> Blocker | None:
        """A Job of that name exists: ours, then we had not seen it yet; or somebody else's, then it is left alone."""
        try:
            job = await self._api.get_job(snapshot.key.namespace, action.name)
        except ApiError as error:
            if error.status != 404:
                raise
            return Blocker(reasons.NAME_TAKEN, f"Job {action.name} was there and is gone; trying again", stuck=False)
        if job_snapshot(job).owner == snapshot.uid:
            self._cache.meet_job(job)
            return None
        return Blocker(
            reasons.NAME_TAKEN,
            f"Job {action.name} exists and is not controlled by this run; delete it, or give the run another name",
        )

    async def _write(
        self,
        snapshot: RunSnapshot,
        run: SelfEvolutionRun | None,
        recorded: dict[str, Any],
        before: RunStatus,
        status: RunStatus,
    ) -> float | None:
        """Write the status where it differs, and tell of it; AT_ONCE when somebody else was faster."""
        patch = status_patch(recorded, status, snapshot.version)
        if not patch:
            return None
        key = snapshot.key
        try:
            written = await self._api.patch_status(key.namespace, key.name, patch)
        except ApiError as error:
            if error.status == 404:
                self._cache.drop_run(key, snapshot.uid)
                return None
            if error.status not in (409, 422):
                raise
            current = await self._api.get_run(key.namespace, key.name)
            if self._cache.put_run(current) is None and int(current["metadata"]["resourceVersion"]) <= snapshot.version:
                raise  # not a conflict: the server does not like what we write
            return AT_ONCE
        self._cache.put_run(written)
        self._memory.setdefault(snapshot.uid, _Memory()).wrote_at = self._clock()
        if run is not None:
            await self._tell(run, before, status)
        return None

    async def _tell(self, run: SelfEvolutionRun, before: RunStatus, status: RunStatus) -> None:
        made = event(run, before, status, stamp(self._clock()) or "")
        if made is None:
            return
        self._hooks.facts(made["reason"])
        with contextlib.suppress(ApiError):  # created before, or refused: the status is the record
            await self._api.create_event(run.metadata.namespace, made)

    # --- when to look again

    def _wait(
        self, snapshot: RunSnapshot, outcome: Outcome, memory: _Memory, jobs: Sequence[JobSnapshot]
    ) -> float | None:
        waits = []
        if outcome.wake_at is not None:
            waits.append(max(0.0, (outcome.wake_at - self._clock()).total_seconds()))
        if memory.refusals:
            waits.append(_growing(memory.refusals, _REFUSED_BASE_S, _REFUSED_CAP_S))
        elif outcome.actions:
            # One thing made room for another. If nothing has become otherwise, nothing has.
            waits.append(_growing(memory.in_vain, _NO_PROGRESS_BASE_S, _NO_PROGRESS_CAP_S))
        if memory.unreadable is not None:
            waits.append(_DENIED_S)
        if any(not job.listed for job in jobs):
            waits.append(_UNLISTED_S)
        if doubtful := [job for job in jobs if job.doubtful]:
            waits.append(self._pod_evidence.ask_again_in(snapshot.uid, doubtful))
        again = self._pod_evidence.ask_queue_in(snapshot.uid)
        if again is not None and any(job.suspended and not job.finished for job in jobs):
            waits.append(again)
        return min(waits, default=None)

    def _quiet_for(self, memory: _Memory, before: RunStatus, after: RunStatus) -> float:
        """Seconds for which a change that decides nothing is kept back."""
        if memory.wrote_at is None or before == after or _weight(before) != _weight(after):
            return 0.0
        return _QUIET_S - (self._clock() - memory.wrote_at).total_seconds()


def _growing(times: int, base_s: float, cap_s: float) -> float:
    """Seconds to wait after ``times`` in a row; none after none."""
    return min(cap_s, base_s * (1 << min(times - 1, 10))) if times else AT_ONCE


def _blocker(action: Action, error: ApiError) -> Blocker:
    """What the status says of a refusal, in the cluster's words."""
    if isinstance(action, Stop):
        reason, what = reasons.DELETE_REFUSED, f"to delete Job {action.name}"
    else:
        reason, what = reasons.CREATE_REFUSED, f"Job {action.name}"
    if error.status == 0:
        return Blocker(reason, f"the cluster was asked, and did not answer: {error.message}", stuck=False)
    return Blocker(reason, f"the cluster refuses {what}: {error.message}", stuck=error.status in _FINAL)


def _settled(snapshot: RunSnapshot, jobs: Sequence[JobSnapshot]) -> bool:
    """The record is final, of this generation, and nothing runs: there is nothing to think about."""
    ended = snapshot.phase in ("Succeeded", "Failed") and snapshot.observed_generation == snapshot.generation
    return ended and not snapshot.unended and all(job.finished for job in jobs)


def _recorded(status: dict[str, Any]) -> RunStatus:
    try:
        return RunStatus.model_validate(status)
    except ValidationError:
        return RunStatus()  # not written by us; what is committed is found again at the price of pod starts


def _weight(status: RunStatus) -> tuple[object, ...]:
    """What of a status decisions hang on."""
    steps = [
        (s.name, s.key, s.attempts, s.ended, s.failures, s.retry_at, s.state in ("Succeeded", "Failed"))
        for s in status.steps
    ]
    conditions = [(c.type, c.status, c.reason) for c in status.conditions if c.status == "True"]
    return status.phase, status.observed_generation, steps, conditions
