"""The list of what a Job may hold: nothing else gets through, whatever put it there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from harness.podsecurity import violations
from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_operator.manifests import allowlist
from selfevo_operator.manifests import job as jobs
from selfevo_operator.manifests import pod as pods
from selfevo_operator.manifests.settings import PodSettings

Pod = dict[str, Any]


def rendered(**changes: Any) -> dict[str, Any]:
    run = make_run(metadata__uid="u-1", spec__storage__uri="s3://models/selfevo", **changes)
    return jobs.render(run, plan(run.spec).steps[0], 1, "demo-1", PodSettings(image="trainer"))[0]


@pytest.fixture
def job() -> dict[str, Any]:
    return rendered()


@pytest.fixture
def pod(job: dict[str, Any]) -> Pod:
    return job["spec"]["template"]["spec"]


def add(path: str, value: Any) -> Callable[[Pod], None]:
    """Set a field by its path, such as ``containers.0.securityContext.privileged``."""

    def change(pod: Pod) -> None:
        *parents, last = path.split(".")
        place: Any = pod
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        if isinstance(place, list):
            place.append(value)
        else:
            place[last] = value

    return change


def drop(path: str) -> Callable[[Pod], None]:
    def change(pod: Pod) -> None:
        *parents, last = path.split(".")
        place: Any = pod
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        del place[last]

    return change


def test_what_is_rendered_is_on_the_list(job: dict[str, Any], pod: Pod) -> None:
    allowlist.check(pod)
    allowlist.check_job(job)
    assert violations(pod) == []


ADDITIONS: list[tuple[str, Any]] = [
    ("hostNetwork", True),
    ("hostPID", True),
    ("hostUsers", True),
    ("hostAliases", []),
    ("nodeName", "node-1"),
    ("schedulerName", True),
    ("dnsConfig", {}),
    ("affinity", []),
    (
        "affinity",
        {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "a", "labelSelector": {"matchLabels": {"app": "others"}}}
                ]
            }
        },
    ),
    ("affinity", {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}}),
    (
        "affinity",
        {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a", "namespaceSelector": {}}]
            }
        },
    ),
    (
        "affinity",
        {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}
                    ]
                }
            }
        },
    ),
    ("topologySpreadConstraints", [{"topologyKey": "a", "labelSelector": {}}]),
    ("volumes.-", {"name": "vol-a", "hostPath": {"path": "/"}}),
    ("volumes.-", {"name": "vol-a", "secret": {"secretName": "admin"}}),
    ("volumes.-", {"name": "vol-a", "emptyDir": {}}),
    ("volumes.-", {"name": "vol-a", "persistentVolumeClaim": {"claimName": "a"}, "hostPath": {"path": "/"}}),
    ("volumes.-", {"name": "vol-a", "ephemeral": {"volumeClaimTemplate": {"spec": {"dataSource": {"name": "x"}}}}}),
    ("volumes.-", {"name": "work", "persistentVolumeClaim": {"claimName": "a"}}),
    ("volumes.-", {"name": "vol-a", "configMap": {"name": "a", "items": [{"key": "a", "path": "ca.crt"}]}}),
    ("volumes.-", {"name": "ca", "configMap": {"name": "a"}}),
    ("volumes.-", {"name": "ca", "configMap": {"name": "a", "items": [{"key": "a", "path": "../x"}]}}),
    ("volumes.-", {"name": "ca", "configMap": {"name": "a", "items": [{"key": "../a", "path": "ca.crt"}]}}),
    ("volumes.-", {"name": "ca", "secret": {"secretName": "a"}}),
    ("containers.0.volumeMounts.-", {"name": "ca", "mountPath": "/etc", "readOnly": True}),
    ("containers.0.volumeMounts.-", {"name": "ca", "mountPath": "/etc/selfevo/ca"}),
    ("containers.0.volumeMounts.-", {"name": "vol-a", "mountPath": "/etc"}),
    ("containers.0.volumeMounts.-", {"name": "vol-a", "mountPath": "/mnt/../etc"}),
    ("containers.0.volumeMounts.-", {"name": "vol-a", "mountPath": "/mnt/a", "subPath": ".."}),
    ("containers.0.volumeMounts.-", {"name": "vol-a", "mountPath": "/mnt/a", "mountPropagation": "Bidirectional"}),
    ("shareProcessNamespace", True),
    ("ephemeralContainers", []),
    ("resourceClaims", []),
    ("automountServiceAccountToken", True),
    ("enableServiceLinks", True),
    ("restartPolicy", "Always"),
    ("activeDeadlineSeconds", 1),
    ("securityContext.runAsUser", 0),
    ("securityContext.fsGroup", 0),
    ("securityContext.runAsNonRoot", False),
    ("securityContext.runAsNonRoot", 1),
    ("containers.0.securityContext.allowPrivilegeEscalation", 0),
    ("securityContext.supplementalGroups", [0]),
    ("securityContext.sysctls", []),
    ("securityContext.seccompProfile", {"type": "Unconfined"}),
    ("securityContext.seLinuxOptions", {}),
    ("containers.0.securityContext.privileged", True),
    ("containers.0.securityContext.allowPrivilegeEscalation", True),
    ("containers.0.securityContext.readOnlyRootFilesystem", False),
    ("containers.0.securityContext.runAsUser", 0),
    ("containers.0.securityContext.procMount", "Unmasked"),
    ("containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    ("containers.0.command", ["sh", "-c", "id"]),
    ("containers.0.args", ["--help"]),
    ("containers.0.lifecycle", {}),
    ("containers.0.envFrom", [{"secretRef": {"name": "all"}}]),
    ("containers.0.stdin", True),
    ("containers.0.workingDir", "/"),
    ("containers.0.volumeDevices", []),
    ("containers.0.terminationMessagePath", "/etc/passwd"),
    ("containers.0.name", "other"),
    ("containers.0.env.-", {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
    ("containers.0.env.-", {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "../password"}}}),
    ("containers.0.env.-", {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "a"}}}),
    ("containers.0.env.-", {"name": "X", "valueFrom": {"fileKeyRef": {"path": "/etc/passwd"}}}),
    ("containers.0.volumeMounts.-", {"name": "work", "mountPath": "/etc"}),
    ("containers.0.volumeMounts.-", {"name": "work", "mountPath": "/work", "subPath": ".."}),
    ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}]),
    ("volumes.-", {"name": "work", "hostPath": {"path": "/"}}),
    ("volumes.-", {"name": "work", "emptyDir": {}, "hostPath": {"path": "/"}}),
    ("volumes.-", {"name": "token", "projected": {}}),
    ("volumes", {}),
    ("containers", [None]),
    ("nodeSelector", {"a": 1}),
    ("tolerations", [{"operator": "Any"}]),
    ("terminationGracePeriodSeconds", True),
    ("unknown", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value"), ADDITIONS)
def test_a_field_or_value_outside_of_the_list_is_refused(pod: Pod, path: str, value: Any) -> None:
    add(path, value)(pod)
    with pytest.raises(allowlist.NotAllowed, match="not what selfevo may create"):
        allowlist.check(pod)


@pytest.mark.parametrize(
    "path",
    [
        "securityContext",
        "securityContext.runAsNonRoot",
        "securityContext.seccompProfile",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "restartPolicy",
        "containers.0.securityContext",
        "containers.0.securityContext.allowPrivilegeEscalation",
        "containers.0.securityContext.capabilities",
        "containers.0.securityContext.capabilities.drop",
        "containers.0.securityContext.readOnlyRootFilesystem",
        "containers.0.command",
        "volumes.0.emptyDir",
    ],
)
def test_a_field_whose_absence_would_be_a_right_must_be_there(pod: Pod, path: str) -> None:
    drop(path)(pod)
    with pytest.raises(allowlist.NotAllowed, match=f"{path.rsplit('.', 1)[-1]} is missing"):
        allowlist.check(pod)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.manualSelector", True),
        ("spec.suspend", True),
        ("spec.managedBy", "other/controller"),
        (
            "spec.template.metadata.annotations",
            {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"},
        ),
        ("metadata.labels", {"kueue.x-k8s.io/managed": "true"}),
        ("metadata.labels", {"batch.kubernetes.io/x": "a"}),
        ("metadata.annotations", {"team": "a"}),
        ("spec.template.metadata.annotations", {"cdi.k8s.io/x": "nvidia.com/gpu=all"}),
        ("spec.template.metadata.annotations", {"io.kubernetes.cri-o.Devices": "/dev/kmsg"}),
        ("spec.template.metadata.labels", {"job-name": "other"}),
        ("metadata.finalizers", ["x/y"]),
        ("metadata.ownerReferences", [{"kind": "Node"}]),
        ("spec.template.spec.hostNetwork", True),
    ],
)
def test_a_job_has_a_list_too(job: dict[str, Any], path: str, value: Any) -> None:
    add(path, value)(job)
    with pytest.raises(allowlist.NotAllowed):
        allowlist.check_job(job)


def test_the_nodes_network_is_on_the_list_where_the_platform_says_so(job: dict[str, Any]) -> None:
    add("spec.template.spec.hostNetwork", True)(job)
    add("spec.template.spec.dnsPolicy", "ClusterFirstWithHostNet")(job)
    allowlist.check_job(job, host_network=True)
    for path, value in (("hostNetwork", 1), ("dnsPolicy", "Default"), ("hostPID", True)):
        broken = copy.deepcopy(job)
        add(f"spec.template.spec.{path}", value)(broken)
        with pytest.raises(allowlist.NotAllowed, match=path):
            allowlist.check_job(broken, host_network=True)


def test_rendering_asks_the_list_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(*arguments: Any) -> Pod:
        return {**pods.pod_spec(*arguments), "hostPID": True}

    monkeypatch.setattr(jobs, "pod_spec", careless)
    with pytest.raises(allowlist.NotAllowed, match="hostPID is there"):
        rendered()


def test_the_sentence_names_field_and_value(pod: Pod) -> None:
    broken = copy.deepcopy(pod)
    broken["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    with pytest.raises(allowlist.NotAllowed) as refused:
        allowlist.check(broken)
    assert "pod.spec.containers[0].securityContext.readOnlyRootFilesystem is False" in str(refused.value)
    assert refused.value.reason == "NotAllowed"
