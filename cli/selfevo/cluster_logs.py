"""`selfevo logs` in a cluster: what the trainers of one attempt said, from their pods, for as long as these exist."""

from __future__ import annotations

import sys
from typing import Any

from selfevo.cluster import CONTAINER, Resource, connect
from selfevo.cluster_errors import NotFound
from selfevo.target import ClusterRun
from selfevo.text import printable
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.status import AttemptStatus

INDEX = "batch.kubernetes.io/job-completion-index"


def show_logs(target: ClusterRun, step: str | None, *, attempt: int | None, follow: bool) -> None:
    """Print the log of the newest attempt at ``step`` (of the run, when not given), shards and nodes with their number.

    Raises:
        InputError: there is no such step or attempt, or its pods are gone.
    """
    cluster = connect(target.access)
    resource = cluster.run(target.name)
    chosen = choose(resource, step, attempt)
    if follow:
        from selfevo.cluster_follow import follow_logs

        follow_logs(cluster, resource, chosen)
        return
    pods = newest(cluster.pods(chosen.name))
    started = [pod for pod in pods if state(pod) != "Waiting"]
    if not started:
        raise InputError(missing(chosen, pods), reason="NoLog")
    for pod in started:
        front = prefix(resource, chosen, pod)
        try:
            for line, _ in cluster.log(pod["metadata"]["name"]):
                print_line(front, line)
        except NotFound:
            raise InputError(missing(chosen, []), reason="NoLog") from None


def choose(resource: Resource, step: str | None, attempt: int | None) -> AttemptStatus:
    """The newest attempt that is asked for. Pure."""
    steps = plan(resource.run.spec).by_name if resource.run else {s.name: s for s in resource.status.steps}
    if step is not None and step not in steps:
        raise InputError(f"{step!r} is no step of the run; choose one of {', '.join(steps) or 'none: it has none yet'}")
    known = [a for a in resource.status.attempts if step in (None, a.step) and attempt in (None, a.attempt)]
    if known:
        live = [a for a in known if a.state in ("Running", "Pending")]
        return (live or known)[-1]
    what = (step or "the run") + (f", attempt {attempt}" if attempt is not None else "")
    record = next((s for s in resource.status.steps if s.name == step), None)
    if record is not None and record.reused:
        raise InputError(f"{what} has no log: its output was in the store already", reason="NoLog")
    if record is not None and record.attempts:
        raise InputError(f"{what} is not among the attempts that the run's status still names; its pod is gone")
    raise InputError(f"{what} has not begun yet, so there is no log; name another step or wait", reason="NoLog")


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
    return f"the pod of {what} is gone, and its log with it; look where the cluster collects its logs{kept}"


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
    if number is None or (sharded and resource.run is not None and resource.run.spec.rollout.shards == 1):
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
