"""75 steps whose Jobs are gone before their ends could be written: the store knows them, and none is trained again."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster.cluster_runs import (
    OURS,
    RUNS,
    cluster_run,
    eventually,
    jobs,
    keys_of,
    phase_of,
    status_of,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.faults import Answer, Fault, Request
from harness.cluster.kubelet_standin import playing
from harness.cluster.manifests import ended
from harness.cluster.operator_process import operating
from harness.cluster.proxy import proxied

pytestmark = pytest.mark.slow

RUNS_AT_ONCE = 15
LIMIT_S = 300.0
"""For machines with much else to do; an idle one takes a quarter of it."""


def test_steps_whose_ends_were_never_written_are_not_trained_again(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    """The TTL controller was faster than an API server that took no status for a while."""
    refused = []

    def no_status(request: Request) -> Fault | None:
        if request.method != "PATCH" or not request.path.endswith("/status"):
            return None
        refused.append(request)
        return Answer(403 if len(refused) % 2 else 500)

    api = control_plane.admin
    made = [
        api.create(cluster_run(f"run-{number:03}", spec__rollout__shards=1), namespace)
        for number in range(RUNS_AT_ONCE)
    ]
    steps = sorted(key for run in made for key in keys_of(run))
    assert len(steps) == 5 * RUNS_AT_ONCE
    with playing(api, namespace, seconds=0.01) as kubelet, proxied(control_plane) as proxy:
        proxy.decide = no_status
        with operating(control_plane, tmp_path, [namespace], server=proxy.server) as operator:

            def progress() -> str:
                return f"{len(kubelet.committed)} committed, {len(kubelet.lived)} pods\n{operator.tail()}"

            # Without any record, runs go from step to step by what their Jobs show.
            eventually(lambda: len(kubelet.committed) == len(steps), LIMIT_S, progress)
            eventually(lambda: all(map(ended, jobs(api, namespace))), LIMIT_S, progress)
            assert len(jobs(api, namespace)) == len(steps)
            assert not any(map(phase_of, api.list(RUNS, namespace))), "a status was written"
            # Counted before: while 75 Jobs are deleted one by one, a slow machine has started the first ones again.
            again = len(kubelet.lived)
            api.delete_all("jobs", namespace, labels=OURS)
            eventually(lambda: len(kubelet.lived) > again + RUNS_AT_ONCE / 2, LIMIT_S, progress)
            assert len(refused) > 5 * RUNS_AT_ONCE

            proxy.decide = lambda _: None
            eventually(
                lambda: all(phase_of(run) == "Succeeded" for run in api.list(RUNS, namespace)), LIMIT_S, progress
            )
            assert sorted(kubelet.trained) == steps, "a step was trained again"
            assert kubelet.overlaps == []
            records = [step for run in api.list(RUNS, namespace) for step in status_of(run)["steps"]]
            # But for one that this operator still knew to have ended: its Job was deleted last.
            assert sum(not step["reused"] for step in records) <= 1
