"""Runs that come from Git, on a real control plane: no drift, an honest health, nothing pruned, nothing left behind."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster import tools
from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    conditions,
    eventually,
    jobs,
    keys_of,
    phase_of,
    status_of,
    wait_phase,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import OperatorProcess
from harness.gotools import ToolUnavailable
from harness.health import argo, flux
from harness.kustomize import build
from harness.states import kstatus
from selfevo_contract.run import SelfEvolutionRun

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
GIT = "argocd-controller"
SHORT = {"spec__evaluation": None, "spec__rollout__shards": 1}
TRACKED = {
    "labels": {"app.kubernetes.io/instance": "experiments", "kustomize.toolkit.fluxcd.io/name": "experiments"},
    "annotations": {"argocd.argoproj.io/tracking-id": "experiments:selfevo.dev/SelfEvolutionRun:research/demo"},
}
"""What Argo CD and Flux write onto what is theirs."""
Object = dict[str, Any]


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Not started yet."""
    operator = OperatorProcess(control_plane, tmp_path, [namespace], flags=["--resync-seconds", "2"])
    try:
        yield operator
    finally:
        operator.stop()


def from_git(name: str = "demo", **changes: Any) -> Object:
    run = cluster_run(name, **changes)
    run["metadata"] |= TRACKED
    return run


def stored(api: Api, namespace: str, name: str = "demo") -> Object:
    found: Object = api.get(RUNS, name, namespace)
    return found


# --- no drift ---------------------------------------------------------------------------------------------------------


def test_every_run_of_the_repository_is_taken_and_does_not_drift(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    try:
        kubectl, made = tools.program(tools.KUBECTL), build(ROOT / "examples" / "gitops" / "experiments")
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    api = control_plane.admin
    for run in [*made, *(yaml.safe_load(path.read_text()) for path in EXAMPLES)]:
        name = run["metadata"]["name"]
        run["metadata"]["namespace"] = namespace
        first = api.apply(run, manager=GIT, fieldValidation="Strict")
        again = api.apply(run, manager=GIT, fieldValidation="Strict")
        assert _but_for_the_version(again) == _but_for_the_version(first), name
        assert api.apply(run, manager=GIT)["metadata"] == again["metadata"], name
        assert _drift(run["spec"], first["spec"]) == [], name
        assert SelfEvolutionRun.model_validate(first).spec == SelfEvolutionRun.model_validate(run).spec, name
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(run))
    config = control_plane.kubeconfig(control_plane.admin_token, tmp_path / "kubeconfig", namespace=namespace)
    command = [kubectl, "--kubeconfig", config, "diff", "--server-side", "--field-manager", GIT]
    for path in sorted(tmp_path.glob("*.yaml")):
        command += ["-f", path]
    answer = subprocess.run(
        command, capture_output=True, text=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def _but_for_the_version(run: Object) -> Object:
    """The status' default is stored by the first write after the creation, whosever that is: usually the operator's."""
    return {**run, "metadata": {**run["metadata"], "resourceVersion": ""}}


def _drift(wanted: Any, live: Any, path: str = "spec") -> list[str]:
    """Where ``live`` is not what Git asks for. What Git does not name does not count: so Argo CD compares."""
    if isinstance(wanted, dict):
        return [found for key, value in wanted.items() for found in _drift(value, live.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and len(wanted) == len(live):
        return [
            found
            for n, (one, other) in enumerate(zip(wanted, live, strict=True))
            for found in _drift(one, other, f"{path}[{n}]")
        ]
    return [] if wanted == live else [f"{path}: {wanted!r} became {live!r}"]


def test_a_life_under_git_from_unseen_to_healthy_without_a_word_of_the_spec_changed(
    control_plane: ControlPlane, api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    kubelet.script["solver-train-1"] = [Life(hangs=True)]
    run = from_git(**SHORT)
    made = api.apply(run, namespace, manager=GIT)
    # There is no operator yet: nothing of this is done, and nobody may say so.
    assert (kstatus(made), argo(made)["status"]) == ("InProgress", "Progressing")
    assert flux("flux-taken.yaml", made) == flux("flux-finished.yaml", made) == "InProgress"

    watch = api.watch(RUNS, namespace)
    versions: list[Object] = []
    follower = threading.Thread(target=lambda: versions.extend(found for _, found in watch), daemon=True)
    follower.start()
    operator.run()
    kubelet.wait_running("solver-train-1")
    # Git is applied again and again while it runs.
    for _ in range(3):
        again = api.apply(run, namespace, manager=GIT)
        assert again["metadata"]["generation"] == 1
    kubelet.release("solver-train-1")
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert api.apply(run, namespace, manager=GIT)["metadata"]["resourceVersion"] == done["metadata"]["resourceVersion"]
    eventually(lambda: versions and versions[-1]["metadata"]["resourceVersion"] == done["metadata"]["resourceVersion"])
    watch.close()
    follower.join(60)

    assert len(versions) > 4
    for version in versions:
        assert version["spec"] == made["spec"]
        assert {name: version["metadata"][name] for name in TRACKED} == TRACKED
        assert "finalizers" not in version["metadata"]
        for entry in version["metadata"]["managedFields"]:
            ours = entry["manager"] == "selfevo-operator"
            assert ours == (entry.get("subresource") == "status"), entry
            assert set(entry["fieldsV1"]) <= ({"f:status"} if ours else {"f:spec", "f:metadata"})
    shown = [(kstatus(v), argo(v)["status"], flux("flux-finished.yaml", v)) for v in versions]
    assert [each for each, _ in itertools.groupby(shown)] == [
        ("InProgress", "Progressing", "InProgress"),
        ("Current", "Healthy", "Current"),
    ]
    taken = [each for each, _ in itertools.groupby(flux("flux-taken.yaml", v) for v in versions)]
    assert taken in (["InProgress", "Current"], ["Current"])


def test_what_git_does_not_name_a_person_may_change(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    run = from_git(**SHORT)
    api.apply(run, namespace, manager=GIT)
    operator.run()
    kubelet.wait_running("challenger-train-1")
    api.patch(RUNS, "demo", {"spec": {"suspend": True}}, namespace, fieldManager="selfevo-cli")
    held = wait_phase(api, namespace, "demo", "Suspended")
    assert api.apply(run, namespace, manager=GIT)["spec"]["suspend"] is True
    assert argo(held)["status"] == "Suspended"
    # When Git does name it, Git decides.
    run["spec"]["suspend"] = False
    api.apply(run, namespace, manager=GIT)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert (done["spec"]["suspend"], argo(done)["status"]) == (False, "Healthy")


def test_an_edit_in_git_that_no_run_can_follow_is_refused_and_the_run_goes_on(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    run = from_git(**SHORT)
    made = api.apply(run, namespace, manager=GIT)
    operator.run()
    edited = {**run, "spec": {**run["spec"], "seed": run["spec"]["seed"] + 1000}}
    with pytest.raises(ApiError, match="start a new run with the other value") as refused:
        api.apply(edited, namespace, manager=GIT)
    assert refused.value.status == 422
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert done["spec"] == made["spec"]
    # Under another name it is another experiment.
    edited["metadata"] = {**run["metadata"], "name": "demo-2"}
    api.apply(edited, namespace, manager=GIT)
    wait_phase(api, namespace, "demo-2", "Succeeded")


def test_a_failed_run_is_degraded_with_its_reason(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    kubelet.script["challenger-train-1"] = [Life(exit_code=2)]
    api.apply(from_git(**SHORT), namespace, manager=GIT)
    operator.run()
    failed = wait_phase(api, namespace, "demo", "Failed")
    assert kstatus(failed) == flux("flux-taken.yaml", failed) == flux("flux-finished.yaml", failed) == "Failed"
    assert argo(failed)["status"] == "Degraded"
    assert argo(failed)["message"].startswith("InvalidInput: challenger-train-1")


def test_a_run_whose_image_is_not_there_fails_its_health_check_until_it_is(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    kubelet.script["challenger-train-1"] = [Life(image_error="ErrImagePull")]
    run = from_git(**SHORT)
    api.apply(run, namespace, manager=GIT)
    operator.run()
    eventually(lambda: "Stalled" in conditions(stored(api, namespace)))
    stuck = stored(api, namespace)
    assert (kstatus(stuck), argo(stuck)["status"], flux("flux-taken.yaml", stuck)) == ("Failed", "Degraded", "Failed")
    run["spec"]["pods"] = {"image": "registry.example/selfevo/trainer:corrected"}
    corrected = api.apply(run, namespace, manager=GIT)
    assert (kstatus(corrected), argo(corrected)["status"]) == ("InProgress", "Progressing")
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert (kstatus(done), argo(done)["status"]) == ("Current", "Healthy")


# --- children, and deletion -------------------------------------------------------------------------------------------


def test_children_are_nobodys_to_prune(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    """Argo CD prunes what bears its mark and has no owner; Flux what it applied itself."""
    two_nodes = {"spec__solver__pods": {"nodes": 2}, "spec__solver__grpo__perDeviceTrainBatchSize": 8}
    run = from_git(**SHORT, **two_nodes)
    made = api.apply(run, namespace, manager=GIT)
    operator.run()
    wait_phase(api, namespace, "demo", "Succeeded")
    children = [
        *jobs(api, namespace),
        *api.list("pods", namespace),
        *api.list("services", namespace),
    ]
    assert len(children) == 3 + 4 + 1
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["controller"] is True
        assert owner["uid"] == made["metadata"]["uid"] or owner["kind"] == "Job"
        notes = {**child["metadata"]["labels"], **child["metadata"].get("annotations", {})}
        assert not any("argocd" in name or "fluxcd" in name for name in notes)
        assert "experiments" not in notes.values()


@pytest.mark.parametrize("propagation", ["Foreground", "Background"])
@pytest.mark.parametrize("present", [True, False], ids=["operator-there", "operator-gone"])
def test_a_run_that_leaves_git_takes_everything_along(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess, propagation: str, present: bool
) -> None:
    kubelet.script["solver-rollout-1"] = [Life(hangs=True)]
    run = from_git(**SHORT)
    api.apply(run, namespace, manager=GIT)
    operator.run()
    kubelet.wait_running("solver-rollout-1")
    if not present:
        operator.stop()
    api.delete(RUNS, "demo", namespace, propagation=propagation)
    for resource in (RUNS, "jobs", "pods"):
        eventually(lambda resource=resource: api.list(resource, namespace) == [])
    assert kubelet.lived[-1].exit_code == 143, "its pod was not given the time to save"
    if present:
        # Back in Git: the new run finds what the old one had made.
        api.apply(run, namespace, manager=GIT)
        done = wait_phase(api, namespace, "demo", "Succeeded")
        assert [step["reused"] for step in status_of(done)["steps"]] == [True, False, False]
        assert sorted(kubelet.trained) == keys_of(done)


def test_a_namespace_with_a_run_in_it_can_be_deleted(
    control_plane: ControlPlane, api: Api, kubelet: FakeKubelet, namespace: str, operator: OperatorProcess
) -> None:
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    api.apply(from_git(**SHORT), namespace, manager=GIT)
    operator.run()
    kubelet.wait_running("challenger-train-1")
    api.delete("namespaces", namespace)
    eventually(lambda: api.list(RUNS, namespace) == [] and api.list("pods", namespace) == [])
    eventually(lambda: api.find("namespaces", namespace) is None)
    assert "a defect" not in operator.output


def test_a_run_that_git_holds_from_the_beginning_starts_when_git_lets_it(
    api: Api, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> None:
    run = from_git(**SHORT, spec__suspend=True)
    api.apply(run, namespace, manager=GIT)
    operator.run()
    held = wait_phase(api, namespace, "demo", "Suspended")
    assert flux("flux-finished.yaml", held) == flux("flux-taken.yaml", held) == "Current"
    assert jobs(api, namespace) == []
    del run["spec"]["suspend"]  # the field goes back to its default
    api.apply(run, namespace, manager=GIT)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    assert phase_of(done) == "Succeeded"
