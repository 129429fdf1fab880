"""What Prometheus sees of each run: by iteration, and of the steps that run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.objects import run_object
from harness.series import RUNNING, STATUS, series
from selfevo_operator.observed.figures import figures_of
from selfevo_operator.runtime.metrics import RUNS_WITH_FIGURES

from .test_operator import operator_of

WANTED = {
    'selfevo_run_iteration{run="demo",run_namespace="lab"}': 2,
    'selfevo_run_steps_done{run="demo",run_namespace="lab"}': 1,
    'selfevo_run_gpu_seconds{run="demo",run_namespace="lab"}': 5400,
    'selfevo_run_tokens{run="demo",run_namespace="lab"}': 2e6,
    'selfevo_run_score{iteration="0",run="demo",run_namespace="lab"}': 0.478,
    'selfevo_run_score{iteration="1",run="demo",run_namespace="lab"}': 0.597,
    'selfevo_run_figure{figure="evaluation/greedy",iteration="0",run="demo",run_namespace="lab"}': 0.53,
    'selfevo_run_figure{figure="rollout/in_band_share",iteration="1",run="demo",run_namespace="lab"}': 0.5,
    'selfevo_run_figure{figure="rollout/label_accuracy",iteration="1",run="demo",run_namespace="lab"}': 0.91,
    'selfevo_step_done_ratio{run="demo",run_namespace="lab",step="solver-train-2"}': 0.4,
    'selfevo_step_tokens_per_second{run="demo",run_namespace="lab",step="solver-train-2"}': 812.5,
    'selfevo_step_figure{figure="reward",run="demo",run_namespace="lab",step="solver-train-2"}': 0.41,
    'selfevo_step_figure{figure="kl",run="demo",run_namespace="lab",step="solver-train-2"}': 0.01,
}


def test_a_run_whose_steps_run_has_its_figures() -> None:
    operator = operator_of()
    operator.saw_run("ADDED", run_object(5, status=STATUS))
    queued = {**STATUS, "conditions": [{**RUNNING, "reason": "Queued"}]}
    operator.saw_run("ADDED", run_object(6, uid="q", name="queued", status=queued))
    assert series(operator.metrics.registry) == WANTED


def test_an_ended_run_has_them_for_a_while() -> None:
    operator = operator_of()
    for version, minutes in ((5, 5), (6, 60)):
        at = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ended = {**STATUS, "phase": "Succeeded", "conditions": [], "finishedAt": at, "steps": []}
        operator.saw_run("ADDED", run_object(version, uid=f"u{version}", name=f"r{version}", status=ended))
    assert {re.search('run="([^"]*)"', name)[1] for name in series(operator.metrics.registry)} == {"r5"}  # type: ignore[index]
    assert series(operator.metrics.registry)['selfevo_run_score{iteration="1",run="r5",run_namespace="lab"}'] == 0.597


def test_of_very_many_runs_some_have_figures() -> None:
    operator = operator_of()
    for number in range(RUNS_WITH_FIGURES + 5):
        operator.saw_run("ADDED", run_object(number + 1, uid=f"u{number}", name=f"run-{number:04d}", status=STATUS))
    named = {re.search('run="([^"]*)"', name)[1] for name in series(operator.metrics.registry)}  # type: ignore[index]
    assert len(named) == RUNS_WITH_FIGURES and "run-0000" in named


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"iteration": "x", "steps": ["x", {}], "iterations": [{"score": "high", "metrics": None}], "usage": None},
        {"iteration": float("nan"), "usage": {"gpuHours": True}},
        {"steps": [{"state": "Running", "progress": {"metrics": {"a": "b"}}}]},
    ],
)
def test_what_is_no_number_is_passed_over(status: dict[str, Any]) -> None:
    assert {figure.metric for figure in figures_of(status)} <= {"selfevo_run_iteration", "selfevo_run_steps_done"}


def test_a_run_has_few_series_however_much_its_status_says() -> None:
    iterations = [{"iteration": n, "score": 0.5, "metrics": dict.fromkeys(map(str, range(99)), 1.0)} for n in range(99)]
    progress = {"percent": 1, "metrics": {f"m{n}": 1.0 for n in range(99)}}
    steps = [{"name": f"s{n}" * 99, "state": "Running", "progress": progress} for n in range(99)]
    found = figures_of({"iterations": iterations, "steps": steps})
    assert len(found) == 2 + 10 + 4 * (1 + 8)
    assert max(len(label) for figure in found for label in figure.labels) == 64
