"""What the operator knows of the cluster: runs and their Jobs, as newest seen. No effects.

Watch events, lists and the replies to our own writes all come through here. An older version never replaces a newer
one, and an object that is known to be deleted does not come back from a list that was read before: UIDs are not reused.
A Job that loses our label is deleted for lists and watches, and lives: asked for by its name it comes back.
Resource versions of one kind grow and may be compared (Kubernetes documents it since 1.35).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from selfevo_contract import reasons
from selfevo_operator.observed.figures import Figure, figures_of
from selfevo_operator.observed.lru_cache import LruCache
from selfevo_operator.observed.snapshots import JobSnapshot, job_snapshot

_TOMBSTONES = 20_000
_FOR_EVER = 1 << 62
"""Later than any version."""


class Key(NamedTuple):
    """A run's place."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Change(NamedTuple):
    """What was taken in changes what is known of the run at ``key``."""

    key: Key
    pressing: bool = True
    """Something may hang on it. If not, only the record changes."""
    succeeding: JobSnapshot | None = None
    """The Job, when all of its pods have ended well just now."""


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """What is kept of a run: thousands of them may exist, so spec and status stay compressed until they are needed."""

    key: Key
    uid: str
    version: int
    generation: int
    deleting: bool
    phase: str
    observed_generation: int
    unended: tuple[str, ...]
    """Names of the attempts that its record shows as not ended; empty where it has none."""
    unseen: tuple[str, ...]
    """Names of those whose end nobody saw. Another Job may bear such a name since, for it does not count."""
    went_on_at: str
    """While its steps run: RFC 3339 time at which one of its attempts began or ended last. Empty while it waits."""
    finished_at: str
    """RFC 3339 time at which the run ended; empty while it has not."""
    figures: tuple[Figure, ...]
    """For Prometheus, while its steps run."""
    store: str
    """``spec.storage.uri`` without a slash at its end: other runs ask for it at each of their reconciles."""
    spec: bytes
    status: bytes

    def recorded(self) -> dict[str, Any]:
        """``status``; the spec, which changes seldom, stays packed."""
        recorded: dict[str, Any] = _unpacked(self.status)
        return recorded

    def document(self) -> dict[str, Any]:
        """The run as the API server gave it without its status, of its metadata what we read."""
        return {
            "apiVersion": "selfevo.dev/v1alpha1",
            "kind": "SelfEvolutionRun",
            "metadata": {
                "name": self.key.name,
                "namespace": self.key.namespace,
                "uid": self.uid,
                "generation": self.generation,
            },
            "spec": _unpacked(self.spec),
        }


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def _unpacked(packed: bytes) -> Any:
    return json.loads(zlib.decompress(packed))


def run_snapshot(run: Mapping[str, Any]) -> RunSnapshot:
    """What is kept of ``run``."""
    metadata, status = run["metadata"], run.get("status") or {}
    went_on_at = _went_on_at(status)
    return RunSnapshot(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 1),
        deleting="deletionTimestamp" in metadata,
        phase=str(status.get("phase") or "Pending"),
        observed_generation=status.get("observedGeneration") or 0,
        unended=_names(status, lambda attempt: attempt.get("state") not in ("Succeeded", "Failed")),
        unseen=_names(status, lambda attempt: attempt.get("reason") == reasons.LOST),
        went_on_at=went_on_at,
        finished_at=str(status.get("finishedAt") or ""),
        figures=figures_of(status) if went_on_at else (),
        store=str(((run.get("spec") or {}).get("storage") or {}).get("uri", "")).rstrip("/"),
        spec=_packed(run.get("spec")),
        status=_packed(status),
    )


def _names(status: Mapping[str, Any], those: Callable[[Mapping[str, Any]], bool]) -> tuple[str, ...]:
    attempts = [attempt for attempt in status.get("attempts") or [] if those(attempt)]
    return tuple(attempt["name"] if isinstance(attempt.get("name"), str) else "" for attempt in attempts)


def _went_on_at(status: Mapping[str, Any]) -> str:
    running = {"type": "Ready", "reason": reasons.RUNNING}
    if not any(running.items() <= condition.items() for condition in status.get("conditions") or []):
        return ""
    attempts = status.get("attempts") or []
    moments = [attempt.get(field) or "" for attempt in attempts for field in ("startedAt", "finishedAt")]
    return max([str(status.get("startedAt") or ""), *moments])


def _in(place: str, namespace: str | None) -> bool:
    return namespace is None or place == namespace


S = TypeVar("S", bound=RunSnapshot | JobSnapshot)


class Listing(Generic[S]):
    """A list that is being read: what it brings is known at once, what it lacks is gone at its end.

    Args:
        put: takes an object in.
        known: what is known by now of where the list was read.
        drop: forgets one of these, which was not there at that version.
    """

    def __init__(
        self,
        put: Callable[[Mapping[str, Any]], Key | None],
        known: Callable[[], list[S]],
        drop: Callable[[S, int], Key | None],
    ) -> None:
        self._put, self._known, self._drop = put, known, drop
        self._listed: set[str] = set()
        self._version = 0

    def take(self, objects: Iterable[Mapping[str, Any]], version: int, *, first: bool = True) -> set[Key]:
        """Some objects of the list, read at ``version``; returns the places of the runs that this changes.

        Args:
            first: the list begins with them, whatever was read before.
        """
        if first:
            self._listed.clear()
        changed = set()
        for found in objects:
            self._listed.add(found["metadata"]["uid"])
            changed.add(self._put(found))
        self._version = version
        return {key for key in changed if key is not None}

    def end(self) -> set[Key]:
        """All is read; returns the places of the runs of which something was not in it any more."""
        gone = [known for known in self._known() if known.uid not in self._listed and known.version <= self._version]
        return {key for key in (self._drop(known, self._version) for known in gone) if key is not None}


def _goes_on(old: JobSnapshot, new: JobSnapshot) -> bool:
    """Whether all that is new of a Job is that pods have begun, or that some have ended well."""
    ended_well = max(0, new.succeeded_pods - old.succeeded_pods)
    gone_on = replace(
        old,
        version=new.version,
        started_at=new.started_at,
        ready=new.ready if ended_well else max(old.ready, new.ready),
        pods=new.pods,  # what is used by them is counted in calm
        ended_pods=old.ended_pods + ended_well,
        succeeded_pods=old.succeeded_pods + ended_well,
    )
    return gone_on == new


class Cache:
    """Runs by place, Jobs by the UID of the run that controls them."""

    def __init__(self) -> None:
        self.runs: dict[Key, RunSnapshot] = {}
        self._jobs: dict[str, dict[str, JobSnapshot]] = {}
        self._owner_of: dict[str, str] = {}
        self._by_step: dict[tuple[str, str], dict[str, str]] = {}
        """Namespace and key of a step -> UID of each of its Jobs, and of who controls it."""
        self._gone: LruCache[str, int] = LruCache(_TOMBSTONES)
        """UIDs of what is gone, and the version at which it was."""
        self._doubted: dict[str, dict[str, JobSnapshot]] = {}
        """By owner and UID, Jobs that lived and that are gone for a list or a watch."""

    # --- runs

    def put_run(self, run: Mapping[str, Any]) -> Key | None:
        """Take ``run`` in; returns its place when this changes what is known."""
        metadata = run["metadata"]
        key, uid = Key(metadata["namespace"], metadata["name"]), metadata["uid"]
        old = self.runs.get(key)
        # Also of a namesake: a watch that lags behind a list still shows those that bore the name before.
        if uid in self._gone or (old and old.version >= int(metadata["resourceVersion"])):
            return None
        if old and old.uid != uid:
            self._bury(old.uid)
            self._doubted.pop(old.uid, None)
        self.runs[key] = run_snapshot(run)
        return key

    def drop_run(self, key: Key, uid: str) -> Key | None:
        """The run ``uid`` is deleted; returns its place when this changes what is known."""
        self._bury(uid)
        self._doubted.pop(uid, None)
        known = self.runs.get(key)
        if known is None or known.uid != uid:
            return None
        del self.runs[key]
        return key

    # --- Jobs

    def put_job(self, job: Mapping[str, Any]) -> Change | None:
        """Take ``job`` in; returns what this changes for its run, None for nothing."""
        metadata = job["metadata"]
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        owner = self._owner_of.get(uid)
        old = self._jobs.get(owner, {}).get(uid) if owner is not None else None
        if version <= self._gone.get(uid, 0) or (old is not None and old.version >= version):
            return None
        self._gone.pop(uid, None)
        snapshot = job_snapshot(job)
        if owner is None and not snapshot.owner:
            return None  # nobody's: not for us to touch
        if old is not None and (old.owner, old.key) != (snapshot.owner, snapshot.key):
            self._forget_job(uid)
        # One that was a run's and is nobody's now is kept under no owner: else an older version would bring it back.
        self._jobs.setdefault(snapshot.owner, {})[uid] = snapshot
        self._owner_of[uid] = snapshot.owner
        self._by_step.setdefault((snapshot.namespace, snapshot.key), {})[uid] = snapshot.owner
        key = Key(snapshot.namespace, snapshot.run)
        if old is None:
            return Change(key)
        if replace(old, version=version) == snapshot:
            return None  # what has changed is nothing that we read
        ends_well = snapshot.succeeding and not old.succeeding
        return Change(key, not _goes_on(old, snapshot), snapshot if ends_well else None)

    def meet_job(self, job: Mapping[str, Any]) -> Change | None:
        """Take in ``job``, which was asked for by its name just now: it is there, whatever a list or a watch has shown.

        For them a Job that has lost our label is gone.
        """
        if not job_snapshot(job).listed:
            self._gone.pop(job["metadata"]["uid"], None)
        return self.put_job(job)

    def drop_job(self, job: Mapping[str, Any]) -> Key | None:
        """``job`` is deleted; returns the place of its run when this changes what is known."""
        uid = job["metadata"]["uid"]
        version = int(job["metadata"]["resourceVersion"])
        known = self._jobs.get(self._owner_of.get(uid, ""), {}).get(uid)
        if known is not None and not known.listed and known.version >= version:
            return None  # a watch shows late that it has lost its label
        return self.bury_job(uid, max(version, known.version if known else 0))

    def bury_job(self, uid: str, version: int = _FOR_EVER) -> Key | None:
        """The Job ``uid`` is gone; returns the place of its run when this changes what is known.

        Args:
            version: when that was so: what is younger shows that it was its label alone.
        """
        self._bury(uid, version)
        gone = self._forget_job(uid)
        if gone and self._has_run(gone) and version < _FOR_EVER and not gone.finished and not gone.stopping:
            self._doubted.setdefault(gone.owner, {})[uid] = gone
        return Key(gone.namespace, gone.run) if gone else None

    def _has_run(self, job: JobSnapshot) -> bool:
        run = self.runs.get(Key(job.namespace, job.run))
        return run is not None and run.uid == job.owner

    def take_doubted(self, run_uid: str) -> list[JobSnapshot]:
        """Jobs of the run that are worth a question by their name: nobody asked them to end. Each is returned once."""
        return list(self._doubted.pop(run_uid, {}).values())

    def jobs_of(self, run_uid: str) -> list[JobSnapshot]:
        """The Jobs that the run controls, in the order of their names."""
        return sorted(self._jobs.get(run_uid, {}).values(), key=lambda job: job.name)

    def jobs_with(self, namespace: str, key: str) -> list[JobSnapshot]:
        """Of whichever run, the Jobs for the step with this key, the oldest first."""
        found = self._by_step.get((namespace, key), {})
        jobs = [self._jobs[owner][uid] for uid, owner in found.items()]
        return sorted(jobs, key=lambda job: (job.created_at, job.uid))

    def job_count(self) -> int:
        return sum(len(jobs) for owner, jobs in self._jobs.items() if owner)

    # --- lists

    def listing_runs(self, namespace: str | None) -> Listing[RunSnapshot]:
        """Of the runs of ``namespace``; None for all."""

        def known() -> list[RunSnapshot]:
            return [run for run in self.runs.values() if _in(run.key.namespace, namespace)]

        return Listing(self.put_run, known, lambda run, _: self.drop_run(run.key, run.uid))

    def listing_jobs(self, namespace: str | None) -> Listing[JobSnapshot]:
        """Of the Jobs of ``namespace``; None for all."""

        def put(job: Mapping[str, Any]) -> Key | None:
            change = self.put_job(job)
            return change.key if change else None

        def known() -> list[JobSnapshot]:
            jobs = (job for of_run in self._jobs.values() for job in of_run.values())
            return [job for job in jobs if job.listed and _in(job.namespace, namespace)]

        return Listing(put, known, lambda job, version: self.bury_job(job.uid, version))

    def _forget_job(self, uid: str) -> JobSnapshot | None:
        owner = self._owner_of.pop(uid, None)
        if owner is None:
            return None
        jobs = self._jobs[owner]
        gone = jobs.pop(uid)
        of_step = self._by_step.get((gone.namespace, gone.key), {})
        of_step.pop(uid, None)
        if not of_step:
            self._by_step.pop((gone.namespace, gone.key), None)
        if not jobs:
            del self._jobs[owner]
        return gone

    def _bury(self, uid: str, version: int = _FOR_EVER) -> None:
        self._gone.put(uid, version)
