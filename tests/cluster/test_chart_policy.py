"""What people who may write runs, and nothing else, can get out of that: what they may do otherwise, and no more.

The table of attacks is in harness/attacks.py and below. Each is tried on a real API server with the chart's policies
and roles, beside an operator under its own rights, and with a stand-in for the kubelet that plays every pod.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from botocore.exceptions import InvalidRegionError
from botocore.utils import validate_region_name

from harness.attacks import (
    HARMLESS,
    OTHERS,
    OWN,
    PARTS,
    PRUNED,
    REFUSED,
    TRAINER,
    VALUES,
    Object,
    base,
    devices,
    server,
    volume,
)
from harness.cluster import controlplane
from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import RUNS, conditions, eventually, jobs, phase_of, wait_run
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import playing
from harness.cluster.operator_process import operating
from harness.cluster.world import PLURALS, World, bind, own_pod, world
from harness.gotools import ToolUnavailable

pytestmark = pytest.mark.slow

UNDEFINED = "undefined field 'chalenger'"


@pytest.fixture(scope="module")
def guarded(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With a platform's lists, an operator, and pods that train."""
    try:
        with (
            world(control_plane, VALUES) as made,
            playing(made.admin, made.namespace, hurry=True),
            operating(
                control_plane,
                tmp_path_factory.mktemp("operator"),
                [made.namespace],
                flags=[
                    *("--image", TRAINER),
                    *("--allow-resource-claim-templates", "gpus-*", "--allow-resource-claims", "team-a-fabric"),
                ],
            ) as operator,
        ):
            yield made
            assert operator.alive
            code, text = operator.ask("/healthz")
            assert code == 200, text
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def by_default(control_plane: ControlPlane) -> Iterator[World]:
    """With the chart's own lists, and nobody who acts on runs."""
    try:
        with world(control_plane, {}) as made:
            yield made
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


# --- the table --------------------------------------------------------------------------------------------------------


def patch(kind: str, body: Any, **query: str) -> Callable[[Api, str], Any]:
    return lambda api, namespace: api.patch(RUNS, "target", body, namespace, kind=kind, **query)


def resource(name: str, verb: str, *more: str) -> Callable[[Api, str], Any]:
    return lambda api, namespace: getattr(api, verb)(name, *more, namespace)


def post(path: str, body: Object) -> Callable[[Api, str], Any]:
    return lambda api, namespace: api.request("POST", path.replace("NS", namespace), body)


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "x"},
    "spec": {"containers": [{"name": "x", "image": "x"}]},
}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"template": POD}}
TOKEN = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
APPLY = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun", "metadata": {"name": "target"}}
NAMES_ADMIN = {"spec": {"pods": {"serviceAccountName": OTHERS}}}
SA_PATH = "/spec/pods/serviceAccountName"
LABELLED = {"op": "add", "path": "/metadata/labels", "value": {"a": OTHERS}}
FROM_LABEL = {"from": "/metadata/labels/a", "path": SA_PATH}

FORBIDDEN: list[tuple[str, Callable[[Api, str], Any], str]] = [
    ("a pod", lambda api, ns: api.create(POD, ns), 'User "mallory" cannot create resource "pods"'),
    ("a Job", lambda api, ns: api.create(JOB, ns), 'cannot create resource "jobs"'),
    ("the Jobs of runs", resource("jobs", "list"), 'cannot list resource "jobs"'),
    ("the pods of runs", resource("pods", "list"), 'cannot list resource "pods"'),
    ("others' Secret", resource("secrets", "get", OTHERS), 'cannot get resource "secrets"'),
    ("all Secrets", resource("secrets", "list"), 'cannot list resource "secrets"'),
    ("a token of others", post(f"/api/v1/namespaces/NS/serviceaccounts/{OTHERS}/token", TOKEN), "cannot create"),
    ("a token of their own", post(f"/api/v1/namespaces/NS/serviceaccounts/{OWN}/token", TOKEN), "cannot create"),
    ("a shell in a pod", post("/api/v1/namespaces/NS/pods/x/exec?command=sh", {}), "cannot create"),
    ("a port of a pod", post("/api/v1/namespaces/NS/pods/x/portforward", {}), "cannot create"),
    ("an eviction", post("/api/v1/namespaces/NS/pods/x/eviction", {}), 'cannot create resource "pods/eviction"'),
    ("a status", lambda api, ns: api.patch(RUNS, "target", {"status": {"phase": "Succeeded"}}, ns, "status"),
     'cannot patch resource "selfevolutionruns/status"'),
    ("finalizers", lambda api, ns: api.patch(RUNS, "target", {}, ns, "finalizers"), "cannot patch"),
    ("the policy's removal", lambda api, ns: api.delete("validatingadmissionpolicies", f"{ns}-secrets"), "cannot"),
    ("the CRD", lambda api, ns: api.patch("customresourcedefinitions", "selfevolutionruns.selfevo.dev", {}), "cannot"),
    ("more rights", lambda api, ns: bind(api, ns, "mallory", "admin"), 'cannot create resource "rolebindings"'),
    ("everybody's runs", lambda api, ns: api.list(RUNS), "cannot list"),
    ("runs of another namespace", lambda api, ns: api.list(RUNS, "default"), "cannot list"),
    ("a run in another namespace", lambda api, ns: api.create(base("x"), "default"), "cannot create"),
    ("the namespace's labels", lambda api, ns: api.patch("namespaces", ns, {"metadata": {"labels": None}}), "cannot"),
]  # fmt: skip

CHANGES: list[tuple[str, Callable[[Api, str], Any], str]] = [
    ("another account by merge", patch("merge", NAMES_ADMIN), "pods.serviceAccountName is admin"),
    ("another account by JSON", patch("json", [{"op": "replace", "path": SA_PATH, "value": OTHERS}]), "is admin, a S"),
    ("another account by copy", patch("json", [LABELLED, {**FROM_LABEL, "op": "copy"}]), "is admin, a S"),
    ("another account by move", patch("json", [LABELLED, {**FROM_LABEL, "op": "move"}]), "is admin, a S"),
    ("another account by apply", patch("apply", {**APPLY, **NAMES_ADMIN}, fieldManager="x"), "conflict with"),
    ("another account by force", lambda api, ns: api.apply({**APPLY, **NAMES_ADMIN}, ns, manager="x"), "is admin, a S"),
    ("another account beside suspend", patch("merge", {"spec": {"suspend": True, **NAMES_ADMIN["spec"]}}), "is admin,"),
    ("another account for one part", patch("merge", {"spec": {"rollout": NAMES_ADMIN["spec"]}}), "spec.rollout.pods."),
    ("another account by strategy", patch("strategic", NAMES_ADMIN), "415"),
    ("a Secret", patch("merge", {"spec": {"storage": {"credentialsSecret": OTHERS}}}), "Secret is admin, a S"),
    ("another image", patch("merge", {"spec": {"pods": {"image": "evil"}}}), "spec.pods.image is evil, which is an"),
    ("another queue", patch("merge", {"spec": {"queue": "team-b"}}), "spec.queue is team-b, which is a queue"),
    ("no queue any more", patch("merge", {"spec": {"queue": None}}), "spec.queue is not given, and every run waits"),
    ("another place", patch("merge", {"spec": {"storage": {"uri": "s3://models/team-a/x"}}}), "start a new run"),
    ("an endpoint", patch("merge", {"spec": {"storage": {"endpoint": "http://169.254.169.254"}}}), "Invalid value"),
    ("a variable", patch("merge", {"spec": {"pods": {"env": [{"name": "LD_PRELOAD", "value": "x"}]}}}), "LD_PRELOAD"),
    ("status in a patch of spec", patch("merge", {"status": {"phase": "Succeeded"}, **NAMES_ADMIN}), "is admin, a S"),
]  # fmt: skip
"""Of a run that is theirs."""


def test_the_table_is_long_enough_and_says_nothing_twice():
    names = [f"refused: {name}" for name, *_ in REFUSED] + [f"pruned: {path} {value}" for path, value in PRUNED]
    names += [f"harmless: {name}" for name, *_ in HARMLESS] + [f"forbidden: {name}" for name, *_ in FORBIDDEN]
    names += [f"changed: {name}" for name, *_ in CHANGES]
    assert len(names) == len(set(names)) >= 150


@pytest.mark.parametrize(("name", "changes", "sees"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_it_is_refused(guarded: World, name: str, changes: Object, sees: str):
    run = base("attack", changes)
    with pytest.raises(ApiError) as refused:
        guarded.attempt(guarded.mallory, run)
    assert sees.replace(" in NS;", f" in {guarded.namespace};") in str(refused.value)
    assert guarded.admin.find(RUNS, "attack", guarded.namespace) is None


@pytest.mark.parametrize(("name", "act", "sees"), FORBIDDEN, ids=[name for name, *_ in FORBIDDEN])
def test_it_is_not_theirs(guarded: World, name: str, act: Callable[[Api, str], Any], sees: str):
    with pytest.raises(ApiError) as refused:
        act(guarded.mallory, guarded.namespace)
    assert refused.value.status == 403 and sees in str(refused.value)


@pytest.mark.parametrize(("name", "act", "sees"), CHANGES, ids=[name for name, *_ in CHANGES])
def test_a_run_cannot_be_changed_into_it(guarded: World, name: str, act: Callable[[Api, str], Any], sees: str):
    if guarded.admin.find(RUNS, "target", guarded.namespace) is None:
        guarded.attempt(guarded.mallory, base("target", {"spec.suspend": True}))
    before = guarded.admin.get(RUNS, "target", guarded.namespace)["spec"]
    with pytest.raises(ApiError) as refused:
        act(guarded.mallory, guarded.namespace)
    assert sees in str(refused.value)
    assert guarded.admin.get(RUNS, "target", guarded.namespace)["spec"] == before


def test_a_strict_client_sees_fields_that_a_run_has_not(guarded: World):
    for path, value in PRUNED:
        with pytest.raises(ApiError) as refused:
            guarded.attempt(guarded.mallory, base("attack", {path: value}), fieldValidation="Strict")
        # The first field on the way that is none.
        unknown = re.search(r'strict decoding error: unknown field "([^"]+)"', str(refused.value))
        assert unknown and f"{path}.".startswith(f"{unknown[1]}."), refused.value


def test_a_listed_claim_class_and_authority_may_be_mounted(guarded: World):
    for kind in (
        {"persistentVolumeClaim": {"claimName": "model-cache"}},
        {"ephemeral": {"size": 1, "storageClassName": "local"}},
    ):
        assert guarded.refusal(base("x", volume(kind))) == ""
    assert guarded.refusal(base("x", {"spec.pods.caBundle": {"configMap": "company-ca"}})) == ""
    for claim in ({"resourceClaimTemplateName": "gpus-8", "gpus": 8}, {"resourceClaimName": "team-a-fabric"}):
        assert guarded.refusal(base("x", devices(claim, "spec.solver.pods"))) == ""
    near = [{"key": "pool", "values": ["gpu", "l4"]}, {"key": "pool", "operator": "Exists", "weight": 5}]
    assert guarded.refusal(base("x", {"spec.pods.nodeAffinity": near})) == ""


# --- what gets through ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(guarded: World) -> dict[str, Object]:
    """All that is let through, created at once, by the line of the table."""
    lines = [(name, changes) for name, changes, _ in HARMLESS] + [(path, {path: value}) for path, value in PRUNED]
    runs = {line: base(f"through-{number}", changes) for number, (line, changes) in enumerate(lines)}
    return {line: guarded.attempt(guarded.mallory, run) for line, run in runs.items()}


def trained_as_its_own(world: World, run: Object) -> None:
    """Follows a run to its end, and asserts that each of its Jobs and pods is its author's own."""
    name = run["metadata"]["name"]
    wait_run(world.admin, world.namespace, name, lambda found: {"Complete", "Stalled"} & set(conditions(found)), 300)
    ended = world.admin.get(RUNS, name, world.namespace)
    assert phase_of(ended) == "Succeeded", conditions(ended)
    found = world.admin.list("pods", world.namespace, f"selfevo.dev/run={name}")
    phases = {pod["metadata"]["labels"]["selfevo.dev/phase"] for pod in found}
    assert phases == {"challenger-train", "solver-rollout", "solver-train", "evaluate"}
    for pod in found:
        own_pod(pod, ended)
    for job in jobs(world.admin, world.namespace, name):
        own_pod(job["spec"]["template"], ended)
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
        (owner,) = job["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("SelfEvolutionRun", run["metadata"]["uid"])


@pytest.mark.parametrize(("name", "changes", "why"), HARMLESS, ids=[name for name, *_ in HARMLESS])
def test_it_does_nothing(guarded: World, stored: dict[str, Object], name: str, changes: Object, why: str):
    trained_as_its_own(guarded, stored[name])


@pytest.mark.parametrize("path", [path for path, _ in PRUNED])
def test_what_a_run_has_not_is_dropped(guarded: World, stored: dict[str, Object], path: str):
    place: Any = stored[path]
    for name in path.split("."):
        assert isinstance(place, dict)
        if name not in place:
            break
        place = place[name]
    else:
        pytest.fail(f"{path} was stored")
    trained_as_its_own(guarded, stored[path])


def test_a_run_with_an_owner_that_is_not_there_is_collected_and_nothing_else(guarded: World):
    owner = {"apiVersion": "v1", "kind": "Secret", "name": OTHERS, "uid": "0", "controller": True}
    guarded.attempt(guarded.mallory, base("orphan", {"metadata.ownerReferences": [owner]}))
    guarded.admin.wait(RUNS, "orphan", guarded.namespace, until=lambda run: run is None)
    assert guarded.admin.find("secrets", OTHERS, guarded.namespace)


def test_after_all_that_a_good_run_trains(guarded: World, stored: dict[str, Object]):
    for run in stored.values():
        trained_as_its_own(guarded, run)
    trained_as_its_own(guarded, guarded.attempt(guarded.mallory, base("after-all")))


def test_a_region_that_is_a_host_is_refused_before_it_is_asked():
    with pytest.raises(InvalidRegionError):
        validate_region_name("x.evil.example/")


# --- the policy itself ------------------------------------------------------------------------------------------------

BY_DEFAULT: list[tuple[str, Object, str]] = [
    ("another image", {"spec.pods.image": "evil"}, f"which is an image that runs may not use; allowed are {TRAINER}"),
    ("control-plane nodes", {("spec", "pods", "nodeSelector"): {"node-role.kubernetes.io/control-plane": ""}}, "nodes"),
    ("their taint", {"spec.pods.tolerations": [{"key": "node-role.kubernetes.io/master"}]}, "which is a taint"),
    ("every taint", {"spec.pods.tolerations": [{"operator": "Exists"}]}, "tolerations is (every), which is a taint"),
    ("the cluster's priority", {"spec.pods.priorityClassName": "system-cluster-critical"}, "which is a priority class"),
    ("a device", {("spec", "pods", "resources", "limits"): {"devices.kubevirt.io/kvm": 1}}, "which is a resource that"),
    ("a file", {"spec.model.uri": "file:///etc/shadow"}, "entry of its own in policy.allowed.sources"),
    ("a file as data", {"spec.exclude": [{"uri": "file:///etc/shadow"}]}, "spec.exclude is file:///etc/shadow, which"),
    ("code of a model", {"spec.model.trustRemoteCode": True}, "runs may not execute code of a model's repository"),
    ("a loader's variable", {"spec.pods.env": [{"name": "LD_LIBRARY_PATH", "value": "/x"}]}, "which is a variable"),
    ("devices by a template", devices({"resourceClaimTemplateName": "gpus-8"}),
     "spec.pods.resourceClaims is gpus-8, which is a ResourceClaimTemplate that runs may not take devices by; remove"),
    ("devices by a claim", devices({"resourceClaimName": "a"}, "spec.rollout.pods"), "is a ResourceClaim that runs"),
    ("an authority", {"spec.pods.caBundle": {"configMap": "x"}}, "may not take authorities from; remove it"),
    ("the node's network", {"spec.solver.pods.hostNetwork": True}, "may not be on their node's network; remove it, or"),
    ("a proxy", {"spec.pods.env": [{"name": "HTTPS_PROXY", "value": "http://x"}]}, "which is a variable that runs may"),
    ("a metadata address", {"spec.storage.endpoint": "http://169.254.169.254"}, "which is no address of a store"),
]  # fmt: skip
FINE_BY_DEFAULT: list[tuple[str, Object]] = [
    ("nodes", {("spec", "pods", "nodeSelector"): {"pool": "gpu", "topology.kubernetes.io/zone": "a"}}),
    ("a taint", {"spec.pods.tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}),
    ("a queue", {"spec.queue": "any", "spec.rollout.queue": "other", "spec.priorityClass": "high"}),
    ("no queue", {"spec.queue": None}),
    ("a priority", {"spec.pods.priorityClassName": "training", "spec.pods.runtimeClassName": "nvidia"}),
    ("GPUs", {("spec", "pods", "resources"): {"limits": {"nvidia.com/gpu": 8}, "requests": {"cpu": 8}}}),
    ("variables", {"spec.pods.env": [{"name": name, "value": "1"} for name in (
        "NCCL_DEBUG", "NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "NCCL_NET", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS",
        "PYTORCH_CUDA_ALLOC_CONF", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES", "HF_HUB_ENABLE_HF_TRANSFER",
        "HF_HUB_OFFLINE", "TORCH_LOGS", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "VLLM_LOGGING_LEVEL", "WANDB_MODE", "TZ",
        "MALLOC_ARENA_MAX", "UCX_TLS", "FI_EFA_USE_DEVICE_RDMA", "GLOO_SOCKET_IFNAME", "TRITON_PRINT_AUTOTUNING",
        "MY_ENV", "APP_PATH", "CERTAIN", "LOCAL_MODE", "LANG", "LC_ALL", "ACCELERATE_LOG_LEVEL")]}),
    ("the trainer's image", {"spec.pods.image": TRAINER, "spec.rollout.pods.image": TRAINER}),
    *((f"a hub's model {uri}", {"spec.model.uri": uri, "spec.storage.uri": "s3://any"}) for uri in (
        "hf://Qwen/Qwen3-4B-Base@main", "hf://refs/pr@main", "hf://a/b@prefs/x", f"hf://a/b@{'c' * 40}")),
    *((f"endpoint {url}", {"spec.storage.endpoint": url}) for url in (
        "https://s3.eu-west-1.amazonaws.com", "http://minio.storage.svc:9000/", "http://10.0.0.7:9000", "http://Store:80",
        "http://[fd12:3456::7]:9000", "http://[2001:db8::7]:9000", "http://[2600:1f00::7]", "https://localhost.example",
        "https://metadata-store.example", "http://192.168.0.7", "http://minio.corp.internal",
        "https://1and1.example", "http://store-1.example.com", "http://a.b.c.d4e",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "sees"), BY_DEFAULT, ids=[name for name, *_ in BY_DEFAULT])
def test_the_charts_own_lists_refuse_it(by_default: World, name: str, changes: Object, sees: str):
    assert sees in by_default.refusal(base("attack", changes))


@pytest.mark.parametrize(("name", "changes"), FINE_BY_DEFAULT, ids=[name for name, _ in FINE_BY_DEFAULT])
def test_the_charts_own_lists_let_it_through(by_default: World, name: str, changes: Object):
    assert by_default.refusal(base("fine", changes)) == ""


def test_only_a_listed_store_may_be_asked_where_stores_are_listed(control_plane: ControlPlane, by_default: World):
    with world(control_plane, {"allowed": {"endpoints": ["https://minio.example:9000"]}}) as strict:
        assert strict.refusal(base("x", {"spec.storage.endpoint": "https://minio.example:9000"})) == ""
        for rebound in ("https://169.254.169.254.nip.io", "https://minio.example", "https://minio.example:9000/"):
            assert "which is a store that runs may not use" in strict.refusal(
                base("x", {"spec.storage.endpoint": rebound})
            )
        oracle = {"kind": "endpoint", "url": "https://llm.example", "model": "strong"}
        refused = strict.refusal(base("x", {("spec", "rollout", "oracle"): oracle}))
        assert "spec.rollout.oracle.url is https://llm.example, which" in refused
        listed = {**oracle, "url": "https://minio.example:9000"}
        assert strict.refusal(base("x", {("spec", "rollout", "oracle"): listed})) == ""


def test_only_listed_trackers_are_allowed_where_they_are_listed(control_plane: ControlPlane, by_default: World):
    def tracked(**tracker: str) -> Object:
        return base("x", {("spec", "tracking"): [{"kind": "tensorboard"}, tracker]})

    wandb, space = {"kind": "wandb"}, {"kind": "trackio", "space": "other/curves"}
    assert by_default.refusal(tracked(**wandb)) == "" == by_default.refusal(tracked(**space))
    with world(control_plane, {"allowed": {"trackers": ["https://mlflow.example", "hf://spaces/ours/*"]}}) as strict:
        assert strict.refusal(base("x", {("spec", "tracking"): [{"kind": "tensorboard"}]})) == ""
        assert strict.refusal(tracked(kind="mlflow", endpoint="https://mlflow.example")) == ""
        assert strict.refusal(tracked(kind="trackio", space="ours/curves")) == ""
        why = "which is a tracker that runs may not use; allowed are https://mlflow.example, hf://spaces/ours/*"
        assert f"spec.tracking.endpoint is https://api.wandb.ai, {why}" in strict.refusal(tracked(**wandb))
        assert f"spec.tracking.space is hf://spaces/other/curves, {why}" in strict.refusal(tracked(**space))


def test_only_a_listed_server_may_be_asked_where_servers_are_listed(control_plane: ControlPlane, by_default: World):
    token = {"tokenSecret": {"name": OWN}}
    with world(control_plane, {"allowed": {"servers": ["http://llm.serving:8000", "https://llm.example/*"]}}) as strict:
        for part in PARTS:
            assert strict.refusal(base("x", server("http://llm.serving:8000", part, **token))) == ""
            for other in ("http://llm.serving", "http://llm.serving:8000/", "https://llm.example.evil"):
                assert (
                    f"spec.{part}.engine.endpoint.url is {other}, which is a server that runs may not use; allowed are "
                    "http://llm.serving:8000, https://llm.example/*"
                ) in strict.refusal(base("x", server(other, part)))
    assert by_default.refusal(base("x", server("http://llm.serving.svc.cluster.local:8000"))) == ""


def test_a_pull_request_and_a_proxy_need_entries_that_name_them(control_plane: ControlPlane, by_default: World):
    sources = ["hf://Qwen/*", "hf://Qwen/x@refs/pr/7", "s3://*"]
    listed = {"sources": sources, "env": ["*", "HTTPS_PROXY", "NCCL_*"]}
    with world(control_plane, {"allowed": listed}) as strict:
        for revision, allowed in (("main", True), ("refs/pr/7", True), ("refs/pr/8", False)):
            refusal = strict.refusal(base("x", {"spec.model.uri": f"hf://Qwen/x@{revision}"}))
            assert ("which is a source that runs may not read" in refusal) is not allowed, (revision, refusal)
        for name, allowed in (("HTTPS_PROXY", True), ("https_proxy", False), ("NCCL_NET_PLUGIN", True)):
            refusal = strict.refusal(base("x", {"spec.model.uri": "hf://Qwen/x", "spec.pods.env": [{"name": name}]}))
            assert ("which is a variable that runs may not set" in refusal) is not allowed, (name, refusal)


def test_the_nodes_network_is_for_those_whom_the_platform_gives_it(control_plane: ControlPlane, by_default: World):
    with world(control_plane, {"allowed": {"hostNetwork": True}}) as generous:
        assert generous.refusal(base("x", {"spec.pods.hostNetwork": True})) == ""


def test_huge_pages_need_an_entry(control_plane: ControlPlane, by_default: World):
    run = base("x", {"spec.pods.resources": {"requests": {"memory": "1Gi"}, "limits": {"hugepages-2Mi": "64Mi"}}})
    with world(control_plane, {"allowed": {"resources": ["memory", "hugepages-*"]}}) as generous:
        assert generous.refusal(run) == ""
    assert "limits is hugepages-2Mi, which is a resource that runs may not use" in by_default.refusal(run)


class TestWhoIsAsked:
    @pytest.fixture
    def theirs(self, by_default: World) -> Iterator[World]:
        """A run of the owner's, whose account and Secret mallory may not use."""
        run = base("theirs", {"spec.pods.serviceAccountName": OTHERS, "spec.storage.credentialsSecret": OTHERS})
        by_default.attempt(by_default.owner, run)
        yield by_default
        by_default.admin.delete(RUNS, "theirs", by_default.namespace)

    @pytest.mark.parametrize(
        "change",
        [{"pods": {"env": [{"name": "A", "value": "b"}]}}, {"iterations": 5}, {"suspend": True, "iterations": 5}],
    )
    def test_nobody_works_under_an_account_by_way_of_anothers_run(self, theirs: World, change: Object):
        for api, allowed in ((theirs.mallory, False), (theirs.owner, True)):
            try:
                api.patch(RUNS, "theirs", {"spec": change}, theirs.namespace, dryRun="All")
                assert allowed
            except ApiError as error:
                assert not allowed and "that mallory may not" in str(error)

    def test_a_run_may_be_held_let_go_and_labelled_by_whoever_may_write_runs(self, theirs: World):
        for change in ({"spec": {"suspend": True}}, {"spec": {"suspend": False}}, {"metadata": {"labels": {"a": "b"}}}):
            theirs.mallory.patch(RUNS, "theirs", change, theirs.namespace)

    def test_the_operators_writes_are_not_checked(self, theirs: World):
        status = {"status": {"phase": "Running", "observedGeneration": 1}}
        theirs.plane.grant(
            "writer", [{"apiGroups": ["selfevo.dev"], "resources": ["*"], "verbs": ["*"]}], theirs.namespace
        )
        writer = theirs.plane.client(theirs.plane.user("writer"))
        assert writer.patch(RUNS, "theirs", status, theirs.namespace, "status")["status"]["phase"] == "Running"

    def test_who_may_impersonate_an_account_may_use_it(self, by_default: World):
        plane, namespace = by_default.plane, by_default.namespace
        editor = plane.client(plane.user("editor"))
        bind(by_default.admin, namespace, "editor", "edit")
        plane.grant("editor", [{"apiGroups": ["selfevo.dev"], "resources": [RUNS], "verbs": ["create"]}], namespace)
        run = base("x", {"spec.pods.serviceAccountName": OTHERS, "spec.storage.credentialsSecret": OTHERS})
        assert by_default.refusal(run, editor) == ""

    def test_somebody_who_is_impersonated_is_asked_about(self, by_default: World):
        """An Argo CD that applies as a team's account gets that team's rights, and not its own."""
        admin = by_default.admin
        http = urllib3.PoolManager(ca_certs=str(by_default.plane.ca))
        path = f"{admin.server}{admin.path(RUNS, by_default.namespace)}?dryRun=All"
        headers = {"Authorization": f"Bearer {admin.token}", "Impersonate-User": "mallory"}

        def apply_as_mallory(run: Object) -> urllib3.BaseHTTPResponse:
            return http.request("POST", path, json=run, headers=headers)

        assert apply_as_mallory(base("x")).status == 201
        refused = apply_as_mallory(base("x", {"spec.pods.serviceAccountName": OTHERS}))
        assert refused.status == 403 and b"a ServiceAccount that mallory may not use" in refused.data


def test_the_largest_run_costs_less_than_a_policy_may_spend(control_plane: ControlPlane, by_default: World):
    pods = {
        "serviceAccountName": OWN,
        "env": [{"name": f"NAME_OF_A_VARIABLE_AT_LENGTH_{number}", "value": "x"} for number in range(128)],
        "tolerations": [{"key": f"key-{number}", "operator": "Exists"} for number in range(64)],
        "nodeSelector": {f"label-{number}": "x" for number in range(64)},
        "resources": {"limits": {f"nvidia.com/x{number}": 1 for number in range(32)}},
        "resourceClaims": [
            {"name": f"c{number}", "resourceClaimTemplateName": f"gpus-{number}"} for number in range(8)
        ],
        "imagePullSecrets": [f"own-{number}" for number in range(16)],
    }
    changes = {f"spec.{part}.pods": pods for part in ("challenger", "solver", "rollout", "evaluation")}
    changes |= {"spec.pods": {**pods, "imagePullSecrets": [OWN, "own-17", "own-18"]}}
    changes |= {"spec.exclude": [{"uri": f"s3://models/{number}.jsonl"} for number in range(32)]}
    with world(control_plane, {"allowed": {"resourceClaimTemplates": ["gpus-*"]}}) as generous:
        assert generous.refusal(base("large", changes)) == ""
        changes["spec.evaluation.pods"] = {**pods, "serviceAccountName": OTHERS}
        assert "spec.evaluation.pods.serviceAccountName is admin" in generous.refusal(base("large", changes))


def typing_of(admin: Api, name: str, spec: Object) -> str:
    """What the API server says of a policy's types. It checks validations only, so its variables become such."""
    validations = [{"expression": f"[\n{v['expression']}\n].size() == 1"} for v in spec["variables"]]
    about = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy"}
    admin.create({**about, "metadata": {"name": name}, "spec": {**spec, "validations": validations}})
    try:
        found = admin.wait(
            PLURALS[about["kind"]], name, until=lambda policy: "typeChecking" in policy.get("status", {})
        )
        return json.dumps(found["status"]["typeChecking"])
    finally:
        admin.delete(PLURALS[about["kind"]], name)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Of a control plane that checks the types of policies, and knows those of runs by now: until then it has no fault
    to find."""
    runs = {"apiGroups": ["selfevo.dev"], "apiVersions": ["v1alpha1"], "operations": ["CREATE"], "resources": [RUNS]}
    wrong = {
        "matchConstraints": {"resourceRules": [runs]},
        "variables": [{"name": "wrong", "expression": "object.spec.chalenger"}],
    }
    tried = itertools.count()
    with controlplane.running(tmp_path_factory.mktemp("typed"), crds=controlplane.CRDS, policy_types=True) as plane:
        eventually(lambda: UNDEFINED in typing_of(plane.admin, f"wrong-{next(tried)}", wrong))
        yield plane.admin


@pytest.mark.parametrize("policy", ["serviceaccounts", "secrets", "allowed"])
def test_the_apiserver_finds_the_policies_well_typed(by_default: World, typed: Api, policy: str):
    name = f"{by_default.namespace}-selfevo-{policy}"
    spec = by_default.admin.get("validatingadmissionpolicies", name)["spec"]
    assert typing_of(typed, f"{name}-probe", spec) == "{}"
    misspelt = json.loads(json.dumps(spec).replace("?challenger", "?chalenger"))
    assert UNDEFINED in typing_of(typed, f"{name}-misspelt", misspelt)
