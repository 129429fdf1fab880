"""Jobs and their pods, as the API server gives them, as reconcile sees them. Pure.

A Job is kept as a `JobSnapshot`, a few hundred bytes of what its life depends on: of its thousands of lines the
operator wrote most itself. What its pods show (`Evidence`) is read when it is needed: at its end, and when it does not
start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode
from selfevo_contract.phases import PHASES
from selfevo_contract.process import PhaseResult
from selfevo_core.attempts import Blocker, ObservedAttempt, parse_stamp, verdict_of
from selfevo_operator.manifests.labels import (
    ATTEMPT,
    KEY,
    MANAGED_BY,
    MANAGER,
    PHASE,
    QUEUE,
    RUN,
    STEP,
    TEMPLATE,
    TRAINER,
)
from selfevo_operator.manifests.resources import amount
from selfevo_operator.observed.evidence import NOTHING, OURS, Evidence, PodEnd, evidence_of

__all__ = ["NOTHING", "Evidence", "JobSnapshot", "PodEnd", "attempt_of", "evidence_of", "job_snapshot"]

_DISTRIBUTED = {phase.name for phase in PHASES.values() if phase.distributed}
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """What is kept of a Job."""

    name: str
    namespace: str
    uid: str
    version: int
    owner: str
    """UID of the run that controls it; empty when none does."""
    run: str
    listed: bool
    """It bears the label by which lists and watches find it; one that has lost it is gone for them."""
    step: str
    key: str
    attempt: int
    template: str
    queue: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    succeeded: bool
    failed: bool
    reason: str
    """Of the condition Failed: BackoffLimitExceeded, PodFailurePolicy, DeadlineExceeded, ..."""
    message: str
    suspended: bool
    stopping: bool
    ready: int
    failures: int
    ended_pods: int
    succeeded_pods: int
    completions: int
    terminating: int = 0
    """Pods that are being deleted and have not ended."""
    together: int = 1
    """Pods that train together: the step goes on when all of them are there."""
    stopping_since: datetime | None = None
    pods: int = 1
    """Pods that hold their places now; of a Job that has not begun, those that it will have."""
    phase: str = ""
    devices: tuple[tuple[str, int], ...] = ()
    """What device plugins give to one of its pods: names of the resources, and how many of each."""

    @property
    def finished(self) -> bool:
        return self.succeeded or self.failed

    @property
    def all_there(self) -> bool:
        """Every pod that the step needs at one time runs."""
        return self.ready > 0 and self.ready + self.succeeded_pods >= self.together

    @property
    def doubtful(self) -> bool:
        """Pods should run or end and do not; after a while, they are asked for the reason."""
        held = self.suspended and not self.terminating
        return not self.finished and not held and (self.stopping or not self.all_there)

    @property
    def succeeding(self) -> bool:
        """All that it needs has ended well; its controller has yet to record it."""
        return not self.finished and self.succeeded_pods >= self.completions


def job_snapshot(job: Mapping[str, Any]) -> JobSnapshot:
    """What is kept of ``job``."""
    metadata, status, spec = job["metadata"], job.get("status") or {}, job.get("spec") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or [] if c.get("status") == "True"}
    failed = conditions.get("Failed")
    ended = failed or conditions.get("Complete")
    owner = _controller(metadata)
    attempt = labels.get(ATTEMPT, "0")
    # A pod that has just ended is not ready any more and not counted yet; its Job has begun all the same.
    uncounted = {end: len(uids or []) for end, uids in (status.get("uncountedTerminatedPods") or {}).items()}
    succeeded = (status.get("succeeded") or 0) + uncounted.get("succeeded", 0)
    return JobSnapshot(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=str(owner.get("uid", "")),
        run=str(owner.get("name") or labels.get(RUN, "")),
        listed=labels.get(MANAGED_BY) == MANAGER,
        step=labels.get(STEP, ""),
        key=annotations.get(KEY, ""),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        template=annotations.get(TEMPLATE, ""),
        queue=labels.get(QUEUE, ""),
        created_at=parse_stamp(metadata.get("creationTimestamp")) or datetime.fromisoformat("1970-01-01T00:00:00Z"),
        started_at=parse_stamp(status.get("startTime")),
        finished_at=parse_stamp(status.get("completionTime") or (ended or {}).get("lastTransitionTime"))
        if ended
        else None,
        succeeded="Complete" in conditions,
        failed=failed is not None,
        reason=(failed or {}).get("reason") or "",
        message=(failed or {}).get("message") or "",
        suspended=bool(spec.get("suspend")),
        stopping="deletionTimestamp" in metadata,
        ready=status.get("ready") or 0,
        failures=status.get("failed") or 0,
        ended_pods=(status.get("failed") or 0) + uncounted.get("failed", 0) + succeeded,
        succeeded_pods=succeeded,
        completions=spec.get("completions") or 1,
        terminating=status.get("terminating") or 0,
        together=(spec.get("completions") or 1) if labels.get(PHASE) in _DISTRIBUTED else 1,
        stopping_since=parse_stamp(metadata.get("deletionTimestamp")),
        phase=labels.get(PHASE, ""),
        pods=_pods(spec, status, done=ended is not None),
        devices=_devices(((spec.get("template") or {}).get("spec")) or {}),
    )


def _pods(spec: Mapping[str, Any], status: Mapping[str, Any], *, done: bool) -> int:
    if done or spec.get("suspend"):
        return 0 if done else int(status.get("terminating") or 0)
    if not status.get("startTime"):
        return int(spec.get("parallelism") or 1)
    return int(status.get("active") or 0) + int(status.get("terminating") or 0)


def _devices(pod: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Of the containers that run beside each other: native sidecars are init containers that do not end."""
    sidecars = [c for c in pod.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    found: dict[str, int] = {}
    for container in (*sidecars, *(pod.get("containers") or [])):
        for name, quantity in ((container.get("resources") or {}).get("limits") or {}).items():
            if "/" in name:
                found[name] = found.get(name, 0) + int(amount(quantity))
    return tuple(sorted((name, count) for name, count in found.items() if count))


def _controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            return owner  # type: ignore[no-any-return]
    return {}


def attempt_of(
    job: JobSnapshot, evidence: Evidence = NOTHING, template: str = "", gpus_each: int = 0
) -> ObservedAttempt:
    """``job`` as an attempt.

    Args:
        evidence: what its pods show, where they were asked.
        template: digest of the Job as it would be rendered now; empty when that is not known.
        gpus_each: GPUs of one of its pods.
    """
    if evidence.ends:
        evidence = replace(evidence, ends=tuple(_own(end, job.key) for end in evidence.ends))
    log = f"kubectl logs -n {job.namespace} job/{job.name} -c {TRAINER}"
    attempt = ObservedAttempt(
        name=job.name,
        step=job.step,
        key=job.key,
        number=job.attempt,
        state="Pending",
        started_at=job.started_at or job.created_at,
        log=log,
        stopping=job.stopping,
        gpus=gpus_each * job.pods,
        gpus_each=gpus_each,
        tokens=sum(map(_tokens, evidence.ends)),
        spans=tuple(end.span for end in evidence.ends if end.span is not None) if job.finished else (),
    )
    attempt = _observed(attempt, job, evidence)
    blockers = [each for each in (attempt.waiting, evidence.before) if each is not None]
    outdated = _is_outdated(job, template, any(each.stuck for each in blockers))
    return replace(attempt, outdated=True) if outdated else attempt


def _is_outdated(job: JobSnapshot, template: str, stuck: bool) -> bool:
    """Whether it is worth making anew before it has begun.

    In a queue, a Job that is made anew goes to the end. So there it is made anew only when what the queue goes by has
    changed, or when it is stuck: its pods cannot start, or could not when it had a place, or the queue gave it up.
    """
    now, _, place_now = template.partition("-")
    then, _, place_then = job.template.partition("-")
    if not now or not then or now == then:
        return False
    moved = bool(place_then) and place_now != place_then
    return not job.queue or stuck or moved


def _observed(attempt: ObservedAttempt, job: JobSnapshot, evidence: Evidence) -> ObservedAttempt:
    if job.succeeded:
        result = _telling(evidence.ends)
        return replace(attempt, state="Succeeded", exit_code=0, result=result, finished_at=job.finished_at)
    if job.failed:
        return _failed(attempt, job, evidence)
    if job.stopping:
        lost = evidence.waiting if evidence.waiting is not None and evidence.waiting.stuck else None
        return replace(attempt, state="Running" if job.ready or evidence.running else "Pending", waiting=lost)
    # Its queue has taken its place away, or a node is drained: what has run saves, and the next pod waits for its end.
    if (job.terminating or evidence.ending) and not job.ready:
        return replace(attempt, state="Running", waiting=_ending(job, evidence))
    waiting = evidence.waiting
    # Pods that train together wait for each other: as long as one is not there, the step does not go on.
    missing = max(job.ready, evidence.running) + job.succeeded_pods < job.together
    if job.together > 1 and (job.ready or evidence.running) and missing and waiting is not None:
        there = f"{max(job.ready, evidence.running)} of the {job.together} pods of {job.name} run and wait"
        return replace(attempt, waiting=Blocker(waiting.reason, f"{there}; {waiting.message}", waiting.stuck))
    if job.ready or evidence.running or (evidence.ends and waiting is None):
        silent = waiting is not None and waiting.reason == reasons.NODE_LOST and not job.ready
        return replace(attempt, state="Running", waiting=waiting if silent else None)
    # Also a Job that has run before: its queue may take its place away, and give it another one.
    if job.suspended:
        where = f"in queue {job.queue}" if job.queue else "by whoever set its spec.suspend"
        before = f"; before that, {evidence.before.message}" if evidence.before else ""
        blocker = evidence.waiting or Blocker(reasons.QUEUED, "", stuck=False)
        held = f"{job.name} is held {where}" + (f": {blocker.message}" if blocker.message else "")
        return replace(attempt, waiting=replace(blocker, message=held + before))
    # Between two pods it runs; when the next one finds no image or no node, it waits as the first one would.
    if job.ended_pods and waiting is None:
        return replace(attempt, state="Running")
    return replace(attempt, waiting=waiting)


def _ending(job: JobSnapshot, evidence: Evidence) -> Blocker:
    if evidence.waiting is not None and evidence.waiting.reason == reasons.NODE_LOST:
        return evidence.waiting
    why = f"queue {job.queue} has taken its place away" if job.suspended and job.queue else "its pods were asked to end"
    return Blocker(reasons.ENDING, f"{job.name} is ending: {why}; they save, and the step goes on later", stuck=False)


def _own(end: PodEnd, key: str) -> PodEnd:
    """A message may be the end of a log, and a log may hold what a model wrote: only a result of this step is one."""
    return end if end.result is None or end.result.key == key else replace(end, result=None)


def _tokens(end: PodEnd) -> int:
    return (end.result.tokens or 0) if end.result is not None else 0


def _failed(attempt: ObservedAttempt, job: JobSnapshot, evidence: Evidence) -> ObservedAttempt:
    end = _worst(evidence.ends)
    code = end.code if end else None
    if job.reason == "PodFailurePolicy" and (match := _EXIT_CODE.search(job.message)):
        code = int(match[1])  # of the pod that decided, also when it is gone
        end = next((e for e in reversed(evidence.ends) if e.code == code and e.container in OURS), None)
    reason, message = "", job.message
    if end is not None:
        message, reason = end.message or job.message, end.reason
    if job.reason == reasons.DEADLINE_EXCEEDED:
        reason = reasons.DEADLINE_EXCEEDED
        message = f"{job.message or 'it was active longer than allowed'}; raise pods.activeDeadlineSeconds"
        end, code = None, None
    return replace(
        attempt,
        state="Failed",
        exit_code=code,
        culprit="" if end is None or end.container in OURS else end.container or "pod",
        result=end.result if end else None,
        reason=reason,
        message=message,
        failures=max(1, job.failures),
        finished_at=job.finished_at,
    )


def _telling(ends: Sequence[PodEnd]) -> PhaseResult | None:
    """The result of the pod that committed the step; of those that only found it, the newest; else of any."""
    results = [end.result for end in reversed(ends) if end.code == 0 and end.result is not None]
    rank = {"committed": 0, "found": 1}
    return min(results, key=lambda result: rank.get(result.outcome, 2), default=None)


def _worst(ends: Sequence[PodEnd]) -> PodEnd | None:
    """The pod that shows why the Job failed: what no retry cures, then the newest failure that is its own."""
    severity = {int(ExitCode.INPUT): 4, int(ExitCode.DATA): 3, int(ExitCode.TERMINATED): 1}

    def weight(end: PodEnd) -> tuple[int, str]:
        code = verdict_of(end.code, end.result)
        if end.container in OURS and code is not None and code in severity:
            return severity[code], end.at
        return 1 if end.disrupted else 2, end.at

    return max((end for end in ends if end.code != 0), key=weight, default=None)
