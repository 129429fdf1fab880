"""Rendered Jobs before a real API server and a real Job controller: admitted as restricted, and retried as promised."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from harness import specs
from harness.cluster.client import ApiError
from harness.cluster.controlplane import ControlPlane
from harness.podsecurity import violations
from harness.runs import make_run
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_core.attempts import attempt_name
from selfevo_operator.manifests.job import render
from selfevo_operator.manifests.settings import PodSettings

pytestmark = pytest.mark.slow

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "jobs").glob("*.json"))
SETTINGS = PodSettings(
    image="registry.example/selfevo-trainer:0.1.0",
    resource_claim_templates=specs.CLAIM_TEMPLATES,
    resource_claims=specs.CLAIMS,
)
Object = dict[str, Any]


def named_by(pod: Object, plane: ControlPlane, namespace: str) -> None:
    """What a pod's spec names must be there before the pod: its identity and its classes."""
    if account := pod.get("serviceAccountName"):
        plane.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, namespace)
    if priority := pod.get("priorityClassName"):
        about = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 7}
        plane.admin.apply({**about, "metadata": {"name": priority}})
    if runtime := pod.get("runtimeClassName"):
        about = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "nvidia"}
        plane.admin.apply({**about, "metadata": {"name": runtime}})


def here(manifest: Object, namespace: str) -> Object:
    """The manifest in this namespace, with no owner: the garbage collector would search for the run in vain."""
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "ownerReferences"}
    return {**manifest, "metadata": {**metadata, "namespace": namespace}}


def pod_from(job: Object, namespace: str) -> Object:
    template = job["spec"]["template"]
    metadata = {**template["metadata"], "name": f"{job['metadata']['name']}-x", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_manifests_and_their_pods_are_admitted(file: Path, control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.admin
    job, *services = json.loads(file.read_text())
    named_by(job["spec"]["template"]["spec"], control_plane, namespace)
    job["metadata"]["namespace"] = namespace
    stored = api.create(job, dryRun="All", fieldValidation="Strict")
    assert stored["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]
    for service in services:
        api.create(here(service, namespace), fieldValidation="Strict")
    # PodSecurity enforces on pods, not on Jobs: only the Job controller's own pods show that they get through.
    job = here(job, namespace)
    api.create(pod_from(job, namespace), dryRun="All", fieldValidation="Strict")
    api.create(job, fieldValidation="Strict")
    wanted = job["spec"]["completions"]
    pods = pods_when(control_plane, namespace, lambda pods: len(pods) == wanted)
    if services:
        hosts = {f"{pod['spec']['hostname']}.{pod['spec']['subdomain']}" for pod in pods}
        (coordinator,) = {v["value"] for v in pods[0]["spec"]["containers"][0]["env"] if v["name"] == "MASTER_ADDR"}
        assert coordinator in hosts


# --- PodSecurity: tests/operator judges thousands of pods by harness/podsecurity.py, which is judged here -------------

Change = Callable[[Object], Any]


def context(**more: Any) -> Change:
    return lambda spec: spec["securityContext"].update(more)


def own(**more: Any) -> Change:
    """Of a container; None removes."""

    def change(spec: Object) -> None:
        about = spec["containers"][0]["securityContext"]
        about.update(more)
        for name in [name for name, value in about.items() if value is None]:
            del about[name]

    return change


def container(**more: Any) -> Change:
    return lambda spec: spec["containers"][0].update(more)


def volume(**kind: Any) -> Change:
    return lambda spec: spec["volumes"].append({"name": next(iter(kind)).lower(), **kind})


def both(*changes: Change) -> Change:
    return lambda spec: [change(spec) for change in changes]


PROFILES = [{"type": "RuntimeDefault"}, {"type": "Localhost", "localhostProfile": "x.json"}]
CALL: Object = {"port": 80, "host": "10.0.0.1"}
CLAIM: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
REFUSED: dict[str, Change] = {
    "the host's network": lambda spec: spec.update(hostNetwork=True),
    "the host's processes": lambda spec: spec.update(hostPID=True),
    "the host's IPC": lambda spec: spec.update(hostIPC=True),
    "a folder of the host": volume(hostPath={"path": "/"}),
    "NFS": volume(nfs={"server": "10.0.0.1", "path": "/"}),
    "a kernel parameter": context(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "root": context(runAsUser=0),
    "perhaps root": context(runAsNonRoot=False),
    "perhaps root, though the container is not": both(context(runAsNonRoot=False), own(runAsNonRoot=True)),
    "nothing against root": both(
        lambda spec: spec["securityContext"].pop("runAsNonRoot", None), own(runAsNonRoot=None)
    ),
    "a container as root": own(runAsUser=0),
    "a container that is perhaps root": own(runAsNonRoot=False),
    "no seccomp": context(seccompProfile={"type": "Unconfined"}),
    "no seccomp, though the container has": both(
        context(seccompProfile={"type": "Unconfined"}), own(seccompProfile=PROFILES[0])
    ),
    "nothing about seccomp": both(
        lambda spec: spec["securityContext"].pop("seccompProfile", None), own(seccompProfile=None)
    ),
    "a container without seccomp": own(seccompProfile={"type": "Unconfined"}),
    "no AppArmor": context(appArmorProfile={"type": "Unconfined"}),
    "a container without AppArmor": own(appArmorProfile={"type": "Unconfined"}),
    "another SELinux type": context(seLinuxOptions={"type": "spc_t"}),
    "another SELinux user": own(seLinuxOptions={"user": "system_u"}),
    "privileged": own(privileged=True, allowPrivilegeEscalation=None),
    "escalation": own(allowPrivilegeEscalation=True),
    "nothing about escalation": own(allowPrivilegeEscalation=None),
    "a capability": own(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
    "capabilities": own(capabilities=None),
    "some capabilities": own(capabilities={"drop": ["NET_RAW"]}),
    "a port of the host": container(ports=[{"containerPort": 80, "hostPort": 80}]),
    "a probe of another host": container(livenessProbe={"httpGet": CALL}),
    "a probe of another host's port": container(readinessProbe={"tcpSocket": CALL}),
    "a hook to another host": container(lifecycle={"preStop": {"httpGet": CALL}}),
}
ADMITTED: dict[str, Change] = {
    "nothing": lambda spec: None,
    "what a container says itself": lambda spec: spec["securityContext"].pop("runAsNonRoot", None),
    "a ConfigMap": volume(configMap={"name": "x"}),
    "a Secret": volume(secret={"secretName": "x"}),
    "a token": volume(projected={"sources": [{"serviceAccountToken": {"path": "x"}}]}),
    "a claim": volume(persistentVolumeClaim={"claimName": "x"}),
    "a claim of its own": volume(ephemeral={"volumeClaimTemplate": {"spec": CLAIM}}),
    "a driver's volume": volume(csi={"driver": "x.example"}),
    "an image": volume(image={"reference": "x"}),
    "its own fields": volume(downwardAPI={"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}),
    "another user": context(runAsUser=7),
    "a profile of the node's": context(seccompProfile=PROFILES[1]),
    "a container with a profile": own(seccompProfile=PROFILES[1], appArmorProfile=PROFILES[0]),
    "an SELinux level": context(seLinuxOptions={"level": "s0:c1,c2", "type": "container_t"}),
    "low ports": own(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    "a port": container(ports=[{"containerPort": 80}]),
    "a probe of its own": container(livenessProbe={"httpGet": {"port": 80}}),
}
"""What `restricted` allows. A run cannot have it all the same: see operator/selfevo_operator/manifests/allowlist.py."""


def golden_pod(file: Path, namespace: str) -> Object:
    pod = pod_from(json.loads(file.read_text())[0], namespace)
    for name in ("serviceAccountName", "priorityClassName", "runtimeClassName"):
        pod["spec"].pop(name, None)
    return pod


def refused_by_podsecurity(pod: Object, plane: ControlPlane) -> bool:
    try:
        plane.admin.create(pod, dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        assert "violates PodSecurity" in str(error), error  # else it is no pod at all, and shows nothing
        return True
    return False


def test_what_is_called_restricted_is_what_the_api_server_calls_so(control_plane: ControlPlane, namespace: str) -> None:
    for name, change in {**REFUSED, **ADMITTED}.items():
        pod = golden_pod(GOLDEN[0], namespace)
        change(pod["spec"])
        assert refused_by_podsecurity(pod, control_plane) == (name in REFUSED), name
        assert bool(violations(pod["spec"])) == (name in REFUSED), f"{name}: {violations(pod['spec'])}"


def test_the_two_agree_on_whatever_is_made_of_our_pods(control_plane: ControlPlane, namespace: str) -> None:
    random, refused = Random(0), 0
    for number in range(1000):
        pod = golden_pod(GOLDEN[number % len(GOLDEN)], namespace)
        chosen = random.sample(sorted(ADMITTED), random.randint(0, 3)) + random.sample(sorted(REFUSED), number % 2)
        for name in chosen:
            {**REFUSED, **ADMITTED}[name](pod["spec"])
        found = violations(pod["spec"])
        assert bool(found) == refused_by_podsecurity(pod, control_plane), f"{chosen}: {found}"
        refused += bool(found)
    assert refused > 400


def test_whatever_is_rendered_is_admitted(control_plane: ControlPlane, namespace: str) -> None:
    admitted = itertools.count()

    @given(document=specs.documents())
    @settings(max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def search(document: Object) -> None:
        document["metadata"]["namespace"] = namespace
        try:
            run = SelfEvolutionRun.model_validate(document)
        except ValidationError:
            return
        for step in plan(run.spec).steps[:4]:
            try:
                job, *services = render(run, step, 1, attempt_name(run.metadata.name, step, 1), SETTINGS)
            except InputError:
                continue
            named_by(job["spec"]["template"]["spec"], control_plane, namespace)
            for manifest in (job, *services, pod_from(job, namespace)):
                control_plane.admin.create(manifest, dryRun="All", fieldValidation="Strict")
            next(admitted)

    search()
    assert (count := next(admitted)) > 320, f"most of what is tried should be rendered, not {count}"


# --- the Job controller -----------------------------------------------------------------------------------------------


def pods_when(plane: ControlPlane, namespace: str, until: Callable[[list[Object]], bool]) -> list[Object]:
    deadline = time.monotonic() + 180
    while not until(pods := plane.admin.list("pods", namespace)):
        assert time.monotonic() < deadline, [(pod["metadata"]["name"], pod["status"]) for pod in pods]
        time.sleep(0.05)
    return pods


def start(plane: ControlPlane, namespace: str, step: str, **changes: Any) -> tuple[Object, list[Object]]:
    """A rendered Job with its pods, which nobody runs."""
    run = make_run(metadata__namespace=namespace, metadata__uid="u", spec__storage__uri="s3://models/x", **changes)
    of = plan(run.spec).by_name[step]
    job, *_ = render(run, of, 1, attempt_name("demo", of, 1), SETTINGS)
    plane.admin.create(here(job, namespace), fieldValidation="Strict")
    return job, pods_when(plane, namespace, lambda pods: len(pods) == job["spec"]["completions"])


def end(plane: ControlPlane, pod: Object, code: int, *, disrupted: bool = False) -> None:
    """What a kubelet says of a pod whose trainer has ended."""
    terminated = {"exitCode": code, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}
    status: Object = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [
            {
                "name": "trainer",
                **dict.fromkeys(("image", "imageID"), "x"),
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": terminated},
            }
        ],
    }
    if disrupted:
        status["conditions"] = [
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
        ]
    metadata = pod["metadata"]
    plane.admin.patch("pods", metadata["name"], {"status": status}, metadata["namespace"], "status", kind="strategic")


def index_of(pod: Object) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def job_when(plane: ControlPlane, job: Object, until: Callable[[Object], Any]) -> Object:
    metadata = job["metadata"]
    return plane.admin.wait(
        "jobs", metadata["name"], metadata["namespace"], until=lambda found: until(found.get("status", {}))
    )


def failed(status: Object) -> str:
    """Reason of the condition Failed."""
    return next((c["reason"] for c in status.get("conditions", []) if c["type"] == "Failed"), "")


@pytest.mark.parametrize("code", [2, 4])
def test_a_pod_that_no_retry_can_help_fails_the_job(control_plane: ControlPlane, namespace: str, code: int) -> None:
    job, (pod,) = start(control_plane, namespace, "solver-train-1")
    end(control_plane, pod, code)
    found = job_when(control_plane, job, failed)
    assert failed(found["status"]) == "PodFailurePolicy"


@pytest.mark.parametrize(("code", "disrupted", "counted"), [(3, False, 1), (143, False, 0), (137, True, 0)])
def test_other_pods_are_replaced_and_counted_if_it_was_their_fault(
    control_plane: ControlPlane, namespace: str, code: int, disrupted: bool, counted: int
) -> None:
    job, (pod,) = start(control_plane, namespace, "solver-train-1")
    end(control_plane, pod, code, disrupted=disrupted)
    pods_when(control_plane, namespace, lambda pods: any(p["status"]["phase"] == "Pending" for p in pods))
    found = job_when(
        control_plane, job, lambda status: status.get("failed", 0) == counted and status.get("active") == 1
    )
    assert not failed(found["status"])


def test_when_one_node_fails_all_are_replaced_and_it_counts_once(control_plane: ControlPlane, namespace: str) -> None:
    two = {"spec__solver__pods": {"nodes": 2}, "spec__solver__grpo__perDeviceTrainBatchSize": 8}
    job, pods = start(control_plane, namespace, "solver-train-1", **two)
    for pod in pods:
        end(control_plane, pod, {0: 143, 1: 3}[index_of(pod)])

    def both_anew(pods: list[Object]) -> bool:
        return sorted(index_of(pod) for pod in pods if pod["status"]["phase"] == "Pending") == [0, 1]

    pods_when(control_plane, namespace, both_anew)
    found = job_when(control_plane, job, lambda status: status.get("failed", 0) == 1)
    assert not failed(found["status"])


def test_a_shard_that_gave_up_does_not_stop_the_others(control_plane: ControlPlane, namespace: str) -> None:
    many = {"spec__rollout__shards": 3, "spec__backoffLimit": 0}
    job, pods = start(control_plane, namespace, "solver-rollout-1", **many)
    by_index = {index_of(pod): pod for pod in pods}
    end(control_plane, by_index[1], 3)
    found = job_when(control_plane, job, lambda status: status.get("failedIndexes"))
    assert (found["status"]["failedIndexes"], found["status"]["active"]) == ("1", 2)
    assert not failed(found["status"])
    for index in (0, 2):
        end(control_plane, by_index[index], 0)
    found = job_when(control_plane, job, failed)
    assert failed(found["status"]) == "FailedIndexes"
    assert found["status"]["completedIndexes"] == "0,2"


def test_a_shard_that_no_retry_can_help_stops_them_all(control_plane: ControlPlane, namespace: str) -> None:
    job, pods = start(control_plane, namespace, "solver-rollout-1", spec__rollout__shards=3)
    end(control_plane, pods[1], 2)
    found = job_when(control_plane, job, failed)
    assert failed(found["status"]) == "PodFailurePolicy"
