"""Statuses of the run of `harness.runs` as an operator records them, JSON-ready."""

from __future__ import annotations

from typing import Any

from harness.runs import make_run
from selfevo_contract.plan import plan

PLAN = plan(make_run().spec)
JOB = "demo-challenger-train-1-aa-1"


def step(name: str, state: str = "Succeeded", **fields: Any) -> dict[str, Any]:
    of = PLAN.by_name[name]
    times = {"startedAt": "2026-01-01T12:00:00.000Z"}
    if state in ("Succeeded", "Failed"):
        times["finishedAt"] = "2026-01-01T12:01:05.000Z"
    of_it = {"name": name, "phase": of.phase, "iteration": of.iteration, "key": of.key, "state": state, "attempts": 1}
    return {**of_it, **times, **fields}


def attempt(state: str = "Running", name: str = "challenger-train-1", **fields: Any) -> dict[str, Any]:
    return {"name": f"demo-{name}-aa-1", "step": name, "attempt": 1, "state": state, **fields}


def condition(kind: str, reason: str, message: str) -> dict[str, Any]:
    at = "2026-01-01T12:01:05Z"
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}


BASE = {"iteration": 0, "score": 0.478, "modelUri": "file:///models/base"}
EVALUATED = step("evaluate-0", metrics={"mean": 0.478, "greedy": 0.53})
RUNNING = {
    "phase": "Running",
    "iteration": 1,
    "best": BASE,
    "modelUri": "file:///models/base",
    "iterations": [BASE],
    "steps": [EVALUATED, step("challenger-train-1", "Running")],
    "attempts": [attempt()],
    "conditions": [condition("Reconciling", "StepsRunning", "1 of 9 steps done")],
}
FAILED = {
    "phase": "Failed",
    "steps": [EVALUATED, step("challenger-train-1", "Failed")],
    "attempts": [attempt("Failed", exitCode=4, message="all \x1b[2J alike", reason="BadData")],
    "conditions": [
        condition("Failed", "BadData", "challenger-train-1: all \x1b[2J alike"),
        condition("Stalled", "BadData", "challenger-train-1: all \x1b[2J alike"),
    ],
}
SUCCEEDED = {"phase": "Succeeded", "best": BASE, "iterations": [BASE], "steps": [step(name) for name in PLAN.by_name]}
