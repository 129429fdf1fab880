"""An upgrade across a version of the artifact schema while a step runs, and the way back (docs/cluster.md)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cluster.cluster_runs import cluster_run, conditions, jobs, status_of, step, wait_phase, wait_run
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import playing
from harness.cluster.lives import Life
from harness.cluster.operator_process import operating
from selfevo_contract.artifacts import SCHEMA_VERSION

pytestmark = pytest.mark.slow
OTHER = SCHEMA_VERSION + 1


def of_another_version(folder: Path) -> dict[str, str]:
    """Environment of an operator that makes plans of another version."""
    folder.mkdir()
    patch = f"import selfevo_contract.artifacts as artifacts\nartifacts.SCHEMA_VERSION = {OTHER}\n"
    (folder / "sitecustomize.py").write_text(patch)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def test_what_runs_ends_under_its_own_plan_nothing_new_starts_and_the_old_operator_goes_on(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    api, other = control_plane.admin, of_another_version(tmp_path / "other")
    with playing(api, namespace, hurry=True) as kubelet:
        kubelet.script["challenger-train-1"] = [Life(hangs=True)]
        with operating(control_plane, tmp_path, [namespace], env=other):
            api.create(cluster_run(), namespace)
            kubelet.wait_running("challenger-train-1", 180)
            begun = wait_run(
                api, namespace, "demo", lambda run: (step(run, "challenger-train-1") or {}).get("attempts")
            )
            assert status_of(begun)["schemaVersion"] == OTHER
        made = {job["metadata"]["uid"] for job in jobs(api, namespace)}

        with operating(control_plane, tmp_path, [namespace]):
            kubelet.release("challenger-train-1")
            held = wait_run(api, namespace, "demo", lambda run: conditions(run).get("Stalled") == "PlanVersion")
            assert step(held, "challenger-train-1")["state"] == "Succeeded"
            assert step(held, "challenger-train-1")["key"] == step(begun, "challenger-train-1")["key"]
            assert status_of(held)["schemaVersion"] == OTHER
            assert {job["metadata"]["uid"] for job in jobs(api, namespace)} == made
            assert [lived.exit_code for lived in kubelet.lived if lived.role.step == "challenger-train-1"] == [0]

        with operating(control_plane, tmp_path, [namespace], env=other):
            done = wait_phase(api, namespace, "demo", "Succeeded")
        assert {record["attempts"] for record in status_of(done)["steps"]} == {1}
        assert len(kubelet.trained) == len(set(kubelet.trained))
