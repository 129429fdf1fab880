"""Jobs that the API server lets in and whose pods it refuses: each cause once, on a real control plane."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    conditions,
    eventually,
    jobs,
    message,
    wait_event,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.manifests import pod
from harness.cluster.operator_process import OperatorProcess, operating

pytestmark = pytest.mark.slow

SHORT = {"spec__evaluation": None, "spec__rollout__shards": 1}
LIMITS = {"limits": {"cpu": "4", "memory": "1Gi"}}


def quota(api: Api, namespace: str) -> None:
    api.create(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}},
        namespace,
    )


def limit_range(api: Api, namespace: str) -> None:
    limits = [{"type": "Container", "max": {"cpu": "1"}}]
    api.create(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": limits}}, namespace
    )


def injector(api: Api, namespace: str) -> None:
    """Something puts into each pod what PodSecurity does not let in, as an injector of sidecars may."""
    group, name = "admissionregistration.k8s.io/v1", f"injector-{namespace}"
    expression = "Object{spec: Object.spec{hostPID: true}}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec: dict[str, Any] = {
        "matchConstraints": {"resourceRules": [rule]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    }
    api.create({"apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec})
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    api.create(
        {
            "apiVersion": group,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "matchResources": here},
        }
    )

    def works() -> bool:
        try:
            api.create(pod("probe"), namespace, dryRun="All")
        except ApiError:
            return True
        return False

    eventually(works, 120)


CAUSES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "quota": (quota, {"resources": LIMITS}, "exceeded quota: none"),
    "limit-range": (limit_range, {"resources": LIMITS}, "maximum cpu usage per Container is 1, but limit is 4"),
    "pod-security": (injector, {}, 'violates PodSecurity "restricted'),
    "service-account": (None, {"serviceAccountName": "nobody"}, 'serviceaccount "nobody" not found'),
    "priority-class": (None, {"priorityClassName": "nothing"}, "no PriorityClass with name nothing was found"),
    "runtime-class": (None, {"runtimeClassName": "nothing"}, 'RuntimeClass "nothing" not found'),
}


@pytest.fixture(scope="module")
def namespaces(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], OperatorProcess]]:
    """A namespace for each cause with a run in it, all at the same time."""
    made = {cause: control_plane.make_namespace() for cause in CAUSES}
    with operating(control_plane, tmp_path_factory.mktemp("operator")) as operator:
        for cause, (prepare, _, _) in CAUSES.items():
            if prepare is not None:
                prepare(control_plane.admin, made[cause])
        for cause, (_, pods, _) in CAUSES.items():
            control_plane.admin.create(cluster_run(**SHORT, spec__pods=pods), made[cause])
        yield made, operator
    for namespace in made.values():
        control_plane.remove_namespace(namespace)


@pytest.mark.parametrize("cause", CAUSES)
def test_it_is_reported_in_the_clusters_words(
    control_plane: ControlPlane, namespaces: tuple[dict[str, str], OperatorProcess], cause: str
) -> None:
    api, namespace = control_plane.admin, namespaces[0][cause]
    stuck = wait_run(api, namespace, "demo", lambda run: "Stalled" in conditions(run), 240)
    assert conditions(stuck) == {"Stalled": "PodsNotCreated"}
    assert CAUSES[cause][2] in message(stuck)
    assert len(jobs(api, namespace)) == 1 and api.list("pods", namespace) == []
    wait_event(api, namespace, "PodsNotCreated")


def test_when_the_cause_is_gone_it_goes_on(
    control_plane: ControlPlane, namespaces: tuple[dict[str, str], OperatorProcess]
) -> None:
    api, namespace = control_plane.admin, namespaces[0]["runtime-class"]
    wait_run(api, namespace, "demo", lambda run: "Stalled" in conditions(run), 240)
    api.patch(RUNS, "demo", {"spec": {"pods": {"runtimeClassName": None}}}, namespace)
    wait_run(api, namespace, "demo", lambda run: "Stalled" not in conditions(run), 240)
    eventually(lambda: api.list("pods", namespace), 120)
