"""kwok's pods are scheduled, run and leave the message of a trainer, many at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import controlplane, kwok
from harness.cluster.controlplane import ControlPlane
from harness.cluster.manifests import condition, ended, job, trainer
from harness.gotools import ToolUnavailable
from selfevo_contract.process import PhaseResult

pytestmark = pytest.mark.slow
KEY = "ab" * 32


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    try:
        with (
            controlplane.running(tmp_path / "plane", scheduler=True) as plane,
            kwok.running(plane, tmp_path / "kwok", seconds=0.2),
        ):
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


def test_jobs_complete_with_the_message_that_their_pods_ask_for(plane: ControlPlane):
    namespace = plane.make_namespace()
    for number in range(30):
        plane.admin.create(job(f"evaluate-{number}", key=KEY, phase="evaluate"), namespace)
    for number in range(30):
        done = plane.admin.wait("jobs", f"evaluate-{number}", namespace, until=ended)
        assert condition(done, "Complete"), done["status"]
    states = [trainer(pod) for pod in plane.admin.list("pods", namespace)]
    assert len(states) == 30 and {state["exitCode"] for state in states} == {0}
    (message,) = {state["message"] for state in states}
    result = PhaseResult.model_validate(json.loads(message))
    assert (result.phase, result.key, result.outcome) == ("evaluate", KEY, "committed")
    assert result.metrics == {"mean": 0.52, "greedy": 0.62}
    plane.admin.delete("jobs", "evaluate-0", namespace)
    plane.admin.wait("jobs", "evaluate-0", namespace, until=lambda found: found is None)
