"""Figures of a run for Prometheus, out of its status: by iteration, and of the steps that run. Pure.

A status may be another version's: what is not a number, or has no name, is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_ITERATIONS, _STEPS, _METRICS, _NAME = 10, 4, 8, 64
"""Of one run; and characters of a label: a series for each is kept by whoever scrapes."""
OF_ITERATIONS = (
    "evaluation/greedy",
    "rollout/in_band_share",
    "rollout/majority_share_mean",
    "rollout/label_accuracy",
    "rollout/kept",
)


class Figure(NamedTuple):
    """One sample, without the run's name."""

    metric: str
    labels: tuple[str, ...]
    value: float


def figures_of(status: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Those of a run with this status."""
    return tuple(_figures(status))


def _figures(status: Mapping[str, Any]) -> Iterator[Figure]:
    steps = [step for step in status.get("steps") or [] if isinstance(step, Mapping)]
    yield from _figure("selfevo_run_iteration", (), status.get("iteration") or 0)
    done = sum(step.get("state") == "Succeeded" for step in steps) + len(status.get("done") or [])
    yield from _figure("selfevo_run_steps_done", (), done)
    usage = status.get("usage") or {}
    hours = usage.get("gpuHours")
    yield from (figure._replace(value=figure.value * 3600) for figure in _figure("selfevo_run_gpu_seconds", (), hours))
    yield from _figure("selfevo_run_tokens", (), usage.get("tokens"))
    for line in (status.get("iterations") or [])[-_ITERATIONS:]:
        number = str(line.get("iteration"))[:_NAME]
        yield from _figure("selfevo_run_score", (number,), line.get("score"))
        metrics = line.get("metrics") or {}
        for name in OF_ITERATIONS:
            yield from _figure("selfevo_run_figure", (number, name), metrics.get(name))
    running = [step for step in steps if step.get("state") == "Running" and step.get("progress")]
    for step in running[:_STEPS]:
        name, progress = str(step.get("name"))[:_NAME], step["progress"]
        percent = progress.get("percent")
        yield from _figure("selfevo_step_done_ratio", (name,), percent / 100 if _is_number(percent) else None)
        yield from _figure("selfevo_step_tokens_per_second", (name,), progress.get("tokensPerSecond"))
        for figure, value in list((progress.get("metrics") or {}).items())[:_METRICS]:
            yield from _figure("selfevo_step_figure", (name, str(figure)[:_NAME]), value)


def _figure(metric: str, labels: tuple[str, ...], value: Any) -> Iterator[Figure]:
    if _is_number(value):
        yield Figure(metric, labels, float(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
