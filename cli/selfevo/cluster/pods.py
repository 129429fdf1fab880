"""The pods of one attempt: which there are, what each waits for, and how a line of its log is printed."""

from __future__ import annotations

import sys
from typing import Any

from selfevo.cluster.client import CONTAINER, Resource
from selfevo.text import printable
from selfevo_contract.process import part_of
from selfevo_contract.status import AttemptStatus

INDEX = "batch.kubernetes.io/job-completion-index"


def missing(attempt: AttemptStatus, pods: list[dict[str, Any]]) -> str:
    """Why there is no log, in one sentence. Pure."""
    what = f"{attempt.step}, attempt {attempt.attempt}"
    if pods:
        return (
            f"the pod of {what} has not started yet ({printable(waiting(pods[-1]))}); try again, or follow it with -f"
        )
    if attempt.state in ("Running", "Pending"):
        why = f" ({printable(attempt.message)})" if attempt.message else ""
        return f"{what} has no pod yet{why}; try again, or follow it with -f"
    # A hint that asks for the pod again would help nobody.
    kept = f" ({attempt.log})" if attempt.log and not attempt.log.startswith("kubectl") else ""
    return f"the pod of {what} is gone, and its log with it; search where the cluster collects its logs{kept}"


def newest(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest pod of each index, in order: one that was evicted has had a successor. Pure."""
    by_index = {index(pod): pod for pod in pods}
    return [by_index[number] for number in sorted(by_index, key=lambda number: -1 if number is None else number)]


def index(pod: dict[str, Any]) -> int | None:
    """Its number in an indexed Job."""
    metadata = pod["metadata"]
    found = (metadata.get("labels") or {}).get(INDEX) or (metadata.get("annotations") or {}).get(INDEX)
    return int(found) if found is not None else None


def prefix(resource: Resource, attempt: AttemptStatus, pod: dict[str, Any]) -> str:
    """``shard 3 | `` or ``node 1 | ``; nothing where there is but one pod. Pure."""
    number = index(pod)
    record = next((s for s in resource.status.steps if s.name == attempt.step), None)
    sharded = record is not None and record.type is not None and record.type.sharded
    part = part_of(resource.run.spec, record.phase) if sharded and record is not None and resource.run else None
    if number is None or getattr(part, "all_shards", getattr(part, "shards", 2)) == 1:
        return ""
    return f"{'shard' if sharded else 'node'} {number} | "


def state(pod: dict[str, Any]) -> str:
    """Waiting, Running or Ended: of its trainer. Pure."""
    container = _trainer(pod)
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        # A pod may fail without its container ever having begun.
        begun = container is None or "terminated" in (container.get("state") or {})
        return "Ended" if begun else "Waiting"
    if container is None or "waiting" in (container.get("state") or {}) or not container.get("state"):
        return "Waiting"
    return "Running"


def waiting(pod: dict[str, Any]) -> str:
    """Why a pod does not run. Pure."""
    container = _trainer(pod)
    blocked = ((container or {}).get("state") or {}).get("waiting") or {}
    if blocked.get("reason"):
        return ": ".join(part for part in (blocked["reason"], blocked.get("message")) if part)
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
    return (pod.get("status") or {}).get("reason") or "Pending"


def _trainer(pod: dict[str, Any]) -> dict[str, Any] | None:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return next((status for status in statuses if status.get("name") == CONTAINER), None)


def print_line(front: str, line: str) -> None:
    """One line of a log."""
    # A terminal obeys escape sequences, and a log may quote what a model wrote.
    text = printable(line) if sys.stdout.isatty() else line
    print(f"{front}{text}", flush=True)
