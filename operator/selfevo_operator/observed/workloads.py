"""Why Kueue does not admit a Job, in its words: from the Workload if we may read it, else from the Job's Events. Pure.

Conditions and reasons are those of kueue.x-k8s.io (apis/kueue/v1beta2/workload_types.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfevo_contract import reasons
from selfevo_core.attempts import Blocker

_HOPELESS = {"NoMatchingFlavor", "Misconfigured", "ExceedsMaxQuota", "Inadmissible"}
"""Reasons of QuotaReserved that no other Workload's end cures."""
_HELD = re.compile(r"\b(stopp|inactive|hold)", re.IGNORECASE)
"""An administrator has stopped the queue: it waits, and nothing of it is wrong."""
_CREATED = "CreatedWorkload"
Object = Mapping[str, Any]


def why_queued(workload: Object) -> Blocker | None:
    """Why the Job of ``workload`` waits; None when it does not show that."""
    name = workload["metadata"]["name"]
    conditions = {c["type"]: c for c in (workload.get("status") or {}).get("conditions") or []}
    evicted, quota = conditions.get("Evicted") or {}, conditions.get("QuotaReserved") or {}
    if (workload.get("spec") or {}).get("active") is False:
        words = evicted.get("message") or (conditions.get("Requeued") or {}).get("message") or "it does not say why"
        message = (
            f"Kueue has deactivated its Workload {name}: {words}; mend the cause, then change the run's spec (the "
            "Job is made anew) or set the Workload's spec.active to true"
        )
        return Blocker(reasons.DEACTIVATED, message)
    if quota.get("status") == "False" and quota.get("reason") in _HOPELESS:
        words = quota.get("message") or "no message"
        stuck = not _HELD.search(words)
        message = f"Kueue does not admit it ({quota['reason']}): {words}"
        return Blocker(quota["reason"] if stuck else reasons.QUEUED, message, stuck)
    if evicted.get("status") == "True" and quota.get("status") != "True":
        message = f"Kueue has taken its place away ({evicted.get('reason')}): {evicted.get('message')}"
        return Blocker(reasons.QUEUED, message, stuck=False)
    if quota.get("status") == "False" and quota.get("message"):
        return Blocker(reasons.QUEUED, f"Kueue says: {quota['message']}", stuck=False)
    return None


def why_no_workload(workloads: Sequence[Object] | None, events: Iterable[Object]) -> Blocker | None:
    """Why Kueue has made no Workload of a Job; None when it has, or that is not known.

    Args:
        workloads: of the Job, none of them; None when they may not be read.
        events: of the Job.
    """
    kueues = sorted((event for event in events if _is_kueues(event)), key=_at)
    if any(event.get("reason") == _CREATED for event in kueues) and workloads is None:
        return None
    warning = next((event for event in reversed(kueues) if event.get("type") == "Warning"), None)
    if warning is not None:
        return Blocker(reasons.NO_WORKLOAD, f"Kueue makes no Workload of it: {warning.get('message')}")
    if workloads is None:
        return None
    what = "Kueue has made no Workload of it, and no event of the Job says why"
    remedy = "see whether spec.priorityClass is the name of a WorkloadPriorityClass, and whether Kueue runs"
    return Blocker(reasons.NO_WORKLOAD, f"{what}; {remedy}")


def nobody_says(queue: str, namespace: str) -> Blocker:
    """A Job has waited for a minute, and nothing that we may read says why: a full queue, or one that is not there."""
    command = f"kubectl get localqueue {queue} -n {namespace}"
    message = (
        f"for more than a minute, and nothing says why; if the quota is not just taken, see that it exists: {command}"
    )
    return Blocker(reasons.QUEUED, message, stuck=False)


def is_taken(events: Iterable[Object]) -> bool:
    """Kueue has made a Workload of the Job: from there on, only that shows more."""
    return any(_is_kueues(event) and event.get("reason") == _CREATED for event in events)


def _is_kueues(event: Object) -> bool:
    component = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
    return "kueue" in component


def _at(event: Object) -> str:
    times = ((event.get("series") or {}).get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((time for time in times if time), ""))[:19]
