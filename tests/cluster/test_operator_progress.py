"""How far a running step is arrives in the status of its run, by way of its pods' logs and a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster.cluster_runs import (
    cluster_run,
    conditions,
    eventually,
    step,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import ACCOUNT, operating, rules
from harness.cluster.podlogs import serving_logs
from selfevo_contract.process import Progress

pytestmark = pytest.mark.slow
ROLLOUT = "solver-rollout-1"


def test_a_running_step_shows_how_far_it_is_until_it_ends(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, tmp_path: Path
):
    api, hostile = control_plane.admin, "\x1b[2J<b>$(rm)</b>" + "x" * 200_000
    far = {"done": 10}

    def lines_of(pod: str) -> list[tuple[str, str]]:
        report = Progress(
            phase="solver-rollout", step=ROLLOUT, doing="answering", done=far["done"], total=40,
            tokens_per_second=100.0, truncated_share=0.25, seconds_left=60.0,
        )  # fmt: skip
        other = report.model_copy(update={"step": "evaluate-0", "done": 39})
        lines = [report.model_dump_json(by_alias=True), other.model_dump_json(by_alias=True), hostile[:30_000]]
        return [("2026-01-01T00:00:00.123456789Z", line) for line in lines]

    run = cluster_run(spec__rollout__shards=2)
    kubelet.script |= {f"{ROLLOUT}/{index}": [Life(hangs=True)] for index in range(2)}
    with (
        serving_logs(control_plane, kubelet.node, lines_of) as logs,
        operating(control_plane, tmp_path, [namespace], flags=["--progress-seconds", "1"]) as operator,
    ):
        api.create(run, namespace)
        found = wait_run(api, namespace, "demo", lambda run: step(run, ROLLOUT).get("progress", {}).get("done") == 20)
        assert step(found, ROLLOUT)["progress"] == {
            "doing": "answering", "done": 20, "total": 80, "percent": 25, "tokensPerSecond": 200.0,
            "truncatedShare": 0.25, "endsAt": "2026-01-01T00:01:00.000Z", "at": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip
        far["done"] = 30
        wait_run(api, namespace, "demo", lambda run: step(run, ROLLOUT)["progress"]["percent"] == 75)
        before = operator.metric("selfevo_api_calls_total", verb="patch")
        asked = len(logs.asked)
        eventually(lambda: len(logs.asked) >= asked + 4)
        assert operator.metric("selfevo_api_calls_total", verb="patch") == before, "it writes although nothing is new"

        kubelet.release(ROLLOUT)
        done = wait_phase(api, namespace, "demo", "Succeeded")
        assert all("progress" not in each for each in done["status"]["steps"])
        assert {tuple(query["limitBytes"]) for _, query in logs.asked} == {("65536",)}


def test_without_the_right_to_read_logs_a_run_goes_on_and_shows_none(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, tmp_path: Path
):
    api = control_plane.admin
    kubelet.script["evaluate-0"] = [Life(hangs=True)]
    with operating(control_plane, tmp_path, [namespace], flags=["--progress-seconds", "1"]) as operator:
        # The Role changes, not who has which: of those some are seen before others, and rights are missing in between.
        weaker = [rule for rule in rules() if rule["resources"] != ["pods/log"]]
        api.patch("roles", ACCOUNT, {"rules": weaker}, namespace)
        api.create(cluster_run(), namespace)
        eventually(lambda: "grant get of pods/log" in operator.output, why=operator.tail)
        run = wait_run(api, namespace, "demo", lambda run: "Reconciling" in conditions(run))
        assert "progress" not in step(run, "evaluate-0")
        kubelet.release("evaluate-0")
        wait_phase(api, namespace, "demo", "Succeeded")
