"""A namespace with the chart's policies and roles, and people in it who may write runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness import chart
from harness.attacks import OTHERS, OWN, TRAINER, Object, base
from harness.chart import RELEASE
from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import eventually
from harness.cluster.controlplane import ControlPlane
from harness.podsecurity import in_container, violations

PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
    "ClusterRole": "clusterroles",
}


@dataclass(frozen=True)
class World:
    """``mallory`` may use the ServiceAccount and the Secrets called own, ``owner`` those of others (admin) too."""

    plane: ControlPlane
    namespace: str
    admin: Api
    mallory: Api
    owner: Api

    def attempt(self, api: Api, run: Object, **query: Any) -> Object:
        """Creates the run as a client does that sends whatever it is given."""
        path = api.path("selfevolutionruns", self.namespace)
        made: dict[str, Any] = api.request("POST", path, run, query={"fieldValidation": "Ignore", **query})
        return made

    def refusal(self, run: Object, api: Api | None = None) -> str:
        """What the API server says against a run; empty when it would take it. Nothing is stored."""
        try:
            self.attempt(api or self.mallory, run, dryRun="All")
        except ApiError as error:
            return str(error)
        return ""


def bind(admin: Api, namespace: str, user: str, role: str) -> None:
    """Gives ``user`` a ClusterRole in the namespace."""
    group = "rbac.authorization.k8s.io"
    admin.create(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{user}-{role.rsplit('-', 1)[-1]}", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
    )


def runs_edit(namespace: str) -> str:
    """The chart's role for people who write runs."""
    return f"{namespace}-{RELEASE}-runs-edit"


@contextmanager
def world(plane: ControlPlane, policy: Object) -> Iterator[World]:
    """A namespace with this policy (values of the chart), until the block ends.

    Raises:
        ToolUnavailable: there is no Helm.
    """
    namespace = plane.make_namespace()
    values = {"scope": {"namespaces": [namespace]}, "policy": policy, "crds": {"enabled": False}}
    objects = [o for o in chart.manifests(chart.template(values, namespace=namespace)) if o["kind"] in PLURALS]
    for found in objects:
        plane.admin.apply(found, fieldValidation="Strict")
    try:
        yield _peopled(plane, namespace)
    finally:
        for found in objects:
            plane.admin.delete(PLURALS[found["kind"]], found["metadata"]["name"])
        plane.remove_namespace(namespace)


def _peopled(plane: ControlPlane, namespace: str) -> World:
    admin = plane.admin
    clients = {name: plane.client(plane.user(name)) for name in ("mallory", "owner")}
    for name in clients:
        bind(admin, namespace, name, runs_edit(namespace))
    for name in (OWN, OTHERS):
        about = {"name": name, "namespace": namespace}
        admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about})
        admin.create({"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": {"token": "x"}})
    names = [OWN, *(f"own-{number}" for number in range(20))]
    for user, of in (("mallory", {"resourceNames": names}), ("owner", {})):
        accounts = {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["use"], **of}
        plane.grant(user, [accounts, {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], **of}], namespace)
    made = World(plane, namespace, admin, **clients)
    # A policy works a moment after it was made, and each by itself.
    for place in ("pods.serviceAccountName", "storage.credentialsSecret", "pods.image"):
        refused = base("x", {f"spec.{place}": OTHERS})
        eventually(functools.partial(made.refusal, refused))
    return made


_OUR_LABELS = (
    "app.kubernetes.io/",
    "selfevo.dev/",
    "kueue.x-k8s.io/",
    "batch.kubernetes.io/",
    "controller-uid",
    "job-name",
)


def own_pod(pod: Object, run: Object) -> None:
    """Asserts that a pod has nothing but what its run's author may have."""
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    assert violations(spec) == []
    account = run["spec"].get("pods", {}).get("serviceAccountName", "default")
    assert spec.get("serviceAccountName", "default") == account and account in (OWN, "default")
    assert spec["automountServiceAccountToken"] is False
    assert {kind for volume in spec["volumes"] for kind in volume} == {"name", "emptyDir"}
    assert not spec.get("nodeSelector") and spec.get("schedulerName") == "default-scheduler"
    assert {t["key"] for t in spec.get("tolerations", [])} <= {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }
    assert labels["selfevo.dev/run"] == run["metadata"]["name"] and labels["selfevo.dev/attempt"].isdecimal()
    asked = run["spec"].get("pods", {})
    assert all(name.startswith(_OUR_LABELS) or name in asked.get("labels", {}) for name in labels)
    assert labels["app.kubernetes.io/managed-by"] == "selfevo-operator"
    ours = ("selfevo.dev/", "batch.kubernetes.io/")
    assert all(n.startswith(ours) or n in asked.get("annotations", {}) for n in pod["metadata"]["annotations"])
    devices = [value for claim in spec.get("resourceClaims", []) for name, value in claim.items() if name != "name"]
    assert set(devices) <= {"gpus-8", "team-a-fabric"}
    (container,) = spec["containers"]
    assert container["image"] == TRAINER and container["command"] == ["python", "-m", "selfevo_trainer"]
    assert "args" not in container and "envFrom" not in container and "ports" not in container
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names))
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        assert (
            "valueFrom" not in variable or (reference or {}).get("name") == OWN or "fieldRef" in variable["valueFrom"]
        )
    seen = in_container(container["env"])
    assert seen["HOME"] == "/work" and seen["TMPDIR"] == "/tmp"
    config = json.loads(seen["SELFEVO_PHASE_CONFIG"])
    assert config["storage"]["uri"].startswith("s3://models/team-a/")
    users = {variable["name"]: variable["value"] for variable in asked.get("env", []) if "valueFrom" not in variable}
    assert {name: seen[name] for name in users if name not in ("HOME", "TMPDIR")} == {
        name: value for name, value in users.items() if name not in ("HOME", "TMPDIR")
    }
