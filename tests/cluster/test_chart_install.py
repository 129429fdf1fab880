"""The chart's life on a real control plane, by the real Helm: installed, tested, upgraded, rolled back, uninstalled.

Nothing runs pods here, so the tests do what a kubelet would: the operator is the process that its pod asks for, under
the account that it names; the pod of `helm test` likewise; trainers are played.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.chart import NAMESPACE, RELEASE, HelmError
from harness.cluster import controlplane, tools
from harness.cluster.client import ApiError
from harness.cluster.cluster_runs import RUNS, cluster_run, jobs, keys_of, status_of, wait_phase
from harness.cluster.controlplane import RESTRICTED, ControlPlane
from harness.cluster.kubelet_standin import playing
from harness.cluster.lives import Life
from harness.cluster.release import Release
from harness.gotools import ToolUnavailable

pytestmark = pytest.mark.slow

CRD = "selfevolutionruns.selfevo.dev"
RESEARCH = "research"
VALUES = {"scope": {"namespaces": [RESEARCH]}}


@pytest.fixture(scope="module")
def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Without the CRD: that comes with the chart."""
    try:
        with controlplane.running(tmp_path_factory.mktemp("bare-plane")) as plane:
            for name in (NAMESPACE, RESEARCH):
                about = {"name": name, "labels": RESTRICTED}
                plane.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": about})
                account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
                plane.admin.apply(account, name)
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def release(bare_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Release]:
    """By Helm 4; one test asks for Helm 3 as well."""
    tool = getattr(request, "param", tools.HELM)
    try:
        tools.program(tool)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    made = Release(bare_plane, tmp_path, tool)
    yield made
    for run in bare_plane.admin.list(RUNS, RESEARCH):  # the next test begins with none
        bare_plane.admin.delete(RUNS, run["metadata"]["name"], RESEARCH)
    if RELEASE in made.helm("list", "--short"):
        made.helm("uninstall", RELEASE, "--wait")
    bare_plane.admin.delete_all("pods", NAMESPACE, grace_s=0)


def uids(plane: ControlPlane, run: str) -> set[str]:
    """Of the run's Jobs; those of an earlier one may still be on their way out."""
    return {job["metadata"]["uid"] for job in jobs(plane.admin, RESEARCH, run)}


def arguments(release: Release) -> list[str]:
    (container,) = release.newest_pod()["spec"]["containers"]
    return container["args"]


@pytest.mark.parametrize("release", [tools.HELM, tools.HELM_3], ids=lambda tool: f"helm {tool.version}", indirect=True)
def test_upgrade_and_rollback_lose_nothing_and_uninstall_leaves_the_runs(release: Release):
    plane, admin = release.plane, release.plane.admin
    assert "helm test selfevo" in release.install(VALUES)
    run = cluster_run(f"in-flight-{release.tool.version.replace('.', '-')}", spec__model__uri="s3://models/base")
    name = run["metadata"]["name"]
    with playing(admin, RESEARCH, hurry=True) as kubelet:
        kubelet.script["challenger-train-1"] = [Life(hangs=True)]
        kubelet.script["solver-train-1"] = [Life(hangs=True)]
        with release.operating():
            admin.create(run, RESEARCH)
            kubelet.wait_running("challenger-train-1")
            before = uids(plane, name)
        release.upgrade({**VALUES, "operator": {"workers": 3}, "trainer": {"image": {"tag": "next"}}})
        kubelet.release("challenger-train-1")  # while nobody drives
        with release.operating():
            assert {"--workers=3", "--image=selfevo/trainer:next"} <= set(arguments(release))
            kubelet.wait_running("solver-train-1")
            during = uids(plane, name)
            assert before < during
        release.helm("rollback", RELEASE, "1")
        with release.operating():
            assert "--workers=16" in arguments(release)
            assert uids(plane, name) == during
            kubelet.release("solver-train-1")
            wait_phase(admin, RESEARCH, name, "Succeeded")
        assert sorted(kubelet.trained) == keys_of(run) and kubelet.overlaps == []

    status = status_of(admin.get(RUNS, name, RESEARCH))
    release.helm("uninstall", RELEASE, "--wait")
    assert admin.find("deployments", RELEASE, NAMESPACE) is None
    assert admin.list("validatingadmissionpolicies") == []
    assert [r["metadata"]["name"] for r in admin.list("clusterroles") if "selfevo" in r["metadata"]["name"]] == []
    assert status_of(admin.get(RUNS, name, RESEARCH)) == status
    assert admin.get("customresourcedefinitions", CRD)["status"]["acceptedNames"]["shortNames"] == ["ser"]

    release.install(VALUES)  # over the CRD that was kept
    with release.operating():
        assert status_of(admin.get(RUNS, name, RESEARCH)) == status


def test_helm_test_passes_when_the_operator_is_ready_and_runs_are_taken(release: Release):
    release.install(VALUES)
    with release.operating():
        output = release.test()
    assert output.splitlines() == [
        "the operator is ready",
        f"the API server takes a run in {RESEARCH}",
        "no run is trained: tests.storage is not given",
        "PASSED",
    ]
    assert release.plane.admin.list(RUNS, RESEARCH) == []
    # What it was allowed goes with it.
    roles = [role["metadata"]["name"] for role in release.plane.admin.list("roles", RESEARCH)]
    assert roles == [f"{NAMESPACE}-{RELEASE}"]


def test_helm_test_trains_a_run_where_a_store_is_given(release: Release):
    admin = release.plane.admin
    about = {"name": "s3-credentials", "namespace": RESEARCH}
    admin.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": {"AWS_ACCESS_KEY_ID": "x"}})
    tests = {
        "storage": {"uri": "s3://models/helm-test", "credentialsSecret": "s3-credentials"},
        "model": {"uri": "s3://models/tiny", "dtype": "float32"},
        "timeoutSeconds": 120,
    }
    release.install({**VALUES, "tests": tests})
    with playing(admin, RESEARCH, hurry=True) as kubelet, release.operating():
        output = release.test().splitlines()
        assert output[0] == "the operator is ready" and output[-1] == "PASSED"
        assert any(line.startswith("run selfevo-test: Succeeded: ") for line in output)
        assert len(kubelet.trained) == 3  # Challenger, rollout, Solver
    assert admin.find(RUNS, "selfevo-test", RESEARCH) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tests": {"spec": {"pods": {"image": "evil"}}}}, "which is an image that runs may not use"),
        ({"tests": {"spec": {"iterations": 0}}}, "spec.iterations"),
    ],
    ids=["the policy refuses the run", "the CRD refuses the run"],
)
def test_helm_test_fails_and_says_why(release: Release, values: dict, message: str):
    release.install({**VALUES, **values})
    with release.operating(), pytest.raises(HelmError, match="FAILED: the API server does not take a run") as failed:
        release.test()
    assert message in str(failed.value)


def test_the_operators_account_reads_no_secret_and_writes_no_run(release: Release):
    release.install(VALUES)
    plane = release.plane
    operator = plane.client(plane.service_account(NAMESPACE, RELEASE))
    assert operator.list(RUNS, RESEARCH) == []
    for namespace, resource in (
        (RESEARCH, "secrets"),
        (NAMESPACE, "secrets"),
        (NAMESPACE, RUNS),
        (RESEARCH, "configmaps"),
    ):
        with pytest.raises(ApiError, match="403 Forbidden"):
            operator.list(resource, namespace)
    with pytest.raises(ApiError, match="403 Forbidden"):
        operator.create(cluster_run(), RESEARCH)
