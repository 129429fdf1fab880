"""The evidence of a Job's pods: how each one ended, or why it does not run. Pure.

A pod has more containers than the trainer: ours beside a served model, and those that a webhook puts there (a vault
agent, a mesh's proxy, a log shipper). The container that failed is named with its own code and words, and a pod that
the kubelet refused or evicted has no exit code at all: none is made up, because 2 and 4 end a run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.process import PhaseResult
from selfevo_core.attempts import Blocker, parse_stamp
from selfevo_operator.manifests import server_sidecar
from selfevo_operator.manifests.labels import TRAINER

OURS = frozenset({TRAINER, server_sidecar.FETCH})
"""Containers whose exit codes keep to our contract."""
_STARTING = {"", "ContainerCreating", "PodInitializing"}
"""Reasons of waiting containers that time alone cures. Every other one wants a person, also one that is yet to come."""
_PLAIN_ENDS = {"", "Error", "Completed", reasons.DEADLINE_EXCEEDED}
"""Reasons of terminated containers that mean no more than the exit code."""
_NO_END = "ContainerStatusUnknown"
"""The kubelet found no container and writes 137, which nobody ended with."""
_KILL_MARGIN = timedelta(seconds=30)
"""A kubelet that lives has ended a pod by then, counted from the end of its grace."""
_NOT_IN_A_REASON = re.compile(r"[^A-Za-z0-9_,:]")
_TEXT_LIMIT = 500
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PodEnd:
    """How one pod ended."""

    code: int | None
    """Exit code of the container that decided; None where there is none: refused, evicted before it began."""
    at: str
    reason: str
    message: str
    result: PhaseResult | None
    container: str = TRAINER
    """The container that decided, or empty: the pod as a whole."""
    disrupted: bool = False
    """Taken away from outside: its Job does not count it."""
    span: tuple[datetime, datetime] | None = None
    """From when to when its trainer ran; None where it did not, or where that is not known."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the pods of a Job show."""

    ends: tuple[PodEnd, ...] = ()
    waiting: Blocker | None = None
    """Of the pods that do not run, why; what wants a person comes first."""
    running: int = 0
    """Pods whose trainer runs."""
    ending: int = 0
    """Pods that are being deleted and have not ended."""
    before: Blocker | None = None
    """Why the pods did not run, before the queue took their place away and they went."""


NOTHING = Evidence()


def evidence_of(pods: Iterable[Object], now: datetime | None = None) -> Evidence:
    """What ``pods`` show of their Job.

    Args:
        now: by which a pod that is being deleted counts as lost with its node; without it, none does.
    """
    ends: list[PodEnd] = []
    waiting: list[Blocker] = []
    running = ending = 0
    for pod in pods:
        status = pod.get("status") or {}
        end = _end(pod, status)
        if end is not None:
            ends.append(replace(end, span=_span(status)))
        elif "deletionTimestamp" in pod["metadata"]:
            ending += 1
            waiting.append(_ending(pod, now))
        elif "running" in _trainer_state(status):
            running += 1
            if _node_is_silent(status):
                waiting.append(_silent(pod))
        elif (blocker := _waiting(pod, status)) is not None:
            waiting.append(blocker)
    ends.sort(key=lambda end: end.at)
    first = next((blocker for blocker in waiting if blocker.stuck), waiting[0] if waiting else None)
    return Evidence(tuple(ends), first, running, ending)


# --- pods that have ended ---------------------------------------------------------------------------------------------


def _trainer_state(status: Object) -> Object:
    container = next((c for c in status.get("containerStatuses") or [] if c["name"] == TRAINER), None)
    return (container or {}).get("state") or {}


def _end(pod: Object, status: Object) -> PodEnd | None:
    """How the pod ended; None while it has not.

    With restartPolicy Never, a pod fails with a container that ended badly or by the kubelet's word; the trainer's own
    end comes first, since the others may have been torn down after it.
    """
    trainer = _trainer_state(status).get("terminated")
    failed = status.get("phase") == "Failed"
    if trainer is None and not failed:
        return None
    if trainer is not None and (not failed or trainer.get("exitCode", 1) != 0):
        return _container_end(status, TRAINER, trainer)
    culprit = None if trainer is None and _is_taken_away(status) else _culprit(pod, status)
    if culprit is not None:
        return _container_end(status, *culprit)
    if trainer is not None and not status.get("reason"):
        return _container_end(status, TRAINER, trainer)
    reason, why = _taken_away(status)
    reason = reason or status.get("reason") or "PodFailed"
    name, why = pod["metadata"]["name"], why or status.get("message") or "no reason given"
    text = f"pod {name} failed without an end of its container: {reason}: {why}"[:_TEXT_LIMIT]
    return PodEnd(None, "", _as_reason(reason), text, None, "", _is_taken_away(status))


def _span(status: Object) -> tuple[datetime, datetime] | None:
    terminated = _trainer_state(status).get("terminated") or {}
    begin, end = parse_stamp(terminated.get("startedAt")), parse_stamp(terminated.get("finishedAt"))
    return None if begin is None or end is None or terminated.get("reason") == _NO_END else (begin, max(begin, end))


def _culprit(pod: Object, status: Object) -> tuple[str, Object] | None:
    """The first container beside the trainer that ended badly. What a native sidecar ends with fails no pod."""
    specified = (pod.get("spec") or {}).get("initContainers") or []
    sidecars = {container["name"] for container in specified if container.get("restartPolicy") == "Always"}
    found: list[tuple[str, Object]] = []
    for container in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        terminated = (container.get("state") or {}).get("terminated")
        if terminated is None or terminated.get("exitCode", 1) == 0:
            continue
        if container["name"] not in sidecars and container["name"] != TRAINER:
            found.append((container["name"], terminated))
    return min(found, key=lambda each: each[1].get("finishedAt") or "", default=None)


def _container_end(status: Object, name: str, terminated: Object) -> PodEnd:
    message = terminated.get("message") or ""
    result = None
    if name in OURS:
        # FallbackToLogsOnError may put the end of a log here: then it is words for people.
        with contextlib.suppress(ValidationError):
            result = PhaseResult.model_validate_json(message)
    reason, code = terminated.get("reason") or "", terminated.get("exitCode", 1)
    if reason == _NO_END:
        code = None
    taken, why = _taken_away(status)
    if taken and name == TRAINER:
        reason, message = taken, why or message
    text = "" if result is not None else _last_line(message)
    if name not in OURS:
        code_text = "without an exit code" if code is None else f"with exit code {code}"
        kind = "init container" if _is_init(status, name) else "container"
        named = f" ({reason})" if reason not in _PLAIN_ENDS else ""
        text = f"{kind} {name} ended {code_text}{named}" + (f": {text}" if text else "")
        reason = reason if reason not in _PLAIN_ENDS else reasons.CONTAINER_FAILED
    reason = "" if reason in _PLAIN_ENDS else _as_reason(reason)
    at = terminated.get("finishedAt") or ""
    return PodEnd(code, at, reason, text[: 2 * _TEXT_LIMIT], result, name, _is_taken_away(status))


def _is_init(status: Object, name: str) -> bool:
    return any(container["name"] == name for container in status.get("initContainerStatuses") or [])


def _disruption(status: Object) -> Object | None:
    found = (c for c in status.get("conditions") or [] if c["type"] == "DisruptionTarget" and c.get("status") == "True")
    return next(found, None)


def _is_taken_away(status: Object) -> bool:
    return _disruption(status) is not None


def _taken_away(status: Object) -> tuple[str, str]:
    """Reason and words of what took the pod away; empty when nothing did."""
    disruption = _disruption(status)
    if status.get("reason") == "Evicted":
        return "Evicted", (disruption or {}).get("message") or status.get("message") or ""
    if disruption is not None:
        return disruption.get("reason") or "Evicted", disruption.get("message") or status.get("message") or ""
    return "", ""


def _as_reason(text: str) -> str:
    """As conditions take it: ``OutOfnvidia.com/gpu`` -> ``OutOfnvidia_com_gpu``."""
    return _NOT_IN_A_REASON.sub("_", text)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith('{"event":')]
    return lines[-1][:_TEXT_LIMIT] if lines else ""


# --- pods that do not run ---------------------------------------------------------------------------------------------


def _waiting(pod: Object, status: Object) -> Blocker | None:
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        state = (container.get("state") or {}).get("waiting") or {}
        if (reason := state.get("reason") or "") not in _STARTING:
            words = (
                f"container {container['name']} of pod {name} waits: {reason}",
                state.get("message"),
                _before(container),
            )
            return Blocker(_as_reason(reason), ": ".join(filter(None, words)))
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("status") != "True" and condition.get("reason"):
            return _unscheduled(name, spec, condition)
    if not spec.get("nodeName"):
        if "schedulerName" not in spec:
            return None
        message = f"pod {name} has no node, and no scheduler reports why; is there one called {spec['schedulerName']}?"
        return Blocker(reasons.UNSCHEDULABLE, message, stuck=False)
    working = next((c["name"] for c in containers if "running" in (c.get("state") or {}) and c["name"] != TRAINER), "")
    doing = f"init container {working} runs" if working else "its image is being fetched or its volumes are mounted"
    message = f"pod {name} is on node {spec['nodeName']} and has not started yet: {doing}"
    return Blocker(reasons.POD_STARTING, message, stuck=False)


def _before(container: Object) -> str:
    """How a container that waits to be restarted ended before."""
    ended = (container.get("lastState") or {}).get("terminated")
    if not ended:
        return ""
    words = (f"before, it ended with exit code {ended.get('exitCode')}", _last_line(ended.get("message") or ""))
    return ": ".join(filter(None, words))


def _unscheduled(name: str, spec: Object, condition: Object) -> Blocker:
    words = condition.get("message") or "no reason given"
    if condition["reason"] == "SchedulingGated":
        gates = ", ".join(gate["name"] for gate in spec.get("schedulingGates") or [])
        return Blocker(
            reasons.QUEUED, f"pod {name} is held by scheduling gates{gates and f' ({gates})'}: {words}", stuck=False
        )
    why = "" if condition["reason"] == reasons.UNSCHEDULABLE else f"{condition['reason']}: "
    return Blocker(reasons.UNSCHEDULABLE, f"pod {name} finds no node: {why}{words}", stuck=False)


def _ending(pod: Object, now: datetime | None) -> Blocker:
    """Its deletionTimestamp is when its grace ends: until then it saves; after it no kubelet has reported its end."""
    metadata, node = pod["metadata"], (pod.get("spec") or {}).get("nodeName") or "its node"
    until = parse_stamp(metadata["deletionTimestamp"])
    if now is None or until is None or now <= until + _KILL_MARGIN:
        message = (
            f"pod {metadata['name']} is ending: it was asked to, and has until {metadata['deletionTimestamp']} to save"
        )
        return Blocker(reasons.ENDING, message, stuck=False)
    message = (
        f"pod {metadata['name']} had to end by {metadata['deletionTimestamp']}, and node {node} has not reported "
        "its end: the node is lost or cut off, and the next pod waits; delete the Node object when the machine is off"
    )
    return Blocker(reasons.NODE_LOST, message)


def _node_is_silent(status: Object) -> bool:
    """Its node says that every container is ready, and the pod is marked unready: so the node is not heard of any more.

    The kubelet writes both, and in agreement; the node controller writes the second one alone.
    """
    ready: Object = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
    if ready.get("status") != "False" or ready.get("reason"):
        return False
    containers = status.get("containerStatuses") or []
    return all(container.get("ready") for container in containers)


def _silent(pod: Object) -> Blocker:
    node = (pod.get("spec") or {}).get("nodeName") or "its node"
    message = (
        f"node {node} of pod {pod['metadata']['name']} is not heard of; unless it comes back, the pod is evicted "
        "when its toleration is over (five minutes where nothing else is set)"
    )
    return Blocker(reasons.NODE_LOST, message, stuck=False)
