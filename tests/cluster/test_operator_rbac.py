"""The operator's rights: what ships is what it uses, no more and no less. The API server writes down who asks.

Here in one life, for each way to grant them; over all that the operator does in the whole run of tests/cluster by
harness/audited_run.py and harness/cluster/rights.py, whose own tests are in test_harness_audit.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import controlplane, tools
from harness.cluster.client import ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    conditions,
    eventually,
    jobs,
    keys_of,
    message,
    plan_of,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.faults import Answer
from harness.cluster.kubelet_standin import playing
from harness.cluster.lives import Life
from harness.cluster.manifests import job
from harness.cluster.operator_process import ACCOUNT, USER, account, manifests, operating, rules
from harness.cluster.proxy import proxied
from harness.cluster.rights import EXPLAINED, granted, rights
from harness.gotools import ToolUnavailable
from selfevo_core.attempts import attempt_name


def test_rights_are_the_same_in_a_namespace_and_in_the_cluster():
    (role,) = [m for m in manifests("mine") if m["kind"] == "Role"]
    assert role["rules"] == rules()
    assert role["metadata"]["namespace"] == "mine"
    assert "research" not in str(manifests("mine"))


@pytest.mark.slow
def test_whoever_grants_them_they_are_the_same():
    try:
        tools.program(tools.HELM)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    assert granted() == dict.fromkeys(
        ("deploy/rbac.yaml", "deploy/rbac-namespaced.yaml", "the chart in namespaces", "the chart everywhere"),
        rights(rules()),
    )


def test_no_right_is_a_wildcard_or_about_secrets_or_changes_what_people_wrote():
    for verb, group, resource in rights(rules()):
        assert "*" not in (verb, group, resource)
        assert resource not in ("secrets", "configmaps", "serviceaccounts", "pods/exec")
        assert verb not in ("update", "patch", "deletecollection") or (verb, group, resource) in {
            *EXPLAINED,
            ("patch", "selfevo.dev", "selfevolutionruns/status"),
        }


@pytest.fixture(scope="module")
def strict_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """It keeps an audit log, and asks for rights on owners as OpenShift does."""
    flags = ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]
    folder = tmp_path_factory.mktemp("strict-plane")
    try:
        with controlplane.running(folder, crds=controlplane.CRDS, apiserver_flags=flags) as plane:
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [False, True], ids=["namespaced", "cluster-wide"])
def test_a_life_uses_every_right_and_is_refused_none(strict_plane: ControlPlane, tmp_path: Path, everywhere: bool):
    plane, namespace = strict_plane, strict_plane.make_namespace()
    before = len(list(plane.audited()))
    two_nodes = {"spec__challenger__pods": {"nodes": 2}, "spec__challenger__grpo__perDeviceTrainBatchSize": 8}
    run = cluster_run(spec__evaluation=None, **two_nodes)
    first = attempt_name("demo", plan_of(run).steps[0], 1)
    plane.admin.create(job(first, suspend=True), namespace)  # somebody else's, so that it is read
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    plane.admin.create(quota, namespace)  # so that Events are read
    with (
        playing(plane.admin, namespace, hurry=True) as kubelet,
        proxied(plane) as proxy,
        operating(
            plane, tmp_path, [] if everywhere else [namespace], server=proxy.server, flags=["--progress-seconds", "1"]
        ),
    ):
        kubelet.script["solver-train-1"] = [Life(hangs=True)]
        plane.admin.create(run, namespace)
        wait_run(plane.admin, namespace, "demo", lambda run: conditions(run).get("Stalled") == "NameTaken")
        proxy.inject(Answer(409), verb="patch", path="/status$")  # somebody else wrote the run, so it is read again
        plane.admin.delete("jobs", first, namespace)
        wait_run(plane.admin, namespace, "demo", lambda run: conditions(run).get("Stalled") == "PodsNotCreated", 240)
        plane.admin.delete("resourcequotas", "none", namespace)
        kubelet.wait_running("solver-train-1")
        eventually(lambda: any(access.resource == "pods/log" for access in list(plane.audited())[before:]))
        plane.admin.patch(RUNS, "demo", {"spec": {"suspend": True}}, namespace)
        eventually(lambda: len(jobs(plane.admin, namespace)) == 2)
        kubelet.release("solver-train-1")
        plane.admin.patch(RUNS, "demo", {"spec": {"suspend": False}}, namespace)
        wait_phase(plane.admin, namespace, "demo", "Succeeded")
        assert sorted(kubelet.trained) == keys_of(run)
        (service,) = plane.admin.list("services", namespace)
        assert service["metadata"]["ownerReferences"][0]["kind"] == "SelfEvolutionRun"
    plane.remove_namespace(namespace)

    asked = [access for access in list(plane.audited())[before:] if access.user == USER]
    assert {(access.verb, access.group, access.resource) for access in asked} == rights(rules()) - EXPLAINED
    assert [access for access in asked if access.code in (401, 403)] == []
    # A list or a watch of the cluster names no namespace.
    assert {access.namespace for access in asked} == ({"", namespace} if everywhere else {namespace})


@pytest.mark.slow
def test_the_right_on_finalizers_is_needed_where_owners_are_checked(strict_plane: ControlPlane, tmp_path: Path):
    plane, namespace = strict_plane, strict_plane.make_namespace()
    with operating(plane, tmp_path, [namespace]):
        weaker = [rule for rule in rules() if rule["resources"] != ["selfevolutionruns/finalizers"]]
        plane.admin.patch("roles", ACCOUNT, {"rules": weaker}, namespace)
        plane.admin.create(cluster_run(), namespace)
        stuck = wait_run(plane.admin, namespace, "demo", lambda run: "Stalled" in conditions(run))
        assert conditions(stuck)["Stalled"] == "CreateRefused"
        assert "cannot set blockOwnerDeletion" in message(stuck)
        plane.admin.patch("roles", ACCOUNT, {"rules": rules()}, namespace)
        eventually(lambda: jobs(plane.admin, namespace))
    plane.remove_namespace(namespace)


@pytest.mark.slow
def test_what_it_has_no_business_with_is_refused_it(strict_plane: ControlPlane):
    plane, namespace, elsewhere = strict_plane, strict_plane.make_namespace(), strict_plane.make_namespace()
    operator = plane.client(account(plane, [namespace]))
    plane.admin.create(cluster_run(spec__suspend=True), namespace)
    assert len(operator.list(RUNS, namespace)) == 1
    attempts = [
        lambda: operator.list("secrets", namespace),
        lambda: operator.get("secrets", "s3-credentials", namespace),
        lambda: operator.patch(RUNS, "demo", {"spec": {"suspend": False}}, namespace),
        lambda: operator.delete(RUNS, "demo", namespace),
        lambda: operator.list(RUNS, elsewhere),
        lambda: operator.list("jobs", elsewhere),
        lambda: operator.list("namespaces"),
        lambda: operator.list("customresourcedefinitions"),
    ]
    for attempt in attempts:
        with pytest.raises(ApiError, match="403 Forbidden"):
            attempt()
