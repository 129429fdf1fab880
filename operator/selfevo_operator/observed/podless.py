"""A Job that has no pod: what kept the Job controller from making one, in the words of its own Event. Pure.

A quota, PodSecurity, a LimitRange, a ServiceAccount, a PriorityClass or a RuntimeClass that is not there: the API
server refuses the pod, the Job controller reports it in an Event of the Job (FailedCreate) and tries again for ever,
and nothing in the Job's status shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from selfevo_contract import reasons
from selfevo_core.attempts import Blocker

PATIENCE_S = 30.0
"""A Job that is not suspended and has had no pod for so long cannot get one, or its controller has much to do."""
SILENCE_S = 300.0
"""Without any Event with the reason: after so long it is no matter of load."""
RECENT_S = 120.0
"""The Job controller tries again, and reports it, once a minute at least."""
REASON = "FailedCreate"


def why_no_pod(job: str, events: Iterable[Mapping[str, Any]], waited_s: float, since: str = "") -> Blocker | None:
    """Why the Job ``job`` has no pod; None while that is nothing unusual.

    Args:
        events: of the Job, in any order.
        waited_s: seconds since it was started, or since its last pod ended.
        since: RFC 3339 time in UTC; events whose last time is before it are ignored.
    """
    if waited_s < PATIENCE_S:
        return None
    recent = [event for event in events if event.get("reason") == REASON and _at(event) >= since]
    if recent:
        words = _words(job, max(recent, key=_at).get("message") or "no reason given")
        return Blocker(reasons.PODS_NOT_CREATED, f"no pod of {job} can be created: {words}")
    if since:  # it has had pods: between two of them its controller waits for up to six minutes
        return None
    why = f"no event that we can read says why; run kubectl describe job {job}"
    message = f"{job} has had no pod for {PATIENCE_S:.0f} s, and {why}"
    return Blocker(reasons.PODS_NOT_CREATED, message, stuck=waited_s >= SILENCE_S)


def has_not_ended(pod: Mapping[str, Any]) -> bool:
    """Whether the Job controller makes no other one in its place yet."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _at(event: Mapping[str, Any]) -> str:
    """Its last time, to the second, so that it compares as text."""
    series = event.get("series") or {}
    metadata = event.get("metadata") or {}
    moments = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    found = next((moment for moment in moments if moment), metadata.get("creationTimestamp") or "")
    return str(found)[:19]


def _words(job: str, message: str) -> str:
    """Every try has another pod's name in it: without that, the sentence stays the same, and is written once."""
    message = message.removeprefix("(combined from similar events): ").removeprefix("Error creating: ")
    return re.sub(rf"{re.escape(job)}-[a-z0-9-]+", f"{job}-…", message)
