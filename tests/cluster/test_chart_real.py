"""The chart's life on a real node, where nobody plays anything: the operator, the pod of `helm test` and the trainers
are pods, under the chart's own security contexts and rights. Installed, tested, upgraded while a run is under way,
uninstalled; then what is left.

One life, which the fixture leads; the tests say what it must have been.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import versitygw
from harness.chart import NAMESPACE, RELEASE
from harness.cluster import arithmetic, controlplane, node, tools
from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import RUNS, conditions, eventually, jobs, phase_of, status_of
from harness.cluster.controlplane import RESTRICTED, Access, ControlPlane
from harness.cluster.manifests import condition
from harness.cluster.node import IMAGE, NEXT_IMAGE, Node
from harness.cluster.podrecord import PodRecord, recording
from harness.cluster.release import Release
from harness.gotools import ToolUnavailable
from harness.holding import Hold, faults
from harness.podsecurity import violations
from harness.s3proxy import proxied
from harness.versitygw import S3Server
from runs import HEAVY_MODULES

pytestmark = pytest.mark.slow
Object = dict[str, Any]

CRD = "selfevolutionruns.selfevo.dev"
RESEARCH, PERSON = "research", "ada"
UNDER_WAY = "challenger-train-1"
STEPS = (UNDER_WAY, "solver-rollout-1", "solver-train-1")
"""Of the run: no evaluation, and a rollout of one pod (those are in test_real_pods.py)."""
CONFINED = {"Uid": {"10001"}, "CapEff": {"0" * 16}, "NoNewPrivs": {"1"}, "Seccomp": {"2"}, "root": {"ro"}}
"""As the kernel has it: a filter of system calls, no rights of root, and no way to get any."""


@dataclass
class Life:
    """The release and a run, and what was seen of them on the way."""

    plane: ControlPlane
    node: Node
    release: Release
    s3: S3Server
    folder: Path
    system: PodRecord
    """Pods of the release."""
    pods: PodRecord
    """Pods of runs."""
    manifest: Object = field(default_factory=dict)
    """The run, as the person applied it."""
    helm_test: str = ""
    confined: dict[str, Object] = field(default_factory=dict)
    """What the kernel says of the processes in a pod."""
    probes: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """See `Node.probes`."""
    before: list[Object] = field(default_factory=list)
    """The run's Jobs right before the upgrade, and right after it."""
    after: list[Object] = field(default_factory=list)
    asked: list[Access] = field(default_factory=list)
    """Of the API server, until the chart was uninstalled."""
    run: Object = field(default_factory=dict)
    """When it had succeeded."""
    uninstalled: str = ""

    @property
    def admin(self) -> Api:
        return self.plane.admin

    @contextmanager
    def reported_on_failure(self) -> Iterator[None]:
        """Prints what a person would read."""
        try:
            yield
        except BaseException:
            runs = self.admin.list(RUNS, RESEARCH) if self.admin.find("customresourcedefinitions", CRD) else []
            print("-- runs", json.dumps([status_of(run) for run in runs], indent=1))
            print(self.system.tell(6000), self.pods.tell(), self.node.tail(), sep="\n")
            raise

    def operators(self) -> list[Object]:
        """Its pods, the older first."""
        found = [pod for pod in self.system.all if _component(pod) == "operator"]
        return sorted(found, key=lambda pod: pod["status"].get("startTime", ""))

    def inspect_pod(self, name: str, pod: Object, container: str) -> None:
        pids = self.node.processes(pod, container)
        seen = [_of_process(pid) for pid in pids]
        self.confined[name] = {key: {one[key] for one in seen} for key in CONFINED}


def _component(pod: Object) -> str:
    return pod["metadata"]["labels"]["app.kubernetes.io/component"]


def _image(owner: Object) -> str:
    spec = owner["spec"].get("template", owner)["spec"]
    return spec["containers"][0]["image"]


def _of_process(pid: int) -> Object:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    root = next(mount[5] for mount in mounts if mount[4] == "/")
    return {**{name: value.split()[0] for name, value in status.items() if value.split()}, "root": root.split(",")[0]}


def _values(s3: S3Server, endpoint: str, bucket: str, image: str, workers: int) -> Object:
    """The chart's own, but for the images and what the test trains on."""
    repository, tag = image.rsplit(":", 1)
    one = {"repository": repository, "tag": tag}
    tests = {
        "storage": {
            "uri": f"s3://{bucket}/helm-test",
            "endpoint": endpoint,
            "region": versitygw.REGION,
            "credentialsSecret": arithmetic.SECRET,
        },
        "model": {"uri": f"s3://{bucket}/base", "dtype": "float32"},
        "spec": {"pods": arithmetic.PODS},
        "timeoutSeconds": 1000,
    }
    return {
        "image": one,
        "trainer": {"image": one},
        "scope": {"namespaces": [RESEARCH]},
        "operator": {"workers": workers},
        "tests": tests,
    }


def _person(plane: ControlPlane) -> Api:
    """Somebody who may write runs and name one Secret, and nothing else."""
    rbac = "rbac.authorization.k8s.io"
    plane.admin.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "writes-runs", "namespace": RESEARCH},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": f"{NAMESPACE}-{RELEASE}-runs-edit"},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": PERSON}],
        }
    )
    secret = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [arithmetic.SECRET], "verbs": ["get"]}
    plane.grant(PERSON, [secret], RESEARCH)
    return plane.client(plane.user(PERSON))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("chart-real")
    second = Hold("PUT", f"/{UNDER_WAY[:-2]}/[^/]+/checkpoints/0*2/MANIFEST.json")
    try:
        tools.program(tools.HELM)
        with (
            versitygw.running(folder / "s3") as s3,
            proxied(s3, faults(second)) as proxy,
            # The CRD comes with the chart.
            controlplane.running(folder / "plane", scheduler=True, audit=True) as plane,
            node.running(plane, folder / "node") as real_node,
        ):
            compiled = ("selfevo_trainer.main", *HEAVY_MODULES, "transformers.models.qwen3.modeling_qwen3")
            node.compile_ahead("selfevo_operator.main", *compiled)
            for name in (NAMESPACE, RESEARCH):
                about = {"name": name, "labels": RESTRICTED}
                plane.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": about})
                plane.admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, name)
            plane.admin.create(arithmetic.secret(s3), RESEARCH)
            endpoint = f"http://{real_node.expose(int(proxy.endpoint.rpartition(':')[2]))}"
            release = Release(plane, folder, tools.HELM)
            with recording(plane.admin, NAMESPACE) as system, recording(plane.admin, RESEARCH) as pods:
                led = Life(plane, real_node, release, s3, folder, system, pods)
                with led.reported_on_failure():
                    _lead(led, endpoint, second)
                yield led
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


def _lead(life: Life, endpoint: str, second: Hold) -> None:
    life.manifest = arithmetic.small_run(life.s3, endpoint, RESEARCH, life.folder)
    del life.manifest["spec"]["evaluation"]
    life.manifest["spec"]["rollout"]["shards"] = 1
    name = life.manifest["metadata"]["name"]
    bucket = life.manifest["spec"]["storage"]["uri"].split("/")[2]

    def until(true: Callable[[], object]) -> None:
        def there() -> bool:
            phase = phase_of(life.admin.get(RUNS, name, RESEARCH))
            if true():
                return True
            assert phase not in ("Succeeded", "Failed"), phase
            return False

        eventually(there, arithmetic.LIMIT_S)

    wait = ("--wait", "--timeout", "600s")
    life.release.install(_values(life.s3, endpoint, bucket, IMAGE, 4), *wait)
    life.inspect_pod("operator", life.operators()[0], "operator")
    life.helm_test = life.release.helm("test", RELEASE, "--logs", "--timeout", "1100s")

    _person(life.plane).create(life.manifest)
    until(lambda: second.met)  # it trains, and saves a checkpoint
    (training,) = [pod for pod in life.pods.of(UNDER_WAY) if pod["metadata"]["labels"]["selfevo.dev/run"] == name]
    life.inspect_pod("trainer", training, "trainer")
    life.before = jobs(life.admin, RESEARCH, name)
    life.release.upgrade(_values(life.s3, endpoint, bucket, NEXT_IMAGE, 3), *wait)
    life.after = jobs(life.admin, RESEARCH, name)
    second.let_go()
    until(lambda: phase_of(life.admin.get(RUNS, name, RESEARCH)) == "Succeeded")
    life.run = life.admin.get(RUNS, name, RESEARCH)

    life.probes = life.node.probes()
    life.asked = list(life.plane.audited())
    life.uninstalled = life.release.helm("uninstall", RELEASE, *wait)
    eventually(lambda: not life.admin.list("pods", NAMESPACE, "app.kubernetes.io/component=operator"))


def test_the_operator_and_the_trainers_are_confined_as_the_chart_says(life: Life):
    assert life.confined == {"operator": CONFINED, "trainer": CONFINED}
    for pod in (*life.system.all, *life.pods.all):
        assert violations(pod["spec"]) == []
    for pod in life.pods.all:
        assert pod["spec"]["automountServiceAccountToken"] is False
    for pod in life.operators():
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "defect" not in life.system.log(pod) and "Traceback" not in life.system.log(pod)


def test_the_kubelets_probes_are_answered_and_no_operator_is_started_twice(life: Life):
    asked = {
        (kind, answer): times for (container, kind, answer), times in life.probes.items() if container == "operator"
    }
    assert asked["Liveness", "successful"] >= 1 and asked["Readiness", "successful"] >= 1
    # On a loaded machine an answer may come late once; what counts is that nobody is started again for it.
    assert asked.get(("Liveness", "failed"), 0) < asked["Liveness", "successful"]
    assert [_operator(pod)["restartCount"] for pod in life.operators()] == [0, 0]


def test_helm_test_trains_a_run_to_its_end(life: Life):
    (pod,) = [pod for pod in life.system.all if _component(pod) == "test"]
    assert pod["status"]["phase"] == "Succeeded" and _image(pod) == IMAGE
    lines = life.system.log(pod).splitlines()
    assert lines[:2] == ["the operator is ready", f"the API server takes a run in {RESEARCH}"] and lines[-1] == "PASSED"
    assert any(line.startswith("run selfevo-test: Succeeded: ") for line in lines)
    assert life.helm_test.endswith("\n".join(lines) + "\n\n"), life.helm_test
    assert life.admin.find(RUNS, "selfevo-test", RESEARCH) is None


def test_the_run_succeeds_through_the_upgrade_and_no_step_is_done_twice(life: Life):
    assert conditions(life.run) == {"Ready": "AllStepsSucceeded", "Complete": "AllStepsSucceeded"}
    status = status_of(life.run)
    done = [(step["name"], step["state"], step["attempts"], step["reused"]) for step in status["steps"]]
    assert done == [(name, "Succeeded", 1, False) for name in STEPS]

    old = {_uid(job) for job in life.before}
    assert UNDER_WAY in map(_step, life.before) and not [job for job in life.before if condition(job, "Failed")]
    assert old <= {_uid(job) for job in life.after}
    made = jobs(life.admin, RESEARCH, life.manifest["metadata"]["name"])
    assert sorted(map(_step, made)) == sorted(STEPS)
    assert {_step(job): _image(job) for job in made} == {
        _step(job): IMAGE if _uid(job) in old else NEXT_IMAGE for job in made
    }
    assert _image(next(job for job in made if _step(job) == "solver-train-1")) == NEXT_IMAGE
    for pod in life.pods.all:
        assert [s["restartCount"] for s in pod["status"]["containerStatuses"]] == [0], pod["metadata"]["name"]


def test_the_old_operator_ends_by_itself_before_the_new_one_begins(life: Life):
    old, new = life.operators()
    assert (_image(old), _image(new)) == (IMAGE, NEXT_IMAGE)
    for pod, workers in ((old, 4), (new, 3)):
        assert f"--workers={workers}" in pod["spec"]["containers"][0]["args"]
        assert _operator(pod)["state"]["terminated"]["exitCode"] == 0
    begun = _operator(new)["state"]["terminated"]["startedAt"]
    assert _operator(old)["state"]["terminated"]["finishedAt"] <= begun


def test_rights_as_shipped_suffice_in_the_pods(life: Life):
    of_pods = {f"system:serviceaccount:{NAMESPACE}:{account}" for account in (RELEASE, f"{RELEASE}-test")}
    theirs = [access for access in life.asked if access.user in of_pods]
    assert {access.user for access in theirs} == of_pods
    assert [access for access in theirs if access.code in (401, 403)] == []
    operators = [access for access in theirs if access.user.endswith(f":{RELEASE}")]
    assert {access.namespace for access in operators} == {RESEARCH}
    assert ("create", "jobs") in {(access.verb, access.resource) for access in operators}


def test_uninstall_leaves_the_runs_and_their_definition_and_nothing_else(life: Life):
    assert f"[CustomResourceDefinition] {CRD}" in life.uninstalled
    assert life.admin.get("customresourcedefinitions", CRD)["status"]["acceptedNames"]["shortNames"] == ["ser"]
    left = life.admin.get(RUNS, life.run["metadata"]["name"], RESEARCH)
    assert left["metadata"]["uid"] == life.run["metadata"]["uid"] and left["spec"] == life.run["spec"]
    assert status_of(left) == status_of(life.run)

    assert life.admin.list("deployments", NAMESPACE) == []
    assert life.admin.list("validatingadmissionpolicies") == []
    for resource, namespace in (("roles", RESEARCH), ("roles", NAMESPACE), ("clusterroles", None)):
        names = [each["metadata"]["name"] for each in life.admin.list(resource, namespace)]
        assert [name for name in names if RELEASE in name] == []
    # Nobody may write runs any more by the chart's leave.
    with pytest.raises(ApiError, match="403 Forbidden"):
        life.plane.client(life.plane.user(PERSON)).list(RUNS, RESEARCH)


def test_uninstall_leaves_what_was_trained(life: Life):
    def selfevo(*arguments: str) -> str:
        return arithmetic.selfevo(life.manifest, life.s3, life.folder, *arguments)

    assert "3 of 3 steps are in the store, 0 damaged" in selfevo("artifacts", "verify", "run.yaml")
    path = selfevo("artifacts", "path", "run.yaml", "--iteration", "1").strip()
    assert path.startswith(status_of(life.run)["modelUri"])
    # The model of `helm test` as well: the next one finds it there.
    bucket = life.manifest["spec"]["storage"]["uri"].split("/")[2]
    kept = life.s3.client.list_objects_v2(Bucket=bucket, Prefix="helm-test/")["Contents"]
    kept = [entry["Key"] for entry in kept if "/solver-train/" in entry["Key"]]
    assert {key.rsplit("/", 1)[1] for key in kept} >= {"model.safetensors", "MANIFEST.json"}


def _operator(pod: Object) -> Object:
    (status,) = pod["status"]["containerStatuses"]
    return status


def _step(job: Object) -> str:
    return job["metadata"]["labels"]["selfevo.dev/step"]


def _uid(job: Object) -> str:
    return job["metadata"]["uid"]
