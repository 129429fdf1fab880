"""Kubernetes objects as an API server gives them, small."""

from __future__ import annotations

import json
from typing import Any

RUN_UID = "11111111-0000-0000-0000-000000000000"
KEY = "a" * 64


def run_object(version: int = 1, uid: str = RUN_UID, name: str = "demo", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "lab", "uid": uid, "resourceVersion": str(version), "generation": 1}
    return {"metadata": metadata, "spec": {"seed": 1}, **fields}


def job_object(
    version: int = 1,
    uid: str = "j1",
    name: str = "demo-evaluate-0-aaaaaaaa-1",
    owner: str | None = RUN_UID,
    status: dict[str, Any] | None = None,
    completions: int = 1,
    **metadata: Any,
) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True, "kind": "SelfEvolutionRun"}] if owner else []
    return {
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": owners,
            "labels": {
                "app.kubernetes.io/managed-by": "selfevo-operator",
                "selfevo.dev/run": "demo",
                "selfevo.dev/step": "evaluate-0",
                "selfevo.dev/attempt": "1",
            },
            "annotations": {"selfevo.dev/key": KEY, "selfevo.dev/template": "t1"},
            **metadata,
        },
        "spec": {"completions": completions},
        "status": status or {},
    }


def ended(kind: str, reason: str = "", message: str = "", **status: Any) -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {
        "startTime": "2026-01-01T00:00:01Z",
        "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:05:00Z"}],
        **status,
    }


def result(outcome: str = "committed", **fields: Any) -> str:
    return json.dumps({"phase": "evaluate", "key": KEY, "outcome": outcome, **fields})


def pod(code: int | None = None, message: str = "", reason: str = "", at: str = "1", **status: Any) -> dict[str, Any]:
    state = {}
    if code is not None:
        terminated = {"exitCode": code, "message": message, "reason": reason, "finishedAt": f"2026-01-01T00:0{at}:00Z"}
        state = {"containerStatuses": [{"name": "trainer", "state": {"terminated": terminated}}]}
    return {"metadata": {"name": "p"}, "status": {**state, **status}}
