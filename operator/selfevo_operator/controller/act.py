"""Actions on the cluster: Jobs (and their Services) are created and deleted; refusals become the run's blockers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import SelfevoError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_core.attempts import Action, Blocker, Start, Stop
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.manifests.job import render
from selfevo_operator.manifests.labels import TEMPLATE
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Cache, Key, RunSnapshot
from selfevo_operator.observed.snapshots import JobSnapshot, job_snapshot

_FINAL = (400, 401, 403, 404, 422)
"""Refusals that trying again soon does not help."""
_TRIES = 3
"""To delete a Job that changes meanwhile."""
Created = Callable[[SelfEvolutionRun, Key, str, str], None]
"""Is called when a Job was created: its run, the run's place, the step's name, the digest of the Job's template."""


class Executor:
    """Carries actions out. The reply to each call goes into the cache at once."""

    def __init__(self, api: Api, cache: Cache, settings: PodSettings, created: Created) -> None:
        self._api, self._cache, self._settings, self._created = api, cache, settings, created

    async def carry_out(
        self, run: SelfEvolutionRun | None, snapshot: RunSnapshot, actions: Sequence[Action]
    ) -> tuple[Blocker | None, ApiError | None]:
        """Carry the actions out, as long as the run is what they were decided by.

        A newer one that is known before an action takes its place: its record may say that the step is done whose Job
        is gone. It has the run reconciled again, and what is left is decided anew.

        Returns:
            what kept one from it, for the status; and the error where trying again soon may help.
        """
        problem, failure = None, None
        for action in actions:
            if not self._is_newest(snapshot):
                break
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
        """Delete the Job as it was seen. One that has changed since is met anew: somebody may have taken it from us."""
        for left_to_try in reversed(range(_TRIES)):
            job = next((job for job in self._cache.jobs_of(snapshot.uid) if job.name == action.name), None)
            if job is None or job.stopping:
                return
            try:
                left = await self._api.delete_job(job.namespace, job.name, job.uid, job.version)
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                current = None if error.status == 404 else await self._current(job)
                if current is None:
                    self._cache.bury_job(job.uid)
                    return
                self._cache.meet_job(current)
                if left_to_try == 0:
                    raise
            else:
                if left.get("kind") == "Job":
                    self._cache.put_job(left)
                return

    async def _current(self, job: JobSnapshot) -> dict[str, Any] | None:
        """The Job as it is now; None when it is gone, or another one bears its name by now."""
        try:
            current = await self._api.get_job(job.namespace, job.name)
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return current if current["metadata"]["uid"] == job.uid else None

    async def _start(self, run: SelfEvolutionRun, snapshot: RunSnapshot, action: Start) -> Blocker | None:
        namespace = snapshot.key.namespace
        try:
            job, *services = render(run, action.step, action.number, action.name, self._settings)
            for service in services:
                await self._create_service(namespace, service)
            if not self._is_newest(snapshot):  # a newer one came in meanwhile
                return None
            made = await self._api.create_job(namespace, job)
        except SelfevoError as error:
            return Blocker(error.reason, str(error))
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return await self._meet(snapshot, action)
            raise
        self._cache.put_job(made)
        digest = made["metadata"].get("annotations", {}).get(TEMPLATE, "")
        self._created(run, snapshot.key, action.step.name, digest)
        return None

    def _is_newest(self, snapshot: RunSnapshot) -> bool:
        return self._cache.runs.get(snapshot.key) is snapshot

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


def _blocker(action: Action, error: ApiError) -> Blocker:
    """A refusal for the status, in the cluster's words."""
    if isinstance(action, Stop):
        reason, what = reasons.DELETE_REFUSED, f"to delete Job {action.name}"
    else:
        reason, what = reasons.CREATE_REFUSED, f"Job {action.name}"
    if error.status == 0:
        return Blocker(reason, f"the cluster was asked, and did not answer: {error.message}", stuck=False)
    return Blocker(reason, f"the cluster refuses {what}: {error.message}", stuck=error.status in _FINAL)
