"""The harness itself: the control plane that the tests of the operator lean on is a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster import controlplane
from harness.cluster.client import ApiError
from harness.cluster.controlplane import ControlPlane
from harness.cluster.manifests import pod

pytestmark = pytest.mark.slow


class TestControlPlane:
    def test_it_is_the_version_that_was_built_and_serves_what_was_installed(self, control_plane: ControlPlane):
        version = control_plane.admin.request("GET", "/version")
        assert version["gitVersion"].startswith("v1.") and version["major"] == "1"
        assert control_plane.admin.list("pods", "default") == []

    def test_a_namespace_admits_restricted_pods_and_no_others(self, control_plane: ControlPlane, namespace: str):
        assert control_plane.admin.create(pod("fine"), namespace)["metadata"]["uid"]
        with pytest.raises(ApiError, match="violates PodSecurity") as refused:
            control_plane.admin.create(pod("host", hostNetwork=True), namespace)
        assert (refused.value.status, refused.value.reason) == (403, "Forbidden")

    def test_a_user_may_do_what_was_granted_and_nothing_else(self, control_plane: ControlPlane, namespace: str):
        someone = control_plane.client(control_plane.user("someone", ["researchers"]))
        review = someone.create({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}})
        assert review["status"]["userInfo"]["username"] == "someone"
        assert "researchers" in review["status"]["userInfo"]["groups"]
        control_plane.grant("someone", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}], namespace)
        someone.create(pod("granted"), namespace)
        with pytest.raises(ApiError, match='User "someone" cannot list'):
            someone.list("pods", namespace)

    def test_a_service_account_is_known_by_its_own_token(self, control_plane: ControlPlane, namespace: str):
        operator = control_plane.client(control_plane.service_account(namespace, "operator"))
        with pytest.raises(ApiError, match=f'User "system:serviceaccount:{namespace}:operator" cannot list'):
            operator.list("pods", namespace)

    def test_a_watch_sees_what_was_made_after_the_list(self, control_plane: ControlPlane, namespace: str):
        admin = control_plane.admin
        admin.create(pod("before"), namespace)
        version = admin.listing("pods", namespace)["metadata"]["resourceVersion"]
        watch = admin.watch("pods", namespace, version=version)
        admin.create(pod("after"), namespace)
        kind, seen = next(iter(watch))
        watch.close()
        assert (kind, seen["metadata"]["name"]) == ("ADDED", "after")

    def test_server_side_apply_and_patches_meet_the_real_thing(self, control_plane: ControlPlane, namespace: str):
        admin = control_plane.admin
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1"}}
        admin.apply(manifest, namespace, manager="first")
        admin.patch("configmaps", "one", {"data": {"b": "2"}}, namespace)
        with pytest.raises(ApiError, match="the object has been modified") as stale:
            admin.patch("configmaps", "one", {"metadata": {"resourceVersion": "1"}, "data": {"b": "3"}}, namespace)
        assert stale.value.status == 409
        admin.patch("configmaps", "one", [{"op": "test", "path": "/data/b", "value": "2"}], namespace, kind="json")
        assert admin.get("configmaps", "one", namespace)["data"] == {"a": "1", "b": "2"}
        admin.delete("configmaps", "one", namespace)
        assert admin.find("configmaps", "one", namespace) is None


def test_the_audit_log_tells_who_asked_for_what_also_over_a_restart(tmp_path: Path):
    with controlplane.running(tmp_path, audit=True) as plane:
        namespace = plane.make_namespace()
        someone = plane.client(plane.user("someone"))
        plane.grant("someone", [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}])
        someone.list("jobs", namespace)
        pids = plane.pids
        plane.restart_apiserver()
        assert {name for name, pid in plane.pids.items() if pid != pids[name]} == {"kube-apiserver"}
        with pytest.raises(ApiError):
            someone.get("pods", "none", namespace, "status")
        seen = {(a.verb, a.group, a.resource, a.code) for a in plane.audited() if a.user == "someone"}
        assert seen == {("list", "batch", "jobs", 200), ("get", "", "pods/status", 403)}
    for pid in pids.values():
        assert not Path(f"/proc/{pid}").exists()
