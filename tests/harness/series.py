"""A run's status as it stands while steps run, and what an operator's /metrics says of runs."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

RUNNING = {"type": "Ready", "status": "False", "reason": "StepsRunning"}
STATUS: dict[str, Any] = {
    "phase": "Running",
    "iteration": 2,
    "startedAt": "2026-01-01T00:00:00.000Z",
    "conditions": [RUNNING],
    "usage": {"gpuHours": 1.5, "tokens": 2_000_000},
    "iterations": [
        {"iteration": 0, "score": 0.478, "metrics": {"evaluation/greedy": 0.53}},
        {"iteration": 1, "score": 0.597, "metrics": {"rollout/in_band_share": 0.5, "rollout/label_accuracy": 0.91}},
    ],
    "steps": [
        {"name": "evaluate-0", "state": "Succeeded"},
        {
            "name": "solver-train-2",
            "state": "Running",
            "progress": {"percent": 40, "tokensPerSecond": 812.5, "metrics": {"reward": 0.41, "kl": 0.01}},
        },
    ],
}


def series(registry: CollectorRegistry) -> dict[str, float]:
    """Series -> value, of the figures of runs."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if "run" in sample.labels and sample.name != "selfevo_run_went_on_timestamp_seconds":
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
