"""What there is of a run: its Jobs, how they ended or why they wait, and whether they would be made the same now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.errors import SelfevoError
from selfevo_contract.phases import PHASES
from selfevo_contract.plan import Plan, decided, plan_of
from selfevo_contract.pods import merged, pods_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus, StepProgress
from selfevo_core.attempts import Blocker, ObservedAttempt
from selfevo_core.invalid_spec import parse_run
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.api.pod_evidence import Beside, PodEvidence
from selfevo_operator.controller.memory import Memories
from selfevo_operator.manifests.job import render, template_digest
from selfevo_operator.manifests.resources import counted
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Cache, RunSnapshot
from selfevo_operator.observed.lru_cache import LruCache
from selfevo_operator.observed.snapshots import Evidence, JobSnapshot, attempt_of, job_snapshot

Clock = Callable[[], datetime]
ProgressOf = Callable[[JobSnapshot], StepProgress | None]
"""How far the step of a Job is, as far as it was heard."""
_UNLISTED_S = 20.0
"""A Job that has lost our label is asked for by its name so often: nothing else shows it."""
_REMEMBERED = 4096
"""Of templates and claims: what is forgotten is computed again."""
_PARSED = 512
"""The same of runs, with their records and plans, which are larger."""
_DENIED, _DENIED_S = (401, 403), 30.0


class Reader:
    """Reads runs, their Jobs and the evidence of their pods. Of each run by one caller at a time."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        settings: PodSettings,
        clock: Clock,
        memories: Memories,
        beside: Beside,
        progress: ProgressOf,
    ) -> None:
        self._api, self._cache, self._settings, self._clock, self._memories = api, cache, settings, clock, memories
        self._pod_evidence, self._progress = PodEvidence(api, clock, beside), progress
        self._parsed: LruCache[str, tuple[object, SelfEvolutionRun, Plan]] = LruCache(_PARSED)
        self._records: LruCache[str, tuple[int, dict[str, Any], RunStatus]] = LruCache(_PARSED)
        """UID of a run -> its resource version, its status as it is written, and what that says."""
        self._claimed: LruCache[tuple[str, int, str], int] = LruCache(_REMEMBERED)
        """UID and generation of a run, a phase -> GPUs that the claims of one of its pods bring."""
        self._templates: LruCache[tuple[str, int, str], str] = LruCache(_REMEMBERED)
        """UID and generation of a run, name of a step -> digest of the Job that would be created."""

    async def is_current(self, snapshot: RunSnapshot) -> bool:
        """Whether the run is as it is known, as far as it can be: it is asked for where the operator's own write may
        have made another one of it. By the record of before, a step whose end was written would begin again when its
        Job is gone."""
        memory = self._memories.get(snapshot.uid)
        if memory is None or memory.doubted != snapshot.version or snapshot.deleting:
            return True
        try:
            self._cache.put_run(await self._api.get_run(snapshot.key.namespace, snapshot.key.name))
        except ApiError as error:
            if error.status != 404:
                raise
            self._cache.drop_run(snapshot.key, snapshot.uid)
        memory.doubted = None
        return self._cache.runs.get(snapshot.key) is snapshot

    async def jobs(self, snapshot: RunSnapshot) -> list[JobSnapshot]:
        """The Jobs of the run. Those that no list finds are asked for by their names, now and then."""
        memory, now = self._memories[snapshot.uid], self._clock()
        if not memory.asked_for_recorded:
            await self._ask_for_recorded(snapshot)
            memory.asked_for_recorded = True
        memory.doubted_jobs |= {job.uid: job for job in self._cache.take_doubted(snapshot.uid)}
        unlisted = [job for job in self._cache.jobs_of(snapshot.uid) if not job.listed]
        if memory.asked_at is None or (now - memory.asked_at).total_seconds() >= _UNLISTED_S:
            memory.doubted_jobs |= {job.uid: job for job in unlisted}
        for job in list(memory.doubted_jobs.values()):
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
            memory.doubted_jobs.pop(job.uid, None)
        return self._cache.jobs_of(snapshot.uid)

    async def _ask_for_recorded(self, snapshot: RunSnapshot) -> None:
        """Asks once in this process for the Jobs that the record has as live or as gone unseen, and no list shows.

        A Job that has lost our label while the operator was away would otherwise outlive a suspended run: a run that
        goes on finds it when it creates one of the same name.
        """
        known = {job.name for job in self._cache.jobs_of(snapshot.uid)}
        for name in (*snapshot.unended, *snapshot.unseen):
            if not name or name in known:
                continue
            try:
                found = await self._api.get_job(snapshot.key.namespace, name)
            except ApiError as error:
                if error.status != 404:
                    raise
            else:
                if job_snapshot(found).owner == snapshot.uid:
                    self._cache.meet_job(found)
                    self._memories[snapshot.uid].asked_at = self._clock()

    def record(self, snapshot: RunSnapshot) -> tuple[dict[str, Any], RunStatus]:
        """The status as it is written, and what that says: an empty one when it cannot be read."""
        known = self._records.get(snapshot.uid)
        if known is None or known[0] != snapshot.version:
            written = snapshot.recorded()
            try:
                status = RunStatus.model_validate(written)
            except ValidationError:
                status = RunStatus()  # not written by us; what is committed is found again at the price of pod starts
            known = self._records.put(snapshot.uid, (snapshot.version, written, status))
        return known[1:]

    def parse(self, snapshot: RunSnapshot, recorded: RunStatus) -> tuple[SelfEvolutionRun, Plan]:
        """The run, as it is ``recorded``, and its plan.

        Raises:
            SelfevoError: the spec makes no sense, although the API server took it.
        """
        known = self._parsed.get(snapshot.uid)
        mark = (snapshot.generation, recorded.layout, decided(recorded))
        if known is None or known[0] != mark:
            run = parse_run(snapshot.document(), recorded)
            known = self._parsed.put(snapshot.uid, (mark, run, plan_of(run.spec, recorded)))
        _, run, steps = known
        return run.model_copy(update={"status": recorded}), steps

    async def attempts(self, run: SelfEvolutionRun, steps: Plan, jobs: Sequence[JobSnapshot]) -> list[ObservedAttempt]:
        """What became of each Job, with what its pods show where that matters.

        Raises:
            ApiError: they cannot be asked.
        """
        ended = {(step.name, step.key): step.ended for step in (run.status or RunStatus()).steps}
        attempts = []
        for job in jobs:
            if job.finished and job.attempt > ended.get((job.step, job.key), 0):
                attempts.append(await self._ended(job, self.gpus_each(job, run)))
            elif job.finished:
                self._pod_evidence.forget_end(job)
                attempts.append(attempt_of(job))  # what it used is counted
            else:
                if job.succeeding:
                    self._pod_evidence.prefetch_result(job)
                evidence = await self._pod_evidence.of_start(run.metadata.uid, job)
                attempts.append(await self._unfinished(run, steps, job, evidence))
        return attempts

    async def _ended(self, job: JobSnapshot, gpus: int) -> ObservedAttempt:
        """A Job that has ended; as long as its pods must not be asked how, it waits for somebody to allow that."""
        try:
            return attempt_of(job, await self._pod_evidence.of_end(job), gpus_each=gpus)
        except ApiError as error:
            if error.status not in _DENIED:
                raise
            message = f"{job.name} has ended, and the cluster does not let us ask its pods how: {error.message}"
            held = replace(job, succeeded=False, failed=False, ready=0, suspended=False, ended_pods=0, stopping=True)
            self._memories[job.owner].unreadable = Blocker(reasons.PODS_UNREADABLE, message)
            return attempt_of(held, gpus_each=gpus)

    async def _unfinished(
        self, run: SelfEvolutionRun, steps: Plan, job: JobSnapshot, evidence: Evidence
    ) -> ObservedAttempt:
        template, gpus = self._template(run, steps, job, evidence), self.gpus_each(job, run)
        attempt = attempt_of(job, evidence, template, gpus)
        if attempt.outdated and attempt.state == "Pending" and not job.suspended and not job.stopping:
            # Before it is replaced, its pods are asked: a Job counts a pod as ready a second after it is, and between
            # the end of the container and that of the pod it counts it as nothing at all.
            attempt = attempt_of(job, await self._pod_evidence.ask(job), template, gpus)
        return replace(attempt, progress=self._progress(job))

    def gpus_each(self, job: JobSnapshot, run: SelfEvolutionRun | None = None) -> int:
        """GPUs of one pod of ``job``: by the Job itself, and by the claims of ``run``, which a Job gives no number."""
        gpus = counted(job.devices, self._settings.gpu_resources)
        if run is None or job.phase not in PHASES:
            return gpus
        of_claims = (run.metadata.uid, run.metadata.generation, job.phase)
        if of_claims not in self._claimed:
            spec = run.spec.model_copy(update={"pods": merged(self._settings.defaults, run.spec.pods)})
            claims = pods_of(spec, job.phase).resource_claims
            self._claimed.put(of_claims, sum(claim.gpus or 0 for claim in claims))
        return gpus + self._claimed[of_claims]

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

    def ask_again_in(self, snapshot: RunSnapshot, jobs: Sequence[JobSnapshot]) -> float | None:
        """Seconds after which something is worth another question; None for nothing."""
        waits = []
        if self._memories[snapshot.uid].unreadable is not None:
            waits.append(_DENIED_S)
        if any(not job.listed for job in jobs):
            waits.append(_UNLISTED_S)
        if doubtful := [job for job in jobs if job.doubtful]:
            waits.append(self._pod_evidence.ask_again_in(snapshot.uid, doubtful))
        again = self._pod_evidence.ask_queue_in(snapshot.uid)
        if again is not None and any(job.suspended and not job.finished for job in jobs):
            waits.append(again)
        return min(waits, default=None)

    def prefetch_result(self, job: JobSnapshot) -> None:
        """All pods of ``job`` have ended well: they are asked before its controller marks it as Complete."""
        self._pod_evidence.prefetch_result(job)

    def keep_template(self, run: SelfEvolutionRun, step: str, digest: str) -> None:
        """``digest`` is that of the Job that was created for the step just now."""
        self._templates.put((run.metadata.uid, run.metadata.generation, step), digest)

    def forget(self, snapshot: RunSnapshot, jobs: Sequence[JobSnapshot]) -> None:
        """Nothing happens to the run any more."""
        self._parsed.pop(snapshot.uid, None)
        self._records.pop(snapshot.uid, None)
        self._pod_evidence.forget_run(snapshot.uid)
        for job in jobs:
            self._pod_evidence.forget_end(job)
