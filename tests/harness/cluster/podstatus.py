"""Pod statuses as a kubelet writes them, for strategic merge patches. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

TRAINER = "trainer"
Status = dict[str, Any]


def now(offset_s: float = 0.0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset_s))


def _condition(kind: str, value: str, reason: str = "", message: str = "") -> Status:
    words = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": value, "lastTransitionTime": now(), **words}


def _containers(pod: Mapping[str, Any], state: Status, others: Status | None = None, ready: bool = False) -> Status:
    """Every container's status: ``state`` for the trainer, ``others`` for the rest."""

    def status(container: Mapping[str, Any], main: bool) -> Status:
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "restartCount": 0,
            "ready": ready,
            "started": ready,
            "state": state if main or others is None else others,
        }

    containers = pod["spec"]["containers"]
    named = any(c["name"] == TRAINER for c in containers)
    initial = pod["spec"].get("initContainers") or []
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}}
    return {
        "containerStatuses": [
            status(c, c["name"] == TRAINER if named else position == 0) for position, c in enumerate(containers)
        ],
        "initContainerStatuses": [
            {**status(c, False), "state": (others or state) if c.get("restartPolicy") == "Always" else done}
            for c in initial
        ],
    }


def unschedulable(message: str) -> Status:
    return {"phase": "Pending", "conditions": [_condition("PodScheduled", "False", "Unschedulable", message)]}


def waiting(pod: Mapping[str, Any], reason: str) -> Status:
    state = {"waiting": {"reason": reason, "message": f"failed to pull the image: {reason}"}}
    conditions = [
        _condition("PodScheduled", "True"),
        _condition("Initialized", "True"),
        _condition("Ready", "False", "ContainersNotReady", "containers with unready status: [trainer]"),
    ]
    return {"phase": "Pending", "startTime": now(), "conditions": conditions, **_containers(pod, state)}


def running(pod: Mapping[str, Any], address: str) -> Status:
    conditions = [_condition(kind, "True") for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
    addresses = {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1"}
    containers = _containers(pod, {"running": {"startedAt": now()}}, ready=True)
    return {"phase": "Running", "startTime": now(), "conditions": conditions, **addresses, **containers}


def ended(
    pod: Mapping[str, Any], exit_code: int, started: str = "", finished: str = "", message: str = "", reason: str = ""
) -> Status:
    done = exit_code == 0
    terminated = {
        "exitCode": exit_code,
        "reason": reason or ("Completed" if done else "Error"),
        "startedAt": started or now(),
        "finishedAt": finished or now(),
        "containerID": f"standin://{pod['metadata']['uid']}",
    }
    if message:
        terminated["message"] = message
    others = {**terminated, "exitCode": 0, "reason": "Completed"}
    others.pop("message", None)
    why = "PodCompleted" if done else "PodFailed"
    conditions = [_condition(kind, "False", why) for kind in ("ContainersReady", "Ready")]
    states = _containers(pod, {"terminated": terminated}, {"terminated": others})
    return {"phase": "Succeeded" if done else "Failed", "conditions": conditions, **states}
