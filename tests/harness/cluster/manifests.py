"""Pods, Jobs and ConfigMaps for tests of the harness, and what their statuses say."""

from __future__ import annotations

import json
from typing import Any


def pod(name: str, **spec: object) -> dict[str, Any]:
    """A pod that PodSecurity `restricted` admits."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "trainer", "image": "selfevo.test/python:1", "securityContext": security}
    base = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**base, **spec}}


def job(name: str, *, key: str = "", shards: int = 0, phase: str = "solver-train", **spec: object) -> dict[str, Any]:
    """A Job as the operator makes them, as far as the harness reads it. The step is called after it."""
    about = {"run": "test", "step": name, "phase": phase, "iteration": "2"}
    labels = {f"selfevo.dev/{label}": value for label, value in about.items()}
    metadata = {"labels": labels, "annotations": {"selfevo.dev/key": key or name}}
    template = {"metadata": metadata, "spec": pod(name)["spec"]}
    if shards:
        config = json.dumps({"inputs": {"shards": shards}})
        template["spec"]["containers"][0]["env"] = [{"name": "SELFEVO_PHASE_CONFIG", "value": config}]
        spec = {"completionMode": "Indexed", "completions": shards, "parallelism": shards, **spec}
    failures = [
        {"action": "FailJob", "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [2, 4]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
    ]
    base = {"backoffLimit": 2, "podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": failures}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **metadata},
        "spec": {**base, "template": template, **spec},
    }


def ended(found: dict[str, Any] | None) -> bool:
    return found is not None and bool(condition(found, "Complete") or condition(found, "Failed"))


def condition(of: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((c for c in of["status"].get("conditions", []) if c["type"] == kind and c["status"] == "True"), None)


def trainer(pod: dict[str, Any]) -> dict[str, Any]:
    """The state of its container."""
    (status,) = pod["status"]["containerStatuses"]
    ((kind, state),) = status["state"].items()
    return {"is": kind, **state}


def config_map(name: str, namespace: str | None = None) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
