"""Jobs and their pods, as the API server gives them, as reconcile sees them. Pure.

A Job is kept as a `JobSight`, a few hundred bytes of what its life depends on: of its thousands of lines the operator
wrote most itself. What its pods say (`Evidence`) is read when it is needed: at its end, and when it does not start.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from selfevo_contract.errors import ExitCode
from selfevo_contract.phases import PhaseResult
from selfevo_operator import reasons
from selfevo_operator.children import Child, Hindrance, parse_stamp
from selfevo_operator.labels import ATTEMPT, KEY, QUEUE, RUN, STEP, TEMPLATE, TRAINER

# Reasons of waiting containers that time alone does not cure.
_STUCK_WAITING = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")


@dataclass(frozen=True, slots=True)
class JobSight:
    """What is kept of a Job."""

    name: str
    namespace: str
    uid: str
    version: int
    owner: str
    """UID of the run that controls it; empty when none does."""
    run: str
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

    @property
    def finished(self) -> bool:
        return self.succeeded or self.failed

    @property
    def succeeding(self) -> bool:
        """All that it needs has ended well; its controller has yet to say so."""
        return not self.finished and self.succeeded_pods >= self.completions


@dataclass(frozen=True, slots=True)
class PodEnd:
    """How the main container of one pod ended."""

    code: int
    at: str
    reason: str
    message: str
    result: PhaseResult | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the pods of a Job say."""

    ends: tuple[PodEnd, ...] = ()
    waiting: Hindrance | None = None
    running: bool = False


NOTHING = Evidence()


def job_sight(job: Mapping[str, Any]) -> JobSight:
    """What is kept of ``job``."""
    metadata, status, spec = job["metadata"], job.get("status") or {}, job.get("spec") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or [] if c.get("status") == "True"}
    failed = conditions.get("Failed")
    ended = failed or conditions.get("Complete")
    attempt = labels.get(ATTEMPT, "0")
    # A pod that has just ended is not ready any more and not counted yet; its Job has begun all the same.
    uncounted = {end: len(uids or []) for end, uids in (status.get("uncountedTerminatedPods") or {}).items()}
    succeeded = (status.get("succeeded") or 0) + uncounted.get("succeeded", 0)
    return JobSight(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=_controller(metadata),
        run=labels.get(RUN, ""),
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
    )


def _controller(metadata: Mapping[str, Any]) -> str:
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def evidence_of(pods: Iterable[Mapping[str, Any]]) -> Evidence:
    """What ``pods`` say of their Job."""
    ends, waiting, running = [], [], False
    for pod in pods:
        status = pod.get("status") or {}
        container = next((c for c in status.get("containerStatuses") or [] if c["name"] == TRAINER), None)
        state = (container or {}).get("state") or {}
        if "terminated" in state:
            ends.append(_pod_end(status, state["terminated"]))
        elif status.get("phase") == "Failed":  # evicted before its container began, or its node is gone
            ends.append(PodEnd(137, "", status.get("reason") or "", status.get("message") or "", None))
        elif "running" in state:
            running = True
        elif (hindrance := _waiting(pod, status)) is not None:
            waiting.append(hindrance)
    ends.sort(key=lambda end: end.at)
    first = next((hindrance for hindrance in waiting if hindrance.stuck), waiting[0] if waiting else None)
    return Evidence(tuple(ends), first, running)


def _pod_end(status: Mapping[str, Any], terminated: Mapping[str, Any]) -> PodEnd:
    said = terminated.get("message") or ""
    result = None
    # FallbackToLogsOnError may put the end of a log here: then it is words for people.
    with contextlib.suppress(ValidationError):
        result = PhaseResult.model_validate_json(said)
    reason = terminated.get("reason") or ""
    disruption = next((c for c in status.get("conditions") or [] if c["type"] == "DisruptionTarget"), None)
    if status.get("reason") == "Evicted" or (disruption and disruption.get("status") == "True"):
        reason = (disruption or {}).get("reason") or "Evicted"
        said = (disruption or {}).get("message") or status.get("message") or said
    text = "" if result is not None else _last_line(said)
    return PodEnd(terminated.get("exitCode", 1), terminated.get("finishedAt") or "", reason, text, result)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith('{"event":')]
    return lines[-1][:500] if lines else ""


def _waiting(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Hindrance | None:
    name = pod["metadata"]["name"]
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        state = (container.get("state") or {}).get("waiting") or {}
        if state.get("reason") in _STUCK_WAITING:
            what = f"container {container['name']} of pod {name} waits: {state['reason']}"
            return Hindrance(state["reason"], ": ".join(filter(None, (what, state.get("message")))))
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = f"pod {name} finds no node: {condition.get('message') or 'no reason given'}"
            return Hindrance(reasons.UNSCHEDULABLE, message, stuck=False)
    return None


def child_of(job: JobSight, evidence: Evidence = NOTHING, template: str = "") -> Child:
    """``job`` as a child.

    Args:
        evidence: what its pods say, where they were asked.
        template: digest of the Job as it would be rendered now; empty when that is not known.
    """
    log = f"kubectl logs -n {job.namespace} job/{job.name} -c {TRAINER}"
    child = Child(
        name=job.name,
        step=job.step,
        key=job.key,
        attempt=job.attempt,
        state="Pending",
        started_at=job.started_at or job.created_at,
        log=log,
        stopping=job.stopping,
        outdated=bool(template) and bool(job.template) and template != job.template,
    )
    evidence = replace(evidence, ends=tuple(_own(end, job.key) for end in evidence.ends))
    if job.succeeded:
        result = _telling(evidence.ends)
        return replace(child, state="Succeeded", exit_code=0, result=result, finished_at=job.finished_at)
    if job.failed:
        return _failed(child, job, evidence)
    if job.ready or evidence.running or (evidence.ends and evidence.waiting is None):
        return replace(child, state="Running")
    # Also a Job that has run before: its queue may take its place away, and give it another one.
    if job.suspended:
        where = f"in queue {job.queue}" if job.queue else "by whoever set its spec.suspend"
        return replace(child, waiting=Hindrance(reasons.QUEUED, f"{job.name} is held {where}", stuck=False))
    # Between two pods it runs; when the next one finds no image or no node, it waits as the first one would.
    if job.ended_pods and evidence.waiting is None:
        return replace(child, state="Running")
    return replace(child, waiting=evidence.waiting)


def _own(end: PodEnd, key: str) -> PodEnd:
    """A message may be the end of a log, and a log may hold what a model wrote: only a result of this step is one."""
    return end if end.result is None or end.result.key == key else replace(end, result=None)


def _failed(child: Child, job: JobSight, evidence: Evidence) -> Child:
    end = _worst(evidence.ends)
    code = end.code if end else None
    if job.reason == "PodFailurePolicy" and (match := _EXIT_CODE.search(job.message)):
        code = int(match[1])  # of the pod that decided, also when it is gone
        end = next((e for e in reversed(evidence.ends) if e.code == code), None)
    reason, message = "", job.message
    if end is not None:
        message = end.message or job.message
        reason = reasons.OUT_OF_MEMORY if end.reason == reasons.OUT_OF_MEMORY else ""
    if job.reason == reasons.DEADLINE_EXCEEDED:
        reason = reasons.DEADLINE_EXCEEDED
        message = f"{job.message or 'it was active longer than allowed'}; raise pods.activeDeadlineSeconds"
        end, code = None, None
    return replace(
        child,
        state="Failed",
        exit_code=code,
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
    """The pod that tells why the Job failed: what no retry cures, then the newest failure that is its own."""
    severity = {int(ExitCode.INPUT): 4, int(ExitCode.DATA): 3, int(ExitCode.TERMINATED): 1}
    failed = [end for end in ends if end.code != 0]
    return max(failed, key=lambda end: (severity.get(end.code, 2), end.at), default=None)
