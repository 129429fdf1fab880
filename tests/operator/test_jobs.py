"""A step as a Job: golden manifests for the whole, tables for each promise, and a search for a spec that breaks one.

After a wanted change: SELFEVO_UPDATE_GOLDEN=1 .venv/bin/pytest tests/operator/test_jobs.py, and read the difference.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, reject, settings
from pydantic import ValidationError

from harness import specs
from harness.podsecurity import in_container, violations
from harness.runs import RUBRIC, TRIAD, make_run
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Step, plan
from selfevo_contract.pods import merged
from selfevo_contract.process import CONFIG_ENV, RUN_ENV, PhaseConfig
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import RunRecord, decoded_run
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.resources import Resources
from selfevo_core.attempts import attempt_name
from selfevo_operator.manifests.job import _refuse_paths_of_one_machine, render, template_digest
from selfevo_operator.manifests.settings import PodSettings

GOLDEN = Path(__file__).parent.parent / "golden" / "jobs"
SETTINGS = PodSettings(
    image="registry.example/selfevo-trainer:0.1.0",
    resource_claim_templates=specs.CLAIM_TEMPLATES,
    resource_claims=specs.CLAIMS,
)
UID = "5f0c2a52-3a3c-4a57-9f0e-0d6f6f3f7b11"

CHALLENGER, ROLLOUT, SOLVER, EVALUATE = "challenger-train-1", "solver-rollout-1", "solver-train-1", "evaluate-0"


def run_of(**changes: Any) -> SelfEvolutionRun:
    """A run as an API server gives it, on a store that a cluster can have."""
    return make_run(**{"metadata__uid": UID, "spec__storage__uri": "s3://models/selfevo", **changes})


def step_of(run: SelfEvolutionRun, name: str) -> Step:
    return plan(run.spec).by_name[name]


def manifests(step: str, attempt: int = 1, settings: PodSettings = SETTINGS, **changes: Any) -> list[dict[str, Any]]:
    run = run_of(**changes)
    of = step_of(run, step)
    return render(run, of, attempt, attempt_name(run.metadata.name, of, attempt), settings)


def job_of(step: str, **changes: Any) -> dict[str, Any]:
    return manifests(step, **changes)[0]


def pod_of(step: str, **changes: Any) -> dict[str, Any]:
    return job_of(step, **changes)["spec"]["template"]["spec"]


def trainer_of(step: str, **changes: Any) -> dict[str, Any]:
    (container,) = pod_of(step, **changes)["containers"]
    return container


def env_of(step: str, **changes: Any) -> dict[str, str]:
    return in_container(trainer_of(step, **changes)["env"])


def refusal(step: str, **changes: Any) -> str:
    with pytest.raises(InputError) as refused:
        manifests(step, **changes)
    message = str(refused.value)
    assert "\n" not in message and not message.endswith(".")
    return message


# --- the whole --------------------------------------------------------------------------------------------------------

TWO_NODES = {"spec__solver__pods": {"nodes": 2}, "spec__solver__grpo__perDeviceTrainBatchSize": 8}
GPUS_8 = {"limits": {"nvidia.com/gpu": 8}, "requests": {"cpu": 32, "memory": "256Gi"}}
GPUS_BY_CLAIM = {"name": "gpus", "resourceClaimTemplateName": "gpus-8"}
NIC_BY_CLAIM = {"name": "nic", "resourceClaimName": "team-a-fabric", "request": "nic"}
CASES: dict[str, dict[str, Any]] = {
    "challenger-on-the-defaults": {"step": CHALLENGER},
    "challenger-on-eight-gpus": {
        "step": CHALLENGER,
        "spec__challenger__grpo__perDeviceTrainBatchSize": 2,
        "spec__challenger__pods": {"resources": GPUS_8},
    },
    "challenger-with-a-served-solver": {
        "step": CHALLENGER,
        "spec__challenger__engine": {"kind": "server", "gpus": 2, "replicas": 2},
        "spec__challenger__grpo__perDeviceTrainBatchSize": 2,
        "spec__challenger__pods": {"resources": {**GPUS_8, "limits": {"nvidia.com/gpu": 4}}},
        "spec__storage__credentialsSecret": "s3-credentials",
    },
    "solver-sharded-with-a-served-policy": {
        "step": SOLVER,
        "spec__solver__grpo__generation": "vllm",
        "spec__solver__grpo__vllmMode": "server",
        "spec__solver__grpo__vllmTensorParallelSize": 2,
        "spec__solver__grpo__sharding": "fsdp",
        "spec__solver__grpo__perDeviceTrainBatchSize": 2,
        "spec__solver__pods": {"resources": {**GPUS_8, "limits": {"nvidia.com/gpu": 4}}},
    },
    "solver-with-a-served-judge": {
        "step": SOLVER,
        **TRIAD,
        "spec__verifier": {
            "anchors": {"data": {"uri": "s3://models/anchors.jsonl"}},
            "server": {"gpus": 2, "replicas": 2, "gpuMemoryUtilization": 0.8},
        },
        "spec__solver__grpo__perDeviceTrainBatchSize": 2,
        "spec__solver__pods": {"resources": {**GPUS_8, "limits": {"nvidia.com/gpu": 4}}},
        "spec__storage__credentialsSecret": "s3-credentials",
    },
    "rollout-in-eight-shards": {
        "step": ROLLOUT,
        "spec__rollout__shards": 8,
        "spec__rollout__queue": "inference",
        "spec__queue": "team-a",
        "spec__priorityClass": "low",
    },
    "evaluation-in-four-shards": {"step": EVALUATE, "spec__evaluation__shards": 4, "spec__evaluation__minShards": 2}
    | {"spec__queue": "team-a"},
    "rollout-in-one-shard": {"step": ROLLOUT, "spec__rollout__shards": 1},
    "solver-on-two-nodes": {
        "step": SOLVER,
        "spec__solver__grpo__perDeviceTrainBatchSize": 1,
        "spec__solver__pods": {"nodes": 2, "resources": GPUS_8, "sharedMemory": "16Gi"},
        "spec__queue": "team-a",
    },
    "evaluation-with-every-field-of-a-pod": {
        "step": EVALUATE,
        "attempt": 3,
        "spec__storage__credentialsSecret": "s3-credentials",
        "spec__storage__endpoint": "https://minio.example",
        "spec__backoffLimit": 0,
        "spec__ttlSecondsAfterFinished": 3600,
        "spec__pods": {
            "image": "registry.example/own:1",
            "imagePullPolicy": "Always",
            "imagePullSecrets": ["registry"],
            "runtimeClassName": "nvidia",
            "nodeSelector": {"pool": "a100", "zone": "b"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "research",
            "serviceAccountName": "trainer",
            "env": [
                {"name": "HF_ENDPOINT", "value": "https://hub.example"},
                {"name": "PRICE", "value": "$$5 $(HOME)"},
                {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
            ],
            "labels": {"cost-center": "nlp"},
            "annotations": {"kueue.x-k8s.io/podset-required-topology": "example.com/rack"},
            "schedulerName": "volcano",
            "caBundle": {"configMap": "company-ca"},
            "volumes": [
                {"name": "models", "mountPath": "/mnt/models", "persistentVolumeClaim": {"claimName": "models"}}
            ],
            "nodeAffinity": [{"key": "nvidia.com/gpu.product", "values": ["NVIDIA-L4", "NVIDIA-L40S"]}],
            "podAffinity": [{"topologyKey": "topology.kubernetes.io/zone"}],
            "podAntiAffinity": [{"topologyKey": "kubernetes.io/hostname", "weight": 10}],
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}],
            "resourceClaims": [
                {"name": "gpus", "resourceClaimTemplateName": "gpus-2", "gpus": 2},
                NIC_BY_CLAIM,
            ],
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            "activeDeadlineSeconds": 7200,
            "terminationGracePeriodSeconds": 30,
            "gpuMemory": "80Gi",
            "sharedMemory": "64Mi",
            "scratch": "50Gi",
        },
        "spec__evaluation__pods": {"nodeSelector": {"pool": "l4"}, "activeDeadlineSeconds": 600},
    },
    "solver-with-gpus-by-claims": {
        "step": SOLVER,
        "spec__solver__grpo__perDeviceTrainBatchSize": 2,
        "spec__pods": {"resources": {"requests": {"memory": "64Gi"}}, "resourceClaims": [GPUS_BY_CLAIM, NIC_BY_CLAIM]},
        "spec__solver__pods": {"resourceClaims": [{**GPUS_BY_CLAIM, "gpus": 8}]},
    },
    "a-name-that-is-as-long-as-may-be": {
        "step": SOLVER,
        "metadata__name": "4b-" + "long-" * 11 + "names",
        **TWO_NODES,
    },
}


def readable(job: dict[str, Any]) -> dict[str, Any]:
    """``job`` with the run that its trainer gets in plain JSON: another zlib packs it in other bytes."""
    (container,) = job["spec"]["template"]["spec"]["containers"] if job["kind"] == "Job" else [{"env": []}]
    for variable in container["env"]:
        if variable["name"] == RUN_ENV:
            variable["value"] = zlib.decompress(base64.b64decode(variable["value"])).decode()
    return job


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_the_golden_ones(case: str) -> None:
    text = json.dumps([readable(each) for each in manifests(**CASES[case])], indent=1) + "\n"
    file = GOLDEN / f"{case}.json"
    if os.environ.get("SELFEVO_UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs"


def test_there_is_no_golden_manifest_that_nobody_compares() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(CASES)


# --- who it belongs to ------------------------------------------------------------------------------------------------


def test_labels_say_which_attempt_of_which_step_of_which_run_it_is() -> None:
    job, service = manifests(SOLVER, attempt=2, **TWO_NODES)
    of_run = {
        "app.kubernetes.io/name": "selfevo",
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/part-of": "selfevo",
        "app.kubernetes.io/managed-by": "selfevo-operator",
        "selfevo.dev/run": "demo",
    }
    of_step = {
        "selfevo.dev/step": SOLVER,
        "selfevo.dev/phase": "solver-train",
        "selfevo.dev/iteration": "1",
        "selfevo.dev/attempt": "2",
    }
    template = job["spec"]["template"]["metadata"]
    assert job["metadata"]["labels"] == template["labels"] == {**of_run, **of_step}
    assert service["metadata"]["labels"] == of_run
    assert template["annotations"] == {"selfevo.dev/key": step_of(run_of(**TWO_NODES), SOLVER).key}
    assert set(job["metadata"]["annotations"]) == {"selfevo.dev/key", "selfevo.dev/template"}


def test_the_run_controls_what_is_created_for_it() -> None:
    owner = {
        "apiVersion": "selfevo.dev/v1alpha1",
        "kind": "SelfEvolutionRun",
        "name": "demo",
        "uid": UID,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    for manifest in manifests(SOLVER, **TWO_NODES):
        assert manifest["metadata"]["ownerReferences"] == [owner]
        assert manifest["metadata"]["namespace"] == "default"


@pytest.mark.parametrize(
    ("step", "changes", "labels"),
    [
        (SOLVER, {}, {}),
        (SOLVER, {"spec__queue": "a"}, {"queue-name": "a"}),
        (SOLVER, {"spec__queue": "a", "spec__rollout__queue": "b"}, {"queue-name": "a"}),
        (ROLLOUT, {"spec__queue": "a", "spec__rollout__queue": "b"}, {"queue-name": "b"}),
        (ROLLOUT, {"spec__queue": "a"}, {"queue-name": "a"}),
        (ROLLOUT, {"spec__queue": "a", "spec__priorityClass": "p"}, {"queue-name": "a", "priority-class": "p"}),
        (SOLVER, {"spec__priorityClass": "p"}, {}),
    ],
)
def test_kueue_takes_over_a_job_with_a_queue(step: str, changes: dict[str, Any], labels: dict[str, str]) -> None:
    job = job_of(step, **changes)
    prefix = "kueue.x-k8s.io/"
    found = {n.removeprefix(prefix): v for n, v in job["metadata"]["labels"].items() if n.startswith(prefix)}
    assert found == labels
    assert "suspend" not in job["spec"], "its webhook does that"
    assert not any(name.startswith(prefix) for name in job["spec"]["template"]["metadata"]["labels"])


EIGHT_SHARDS = {"spec__rollout__shards": 8}


@pytest.mark.parametrize(
    ("step", "changes", "elastic"),
    [
        (ROLLOUT, {"spec__queue": "a", **EIGHT_SHARDS, "spec__rollout__minShards": 3}, "3"),
        (ROLLOUT, {"spec__rollout__queue": "b", "spec__rollout__shards": 2, "spec__rollout__minShards": 1}, "1"),
        (ROLLOUT, {"spec__queue": "a", **EIGHT_SHARDS}, None),
        (ROLLOUT, {"spec__queue": "a", "spec__rollout__shards": 1}, None),
        (ROLLOUT, {**EIGHT_SHARDS, "spec__rollout__minShards": 3}, None),
        (SOLVER, {"spec__queue": "a", **TWO_NODES, **EIGHT_SHARDS, "spec__rollout__minShards": 3}, None),
        (EVALUATE, {"spec__queue": "a", **EIGHT_SHARDS, "spec__rollout__minShards": 3}, None),
        (EVALUATE, {"spec__queue": "a", "spec__evaluation__shards": 8, "spec__evaluation__minShards": 3}, "3"),
    ],
)
def test_shards_are_admitted_a_few_at_a_time_where_that_is_asked_for(
    step: str, changes: dict[str, Any], elastic: str | None
) -> None:
    job = job_of(step, **changes)
    name = "kueue.x-k8s.io/job-min-parallelism"
    assert job["metadata"]["annotations"].get(name) == elastic
    assert job["spec"]["completions"] == job["spec"]["parallelism"], "what is lowered is the parallelism alone"
    assert name not in job["spec"]["template"]["metadata"]["annotations"]


def test_tasks_with_shards_of_their_own_have_pods_beside_the_others() -> None:
    tasks = [
        {"name": name, "data": {"uri": f"s3://bucket/{name}"}, "shards": own} for name, own in (("a", 6), ("b", None))
    ]
    shards = {"spec__evaluation__shards": 2, "spec__evaluation__minShards": 7, "spec__queue": "a"}
    job = job_of(EVALUATE, spec__evaluation__tasks=tasks, **shards)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (8, 8)
    assert job["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "7"
    alone = job_of(EVALUATE, spec__evaluation__tasks=tasks[:1], spec__evaluation__shards=2)
    assert alone["spec"]["completions"] == 6, "evaluation.shards is for tasks without"


def test_pods_that_train_together_know_how_long_they_wait_for_each_other() -> None:
    patient = {**TWO_NODES, "spec__pods": {"joinSeconds": 7200}}
    environment = {
        variable["name"]: variable.get("value") for variable in pod_of(SOLVER, **patient)["containers"][0]["env"]
    }
    assert environment["SELFEVO_JOIN_SECONDS"] == "7200"
    assert "SELFEVO_JOIN_SECONDS" not in str(pod_of(SOLVER, **TWO_NODES))
    assert step_of(run_of(**patient), SOLVER).key == step_of(run_of(**TWO_NODES), SOLVER).key


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"spec__pods": {"image": "other"}}, False),
        ({"spec__ttlSecondsAfterFinished": 60}, False),
        ({"spec__backoffLimit": 9}, False),
        ({"spec__priorityClass": "high"}, False),
        ({"spec__pods": {"priorityClassName": "high"}}, False),
        ({"spec__pods": {"env": [{"name": "A", "value": "1"}]}}, False),
        ({"spec__storage__credentialsSecret": "s"}, False),
        ({"spec__queue": "team-b"}, True),
        ({"spec__pods": {"nodes": 2}, "spec__solver__grpo__perDeviceTrainBatchSize": 8}, True),
        ({"spec__pods": {"resources": {"requests": {"memory": "8Gi"}}}}, True),
        ({"spec__pods": {"nodeSelector": {"pool": "b"}}}, True),
        ({"spec__pods": {"tolerations": [{"operator": "Exists"}]}}, True),
        ({"spec__pods": {"runtimeClassName": "nvidia"}}, True),
    ],
)
def test_what_a_queue_goes_by_is_distinguished_from_the_rest(changes: dict[str, Any], moved: bool) -> None:
    before = template_digest(job_of(SOLVER, spec__queue="team-a"))
    after = template_digest(job_of(SOLVER, **{"spec__queue": "team-a", **changes}))
    assert before.split("-")[0] != after.split("-")[0]
    assert (before.split("-")[1] != after.split("-")[1]) == moved


# --- how often it is tried --------------------------------------------------------------------------------------------


def decided(job: dict[str, Any], code: int = 0, *, container: str = "trainer", disrupted: bool = False) -> str:
    """What the Job controller does about a failed pod: the first rule that fits."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        on_exit = rule.get("onExitCodes")
        if (
            on_exit
            and on_exit["containerName"] == container
            and on_exit["operator"] == "In"
            and code in on_exit["values"]
        ):
            return rule["action"]
        if any(on["type"] == "DisruptionTarget" and disrupted for on in rule.get("onPodConditions", [])):
            return rule["action"]
    return "Count"


@pytest.mark.parametrize("step", [CHALLENGER, ROLLOUT, SOLVER, EVALUATE])
@pytest.mark.parametrize(
    ("code", "disrupted", "action"),
    [
        (2, False, "FailJob"),
        (2, True, "FailJob"),
        (4, False, "FailJob"),
        (3, False, "Count"),
        (1, False, "Count"),
        (137, False, "Count"),
        (137, True, "Ignore"),
        (3, True, "Ignore"),
        (143, True, "Ignore"),
        (143, False, "Ignore"),
    ],
)
def test_exit_codes_decide_whether_a_pod_is_replaced(step: str, code: int, disrupted: bool, action: str) -> None:
    assert decided(job_of(step), code, disrupted=disrupted) == action


def test_a_step_is_one_pod_that_is_replaced_when_it_has_ended() -> None:
    spec = job_of(SOLVER, spec__backoffLimit=5)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("NonIndexed", 1, 1)
    assert spec["backoffLimit"] == 5
    assert "backoffLimitPerIndex" not in spec
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("shards", [1, 16])
@pytest.mark.parametrize(("step", "part"), [(ROLLOUT, "rollout"), (EVALUATE, "evaluation")])
def test_every_shard_is_an_index_with_retries_of_its_own(step: str, part: str, shards: int) -> None:
    spec = job_of(step, **{f"spec__{part}__shards": shards}, spec__backoffLimit=5)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", shards, shards)
    assert spec["backoffLimitPerIndex"] == 5
    assert "backoffLimit" not in spec, "it would count over all indexes"
    assert "maxFailedIndexes" not in spec, "the other shards' work is kept"


def test_deadline_and_ttl_are_the_jobs() -> None:
    spec = job_of(SOLVER, spec__pods={"activeDeadlineSeconds": 60}, spec__ttlSecondsAfterFinished=120)["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (60, 120)
    assert "activeDeadlineSeconds" not in spec["template"]["spec"]
    spec = job_of(SOLVER)["spec"]
    assert "activeDeadlineSeconds" not in spec
    assert spec["ttlSecondsAfterFinished"] == 86400


# --- several processes ------------------------------------------------------------------------------------------------


def several_of(step: str, **changes: Any) -> dict[str, str]:
    names = ("SELFEVO_PROCESSES", "SELFEVO_NODES", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in env_of(step, **changes).items() if name in names}


@pytest.mark.parametrize(
    ("step", "limits", "processes"),
    [
        (CHALLENGER, {}, None),
        (CHALLENGER, {"nvidia.com/gpu": 1}, None),
        (CHALLENGER, {"nvidia.com/gpu": 4}, "4"),
        (SOLVER, {"amd.com/gpu": "8"}, "8"),
        (SOLVER, {"nvidia.com/gpu": 0, "amd.com/gpu": 2}, "2"),
        (SOLVER, {"nvidia.com/mig-1g.5gb": 4}, None),
        (ROLLOUT, {"nvidia.com/gpu": 8}, None),
        (EVALUATE, {"nvidia.com/gpu": 8}, None),
    ],
)
def test_a_training_has_one_process_for_each_gpu(step: str, limits: dict[str, Any], processes: str | None) -> None:
    changes = {f"spec__{role}__grpo__perDeviceTrainBatchSize": 2 for role in ("challenger", "solver")}
    found = several_of(step, spec__pods={"resources": {"limits": limits}}, **changes)
    assert found == ({"SELFEVO_PROCESSES": processes} if processes else {})


def test_nodes_find_each_other_by_a_service_that_the_run_keeps() -> None:
    job, service = manifests(SOLVER, **TWO_NODES)
    spec, name = job["spec"], service["metadata"]["name"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["backoffLimit"] == 3
    assert "backoffLimitPerIndex" not in spec, "a failure of one ends them all, and counts once"
    assert spec["template"]["spec"]["subdomain"] == name
    several = several_of(SOLVER, **TWO_NODES)
    assert several == {
        "SELFEVO_NODES": "2",
        "MASTER_ADDR": f"{job['metadata']['name']}-0.{name}",
        "MASTER_PORT": "29500",
    }
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = spec["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert manifests(SOLVER, attempt=2, **TWO_NODES)[1] == service


def test_a_namesake_has_a_service_of_its_own() -> None:
    names = {manifests(SOLVER, metadata__uid=uid, **TWO_NODES)[1]["metadata"]["name"] for uid in ("a", "b")}
    assert len(names) == 2


@pytest.mark.parametrize("name", ["4b", "a" * 63, "a" * 39 + "-" + "b" * 20, "0" * 63])
def test_names_are_names_to_kubernetes_whatever_the_run_is_called(name: str) -> None:
    job, service = manifests(SOLVER, metadata__name=name, **TWO_NODES)
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", service["metadata"]["name"])
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"] + "-1023")


def test_nodes_of_all_phases_are_meant_for_the_trainings() -> None:
    changes = {f"spec__{role}__grpo__perDeviceTrainBatchSize": 8 for role in ("challenger", "solver")}
    for step, pods in ((CHALLENGER, 2), (SOLVER, 2), (EVALUATE, 1)):
        found = manifests(step, spec__pods={"nodes": 2}, **changes)
        assert (found[0]["spec"]["completions"], len(found)) == (pods, pods)
    job = job_of(ROLLOUT, spec__pods={"nodes": 2}, spec__rollout__shards=3, **changes)
    assert job["spec"]["completions"] == 3
    assert several_of(EVALUATE, spec__pods={"nodes": 2}, **changes) == {}


# --- pods -------------------------------------------------------------------------------------------------------------


def pods(**fields: Any) -> Pods:
    return Pods.model_validate(fields)


@pytest.mark.parametrize(
    ("base", "part", "together"),
    [
        ({}, {}, {}),
        ({"image": "a"}, {}, {"image": "a"}),
        ({"image": "a"}, {"image": "b"}, {"image": "b"}),
        ({"nodes": 2}, {"nodes": 1}, {"nodes": 1}),
        (
            {"nodeSelector": {"a": "1", "b": "1"}},
            {"nodeSelector": {"b": "2"}},
            {"nodeSelector": {"a": "1", "b": "2"}},
        ),
        (
            {"resources": {"limits": {"nvidia.com/gpu": 8, "memory": "1Gi"}, "requests": {"cpu": 1}}},
            {"resources": {"limits": {"nvidia.com/gpu": 0}}},
            {"resources": {"limits": {"nvidia.com/gpu": 0, "memory": "1Gi"}, "requests": {"cpu": 1}}},
        ),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
            {"env": [{"name": "C", "value": "2"}, {"name": "A", "value": "2"}]},
            {"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "1"}, {"name": "C", "value": "2"}]},
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Exists"}]},
            {"tolerations": [{"key": "b", "operator": "Exists"}]},
            {"tolerations": [{"key": "b", "operator": "Exists"}]},
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Exists"}]},
            {},
            {"tolerations": [{"key": "a", "operator": "Exists"}]},
        ),
        (
            {"resourceClaims": [GPUS_BY_CLAIM, NIC_BY_CLAIM]},
            {"resourceClaims": [{**GPUS_BY_CLAIM, "gpus": 8}]},
            {"resourceClaims": [{**GPUS_BY_CLAIM, "gpus": 8}, NIC_BY_CLAIM]},
        ),
        ({"imagePullSecrets": ["a", "b"]}, {"imagePullSecrets": ["c"]}, {"imagePullSecrets": ["c"]}),
    ],
)
def test_a_part_of_the_spec_goes_over_what_is_meant_for_all(
    base: dict[str, Any], part: dict[str, Any], together: dict[str, Any]
) -> None:
    assert merged(pods(**base), pods(**part)) == pods(**together)


def test_merging_keeps_every_field_of_either_side() -> None:
    """Also one that is added to the contract one day."""
    full = pods(**CASES["evaluation-with-every-field-of-a-pod"]["spec__pods"], nodes=2, joinSeconds=9, hostNetwork=True)
    unset = [name for name in Pods.model_fields if getattr(full, name) in (None, [], {}, Resources())]
    assert not unset, "give it a value here, so that it is checked"
    assert merged(full, Pods()) == merged(Pods(), full) == merged(full, full) == full


def test_fields_of_the_pods_arrive() -> None:
    pod = pod_of(**{k: v for k, v in CASES["evaluation-with-every-field-of-a-pod"].items() if k != "attempt"})
    (container,) = pod["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("registry.example/own:1", "Always")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {"pool": "l4", "zone": "b"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("research", "nvidia")
    assert (pod["serviceAccountName"], pod["terminationGracePeriodSeconds"]) == ("trainer", 30)
    assert {v["name"]: v["emptyDir"] for v in pod["volumes"][:3]} == {
        "work": {"sizeLimit": "50Gi"},
        "tmp": {},
        "shm": {"medium": "Memory", "sizeLimit": "64Mi"},
    }


def test_the_operators_flags_fill_in_what_the_run_leaves_open() -> None:
    flags = PodSettings(image="default", image_pull_policy="Never", run_as_user=7)
    pod = pod_of(SOLVER, settings=flags)
    assert (pod["containers"][0]["image"], pod["containers"][0]["imagePullPolicy"]) == ("default", "Never")
    assert "serviceAccountName" not in pod
    assert pod["securityContext"]["runAsUser"] == 7
    own = {"image": "own", "imagePullPolicy": "Always", "serviceAccountName": "me"}
    pod = pod_of(SOLVER, settings=flags, spec__pods=own)
    assert (pod["containers"][0]["image"], pod["containers"][0]["imagePullPolicy"]) == ("own", "Always")
    assert pod["serviceAccountName"] == "me"


def test_a_run_begins_from_what_the_platform_gives_all_pods() -> None:
    given = {
        "imagePullSecrets": ["registry"],
        "nodeSelector": {"pool": "gpu", "zone": "a"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "serviceAccountName": "trainer",
    }
    settings = PodSettings(image="x", defaults=Pods.model_validate(given))
    pod = pod_of(SOLVER, settings=settings)
    assert pod["imagePullSecrets"] == [{"name": "registry"}] and pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"] == given["nodeSelector"] and pod["tolerations"] == given["tolerations"]
    own = {"nodeSelector": {"zone": "b"}, "serviceAccountName": "me"}
    pod = pod_of(
        SOLVER, settings=settings, spec__pods=own, spec__solver__pods={"tolerations": [{"key": "x/y", "value": "z"}]}
    )
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "b"} and pod["serviceAccountName"] == "me"
    assert pod["tolerations"] == [{"key": "x/y", "value": "z"}]


@pytest.mark.parametrize("name", ["nvidia.com/mig-1g.10gb", "habana.ai/gaudi"])
def test_other_devices_count_as_gpus_where_the_platform_says_so(name: str) -> None:
    limits = {"spec__solver__pods": {"resources": {"limits": {name: 2}}}}
    limits |= {"spec__solver__grpo__perDeviceTrainBatchSize": 2}
    named = PodSettings(image="x", gpu_resources=("*/gpu", "nvidia.com/mig-*", "habana.ai/gaudi"))
    assert "SELFEVO_PROCESSES" not in env_of(SOLVER, **limits)
    assert env_of(SOLVER, settings=named, **limits)["SELFEVO_PROCESSES"] == "2"


def test_volumes_and_their_mounts() -> None:
    asked = [
        {"name": "models", "mountPath": "/work/cache", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
        {"name": "disk", "mountPath": "/work/phase", "ephemeral": {"size": "2Ti"}},
    ]
    pod = pod_of(SOLVER, spec__pods={"volumes": asked})
    assert pod["volumes"][3:] == [
        {"name": "vol-models", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
        {"name": "vol-disk", "ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Ti"}}}}}},
    ]  # fmt: skip
    assert pod["containers"][0]["volumeMounts"][3:] == [
        {"name": "vol-models", "mountPath": "/work/cache", "readOnly": True},
        {"name": "vol-disk", "mountPath": "/work/phase"},
    ]
    assert violations(pod) == []


def test_certificates_of_a_config_map_are_seen_by_every_container_and_named_to_its_libraries() -> None:
    own = {
        "caBundle": {"configMap": "company-ca", "key": "bundle.pem"},
        "env": [{"name": "SSL_CERT_FILE", "value": "x"}],
    }
    pod = pod_of(CHALLENGER, spec__challenger__engine={"kind": "server", "gpus": 0}, spec__pods=own)
    assert pod["volumes"][-1] == {
        "name": "ca",
        "configMap": {"name": "company-ca", "items": [{"key": "bundle.pem", "path": "ca.crt"}]},
    }
    containers = [*pod["initContainers"], *pod["containers"]]
    assert len(containers) == 3
    for container in containers:
        assert container["volumeMounts"][-1] == {"name": "ca", "mountPath": "/etc/selfevo/ca", "readOnly": True}
        env = in_container(container["env"])
        paths = {env[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")}
        assert paths == {"/etc/selfevo/ca/ca.crt"}
    assert violations(pod) == []
    plain = pod_of(CHALLENGER)
    assert "ca" not in {volume["name"] for volume in plain["volumes"]}
    assert "AWS_CA_BUNDLE" not in in_container(plain["containers"][0]["env"])


ON_NODES = PodSettings(image="default", host_network=True)


def test_pods_are_on_their_nodes_network_where_the_platform_lets_them() -> None:
    pod = pod_of(SOLVER, settings=ON_NODES, spec__pods={"hostNetwork": True})
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert "ports" not in pod["containers"][0] and violations(pod) == ["hostNetwork"]
    with pytest.raises(InputError, match=r"spec\.solver\.pods\.hostNetwork is true, and this operator gives no pod"):
        pod_of(SOLVER, spec__pods={"hostNetwork": True})
    for own in ({"hostNetwork": False}, {}):
        pod = pod_of(SOLVER, settings=ON_NODES, spec__solver__pods=own)
        assert not {"hostNetwork", "dnsPolicy"} & set(pod)
    both = {"spec__pods": {"hostNetwork": True}, "spec__solver__pods": {"hostNetwork": False}}
    assert "hostNetwork" not in pod_of(SOLVER, settings=ON_NODES, **both)


def test_pods_that_meet_at_a_port_of_the_node_take_a_node_each() -> None:
    both = {**TWO_NODES, "spec__pods": {**TWO_NODES.get("spec__pods", {}), "hostNetwork": True}}
    pod = pod_of(SOLVER, settings=ON_NODES, **both)
    assert pod["containers"][0]["ports"] == [{"name": "coordinator", "containerPort": 29500, "protocol": "TCP"}]
    assert env_of(SOLVER, settings=ON_NODES, **both)["MASTER_PORT"] == "29500"


def test_huge_pages_are_set_aside_whole_beside_memory() -> None:
    asked = {"requests": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}, "limits": {"hugepages-2Mi": "64Mi"}}
    (container,) = pod_of(SOLVER, spec__pods={"resources": asked})["containers"]
    assert container["resources"] == {"requests": {"memory": "1Gi"}, "limits": {"hugepages-2Mi": "64Mi"}}
    # A part of the spec takes an inherited limit away by 0, beside which the API server wants memory, too.
    none = {"spec__pods": {"resources": asked}, "spec__solver__pods": {"resources": {"limits": {"hugepages-2Mi": 0}}}}
    (container,) = pod_of(SOLVER, **none)["containers"]
    assert container["resources"] == {"requests": {"memory": "1Gi"}}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"requests": {"cpu": 1, "hugepages-1Gi": "1Gi"}}, "without a limit, and huge pages are set aside whole"),
        ({"limits": {"hugepages-1Gi": "1Gi"}}, r"needs cpu or memory beside it; add .*\.requests\.memory"),
        ({"limits": {"cpu": 1, "hugepages-2Mi": "3Mi"}}, "is '3Mi', and a page is 2Mi; write a multiple of 2Mi"),
    ],
)
def test_huge_pages_that_the_api_server_would_refuse(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pod_of(SOLVER, spec__pods={"resources": asked})


def test_what_a_fabric_needs_reaches_the_pods_that_train_together() -> None:
    """The manifest in docs/distributed.md, down to the Job."""
    page = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
    written = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    job, service = manifests(SOLVER, spec__queue=written["queue"], spec__solver=written["solver"])
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    pods = written["solver"]["pods"]
    assert container["image"] == pods["image"]
    assert container["resources"] == {kind: dict(sorted(each.items())) for kind, each in pods["resources"].items()}
    env = in_container(container["env"])
    assert {each["name"]: env[each["name"]] for each in pods["env"]} == {e["name"]: e["value"] for e in pods["env"]}
    # Of the pods, where Kueue reads it, and all of them are one Indexed Job: one pod set.
    assert pods["annotations"].items() <= template["metadata"]["annotations"].items()
    assert (job["spec"]["completionMode"], job["spec"]["parallelism"]) == ("Indexed", pods["nodes"])
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == written["queue"]
    shared = next(volume for volume in template["spec"]["volumes"] if volume["name"] == "shm")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": pods["sharedMemory"]}
    # EFA and huge pages are no GPUs: a process for each of the eight.
    assert (env["SELFEVO_PROCESSES"], env["SELFEVO_NODES"]) == ("8", "2")
    assert env["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert violations(template["spec"]) == []


def test_affinity_and_spread_are_among_the_pods_of_a_step() -> None:
    zone, host = {"topologyKey": "topology.kubernetes.io/zone"}, {"topologyKey": "kubernetes.io/hostname"}
    pod = pod_of(
        ROLLOUT,
        spec__pods={
            "nodeAffinity": [
                {"key": "gpu", "values": ["a", "b"]},
                {"key": "spot", "operator": "DoesNotExist", "weight": 5},
            ],
            "podAffinity": [zone],
            "podAntiAffinity": [{**host, "weight": 9}],
            "topologySpreadConstraints": [{**host, "whenUnsatisfiable": "ScheduleAnyway"}],
        },
    )
    own = {"labelSelector": {"matchLabels": {"selfevo.dev/run": "demo", "selfevo.dev/step": ROLLOUT}}}
    required, preferred = (f"{kind}DuringSchedulingIgnoredDuringExecution" for kind in ("required", "preferred"))
    assert pod["affinity"] == {
        "nodeAffinity": {
            required: {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a", "b"]}]}]
            },
            preferred: [
                {"weight": 5, "preference": {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}}
            ],
        },
        "podAffinity": {required: [{**zone, **own}]},
        "podAntiAffinity": {preferred: [{"weight": 9, "podAffinityTerm": {**host, **own}}]},
    }
    assert pod["topologySpreadConstraints"] == [{**host, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", **own}]


def test_where_the_platform_gives_the_user_none_is_asked_for() -> None:
    flags = PodSettings(image="default", run_as_user=None, run_as_group=None, fs_group=None)
    pod = pod_of(SOLVER, settings=flags)
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert violations(pod) == []


# --- environment ------------------------------------------------------------------------------------------------------

HOSTILE = (
    "$$x^2$$ costs $5, $(HOME) $(SELFEVO_WORKDIR) $$(USER) \\$ {question} \u00e9\u4e2d \"'`$(id)` \\frac{1}{2}\x07"
)


def test_the_trainer_gets_exactly_what_the_plan_says() -> None:
    run = run_of(spec__solver__prompt={"system": HOSTILE, "user": HOSTILE})
    step = step_of(run, SOLVER)
    env = in_container(render(run, step, 2, "demo-2", SETTINGS)[0]["spec"]["template"]["spec"]["containers"][0]["env"])
    config = PhaseConfig.model_validate_json(env[CONFIG_ENV])
    assert config.inputs == step.inputs
    assert config.inputs.prompt.system == HOSTILE  # type: ignore[union-attr]
    assert (config.key, config.attempt, config.step, config.run) == (step.key, "demo-2", SOLVER, "demo")
    assert env[CONFIG_ENV].isascii()


def test_only_the_trainer_gets_the_run_that_it_leaves_in_the_store() -> None:
    prompt: dict[str, Any] = {"spec__challenger__prompt": {"system": "$(HOME) $$x$$", "user": "ask"}}
    run, value = run_of(**prompt), env_of(CHALLENGER, **prompt)[RUN_ENV]
    assert "$" not in value and RunRecord.of(decoded_run(value), "1") == RunRecord.of(run, "1")
    served = {"spec__challenger__engine": {"kind": "server", "gpus": 1}}
    with_run = [
        container["name"]
        for kind in ("initContainers", "containers")
        for container in pod_of(CHALLENGER, **served)[kind]
        if RUN_ENV in {variable["name"] for variable in container["env"]}
    ]
    assert with_run == ["trainer"]


def test_a_run_that_is_too_long_for_a_variable_is_not_passed_on() -> None:
    texts = {part: secrets.token_urlsafe(45_000) for part in ("system", "user")}
    long: dict[str, Any] = {"spec__challenger__prompt": texts}
    assert RUN_ENV not in env_of(SOLVER, **long) and CONFIG_ENV in env_of(SOLVER, **long)


def test_a_persons_variables_arrive_as_they_were_written() -> None:
    users = [{"name": "FIRST", "value": "1"}, {"name": "TEXT", "value": HOSTILE}, {"name": "EMPTY"}]
    env = env_of(SOLVER, spec__pods={"env": users})
    assert (env["FIRST"], env["TEXT"], env["EMPTY"]) == ("1", HOSTILE, "")
    assert list(env)[:3] == ["FIRST", "TEXT", "EMPTY"]


def test_a_phase_that_asks_no_frozen_model_has_no_gpus_for_its_server() -> None:
    over = {"spec__solver__engine": {"kind": "server", "gpus": 4}}
    over["spec__solver__pods"] = {"resources": {**GPUS_8, "limits": {"nvidia.com/gpu": 1}}}
    policy = {"spec__solver__grpo__generation": "vllm", "spec__solver__grpo__vllmMode": "server"}
    assert "initContainers" not in pod_of(SOLVER, **over)
    server = next(each for each in pod_of(SOLVER, **over, **policy)["initContainers"] if each["name"] == "server")
    assert server["resources"]["limits"]["nvidia.com/gpu"] in (1, "1")


def test_a_variable_comes_from_a_persons_secret_but_for_the_server() -> None:
    named = {"name": "hub", "key": "token", "optional": True}
    engine = {"spec__challenger__engine": {"kind": "server", "gpus": 0}}
    pod = pod_of(CHALLENGER, **engine, spec__pods={"env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": named}}]})
    containers = {container["name"]: container for container in [*pod["containers"], *pod["initContainers"]]}
    wanted = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": named}}
    assert {name: wanted in of["env"] for name, of in containers.items()} == {
        "trainer": True,
        "fetch-model": True,
        "server": False,
    }
    assert "HF_TOKEN" not in {variable["name"] for variable in containers["server"]["env"]}


def test_labels_and_annotations_of_a_person_stand_beside_ours() -> None:
    asked = {"labels": {"team": "a"}, "annotations": {"karpenter.sh/do-not-disrupt": "true"}}
    job = job_of(SOLVER, spec__pods=asked, spec__solver__pods={"labels": {"team": "b"}}, spec__queue="q")
    template = job["spec"]["template"]["metadata"]
    for labels in (template["labels"], job["metadata"]["labels"]):
        assert labels["team"] == "b" and labels["selfevo.dev/step"] == SOLVER
    assert template["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert "karpenter.sh/do-not-disrupt" not in job["metadata"]["annotations"]


def test_what_we_set_ourselves_holds_and_stands_there_once() -> None:
    variables = trainer_of(SOLVER, spec__pods={"env": [{"name": "HOME", "value": "/root"}]})["env"]
    assert [v["value"] for v in variables if v["name"] == "HOME"] == ["/work"]


def test_all_that_is_written_lies_on_volumes() -> None:
    container = trainer_of(SOLVER)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert sorted(mounts) == ["/dev/shm", "/tmp", "/work"]
    places = {name: value for name, value in in_container(container["env"]).items() if value.startswith("/")}
    assert {"SELFEVO_WORKDIR", "SELFEVO_CACHE_DIR", "HOME", "HF_HOME", "TMPDIR", "XDG_CACHE_HOME"} <= set(places)
    assert all(place.startswith(tuple(mounts)) for place in places.values())


def test_credentials_come_from_the_named_secret_or_from_the_pods_identity() -> None:
    def secrets(**changes: Any) -> dict[str, Any]:
        return {
            v["name"]: v["valueFrom"]["secretKeyRef"] for v in trainer_of(SOLVER, **changes)["env"] if "valueFrom" in v
        }

    assert secrets() == {}
    assert secrets(spec__storage__credentialsSecret="s3") == {
        "AWS_ACCESS_KEY_ID": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"},
        "AWS_SECRET_ACCESS_KEY": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"},
        "AWS_SESSION_TOKEN": {"name": "s3", "key": "AWS_SESSION_TOKEN", "optional": True},
    }


# --- a served model ---------------------------------------------------------------------------------------------------

SERVED = {k: v for k, v in CASES["challenger-with-a-served-solver"].items() if k != "step"}


def test_a_served_model_is_fetched_then_served_until_the_trainer_ends() -> None:
    pod = pod_of(CHALLENGER, **SERVED)
    fetch, server = pod["initContainers"]
    (trainer,) = pod["containers"]
    assert "restartPolicy" not in fetch
    assert server["restartPolicy"] == "Always"
    assert {"startupProbe", "readinessProbe"} <= set(server)
    port = server["ports"][0]["containerPort"]
    assert server["startupProbe"]["httpGet"]["port"] == port
    assert in_container(trainer["env"])["SELFEVO_SERVER_URL"] == f"http://127.0.0.1:{port}"
    assert violations(pod) == []


def test_server_and_trainer_have_gpus_of_their_own() -> None:
    pod = pod_of(CHALLENGER, **SERVED)
    fetch, server = pod["initContainers"]
    assert server["resources"] == {"limits": {"nvidia.com/gpu": 4}}
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 4}
    assert fetch["resources"] == {"requests": {"cpu": 32, "memory": "256Gi"}}
    other = {**SERVED, "spec__challenger__pods": {"resources": {"limits": {"amd.com/gpu": 1}}}}
    assert pod_of(CHALLENGER, **other)["initContainers"][1]["resources"] == {"limits": {"amd.com/gpu": 4}}
    none = {**SERVED, "spec__challenger__engine": {"kind": "server", "gpus": 0}}
    assert "resources" not in pod_of(CHALLENGER, **none)["initContainers"][1]
    several = {**SERVED, "spec__challenger__engine": {"kind": "server", "gpus": 2, "replicas": 3}}
    assert pod_of(CHALLENGER, **several)["initContainers"][1]["resources"] == {"limits": {"nvidia.com/gpu": 6}}


def test_a_policy_has_gpus_of_its_own_beside_those_of_a_frozen_model() -> None:
    policy = {"generation": "vllm", "vllmMode": "server", "vllmTensorParallelSize": 2}
    asked = {f"spec__challenger__grpo__{name}": value for name, value in policy.items()}
    both = pod_of(CHALLENGER, **SERVED, **asked)
    assert both["initContainers"][1]["resources"] == {"limits": {"nvidia.com/gpu": 4 + 2}}
    assert in_container(both["containers"][0]["env"])["SELFEVO_PROCESSES"] == "4"
    endpoint = {"kind": "server", "endpoint": {"url": "https://llm.example", "tokenSecret": {"name": "llm"}}}
    elsewhere = pod_of(CHALLENGER, **{**SERVED, **asked, "spec__challenger__engine": endpoint})
    assert elsewhere["initContainers"][1]["resources"] == {"limits": {"nvidia.com/gpu": 2}}
    names = [variable["name"] for variable in elsewhere["containers"][0]["env"]]
    assert {"SELFEVO_SERVER_TOKEN", "SELFEVO_SERVER_URL"} <= set(names)
    assert violations(both) == violations(elsewhere) == []


def test_a_judge_has_gpus_of_its_own_in_the_phases_that_ask_it_and_in_no_other() -> None:
    judged = {k: v for k, v in CASES["solver-with-a-served-judge"].items() if k != "step"}
    server = pod_of(SOLVER, **judged)["initContainers"][1]
    assert server["resources"] == {"limits": {"nvidia.com/gpu": 4}}
    assert not [variable for variable in server["env"] if variable["name"].startswith("AWS_SECRET")]
    both = {**judged, "spec__challenger__engine": {"kind": "server", "gpus": 3}}
    assert pod_of(CHALLENGER, **both)["initContainers"][1]["resources"] == {"limits": {"nvidia.com/gpu": 3 + 4}}
    policy = {"generation": "vllm", "vllmMode": "server"}
    all_three = {**both, **{f"spec__challenger__grpo__{name}": value for name, value in policy.items()}}
    assert pod_of(CHALLENGER, **all_three)["initContainers"][1]["resources"]["limits"] == {"nvidia.com/gpu": 3 + 4 + 1}
    shard = pod_of(ROLLOUT, **judged)["initContainers"][1]  # each shard's pod has its own
    assert shard["resources"] == {"limits": {"nvidia.com/gpu": 4}}
    for step in ("verifier-train-0", "verifier-train-1", EVALUATE):
        assert "initContainers" not in pod_of(step, **judged)
        assert "judgeServer" not in env_of(step, **judged)[CONFIG_ENV]
    without = {**judged, "spec__verifier": {**judged["spec__verifier"], "server": None}}
    assert "initContainers" not in pod_of(SOLVER, **without)
    run, other = run_of(**judged), run_of(**without)
    assert [step.key for step in plan(run.spec).steps] == [step.key for step in plan(other.spec).steps]
    assert violations(pod_of(CHALLENGER, **all_three)) == []


def test_a_policys_server_is_not_open_to_a_node() -> None:
    policy = {"spec__solver__grpo__generation": "vllm", "spec__solver__grpo__vllmMode": "server"}
    asked = {**policy, "spec__solver__pods": {"hostNetwork": True}}
    assert refusal(SOLVER, settings=ON_NODES, **asked) == (
        "spec.solver.grpo.vllmMode is 'server', which takes weights from whoever reaches its 127.0.0.1, and "
        "spec.solver.pods.hostNetwork makes that the node's; set hostNetwork to false, or vllmMode to colocate"
    )


def test_an_endpoint_needs_no_server_and_its_token_is_read_by_the_kubelet_alone() -> None:
    asked = {"url": "https://llm.example", "tokenSecret": {"name": "llm", "key": "key"}}
    pod = pod_of(CHALLENGER, spec__challenger__engine={"kind": "server", "endpoint": asked})
    assert "initContainers" not in pod
    variables = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
    assert variables["SELFEVO_SERVER_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "llm", "key": "key"}}
    assert "SELFEVO_SERVER_URL" not in variables
    del asked["tokenSecret"]
    open_to_all = pod_of(CHALLENGER, spec__challenger__engine={"kind": "server", "endpoint": asked})
    assert "SELFEVO_SERVER_TOKEN" not in {variable["name"] for variable in open_to_all["containers"][0]["env"]}


def test_the_token_of_a_judge_is_for_the_phases_that_ask_it() -> None:
    for phase in (CHALLENGER, ROLLOUT):
        variables = {variable["name"]: variable for variable in pod_of(phase, **RUBRIC)["containers"][0]["env"]}
        assert variables["SELFEVO_JUDGE_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "llm", "key": "token"}}
    others = [pod_of("evaluate-0", **RUBRIC), pod_of(CHALLENGER, **TRIAD)]
    named = [variable["name"] for other in others for variable in other["containers"][0]["env"]]
    assert "SELFEVO_PHASE_CONFIG" in named and "SELFEVO_JUDGE_TOKEN" not in named


def test_the_token_of_an_oracle_is_for_the_rollout_alone() -> None:
    oracle = {"kind": "endpoint", "url": "https://llm", "model": "strong", "tokenSecret": {"name": "llm"}}
    pod = pod_of(ROLLOUT, spec__rollout__oracle=oracle)
    variables = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
    assert variables["SELFEVO_ORACLE_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "llm", "key": "token"}}
    others = [pod_of(CHALLENGER, spec__rollout__oracle=oracle), pod_of(ROLLOUT)]
    named = [variable["name"] for other in others for variable in other["containers"][0]["env"]]
    assert "SELFEVO_PHASE_CONFIG" in named and "SELFEVO_ORACLE_TOKEN" not in named


def test_only_who_talks_to_the_store_has_its_credentials() -> None:
    pod = pod_of(CHALLENGER, **SERVED)
    with_secrets = [
        container["name"]
        for container in [*pod["initContainers"], *pod["containers"]]
        if any("valueFrom" in variable for variable in container["env"])
    ]
    assert with_secrets == ["fetch-model", "trainer"]


def test_a_model_that_cannot_be_fetched_fails_the_job_and_a_server_that_ends_does_not() -> None:
    job = job_of(CHALLENGER, **SERVED)
    assert decided(job, 2, container="fetch-model") == "FailJob"
    assert decided(job, 3, container="fetch-model") == "Count"
    assert decided(job, 2, container="server") == "Count"


# --- the digest of a template -----------------------------------------------------------------------------------------


def digest_of(step: str, **changes: Any) -> str:
    return job_of(step, **changes)["metadata"]["annotations"]["selfevo.dev/template"]


@pytest.mark.parametrize("case", CASES)
def test_attempts_have_one_template(case: str) -> None:
    first, second = (manifests(**{**CASES[case], "attempt": attempt})[0] for attempt in (1, 12))
    assert first["metadata"]["name"] != second["metadata"]["name"]
    annotation = first["metadata"]["annotations"]["selfevo.dev/template"]
    assert annotation == second["metadata"]["annotations"]["selfevo.dev/template"]
    assert template_digest(first) == annotation, "the annotation itself is not in it"
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}", annotation)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec__pods": {"image": "other"}},
        {"spec__solver__pods": {"resources": {"limits": {"cpu": 2}}}},
        {"spec__pods": {"env": [{"name": "A", "value": "1"}]}},
        {"spec__pods": {"nodeSelector": {"a": "b"}}},
        {"spec__pods": {"labels": {"a": "b"}}},
        {"spec__pods": {"annotations": {"a": "b"}}},
        {"spec__pods": {"schedulerName": "a"}},
        {"spec__pods": {"podAffinity": [{"topologyKey": "a"}]}},
        {"spec__pods": {"volumes": [{"name": "a", "mountPath": "/mnt/a", "ephemeral": {"size": 1}}]}},
        {"spec__pods": {"activeDeadlineSeconds": 5}},
        {"spec__queue": "a"},
        {"spec__ttlSecondsAfterFinished": 100},
        {"spec__backoffLimit": 1},
        {"spec__storage__region": "eu-central-1"},
        {"spec__storage__credentialsSecret": "s"},
        {"spec__solver__checkpointEvery": 2},
        {"spec__solver__engine": {"kind": "transformers", "batchSize": 2}},
        {"settings": PodSettings(image="other")},
        {"settings": PodSettings(image=SETTINGS.image, run_as_user=5)},
        {"metadata__uid": "another"},
    ],
)
def test_a_job_of_another_spec_has_another_template(changes: dict[str, Any]) -> None:
    assert digest_of(SOLVER, **changes) != digest_of(SOLVER)


def test_what_does_not_concern_a_step_leaves_its_template_alone() -> None:
    others = {
        "spec__iterations": 3,
        "spec__suspend": True,
        "spec__rollout__pods": {"image": "x"},
        "spec__parallelSteps": 2,
    }
    assert digest_of(SOLVER, **others) == digest_of(SOLVER)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        (SOLVER, {"spec__storage__uri": "file:///store"}, "spec.storage.uri is 'file:///store'"),
        (SOLVER, {"spec__storage__uri": "file:store"}, "use s3://"),
        (SOLVER, {"spec__model__uri": "file:base"}, "spec.model.uri is 'file:base'"),
        (
            SOLVER,
            {"spec__evaluation__tasks": [{"name": "a", "data": {"uri": "file:x.jsonl"}}]},
            "spec.evaluation.tasks[0].data.uri is 'file:x.jsonl'",
        ),
        (
            SOLVER,
            {"spec__exclude": [{"uri": "s3://bucket/a"}, {"uri": "file:./b"}]},
            "spec.exclude[1].uri is 'file:./b'",
        ),
        (SOLVER, {"spec__pods": {"nodeSelector": {"a" * 254 + "/b": ""}}}, "spec.solver.pods.nodeSelector has the key"),
        (
            SOLVER,
            {"spec__pods": {"tolerations": [{"key": "a" * 254 + "/b"}]}},
            "spec.solver.pods.tolerations[0].key has the key",
        ),
        (SOLVER, {"settings": PodSettings()}, "spec.solver.pods.image is not given"),
        (ROLLOUT, {"spec__rollout__pods": {"nodes": 2}}, "spec.rollout.pods.nodes is 2"),
        (EVALUATE, {"spec__evaluation__pods": {"nodes": 3}}, "spec.evaluation.pods.nodes is 3"),
        (SOLVER, {"spec__solver__pods": {"nodes": 2}}, "16 x 2 processes"),
        (
            CHALLENGER,
            {"spec__pods": {"resources": {"limits": {"nvidia.com/gpu": 3}}}},
            "spec.challenger.grpo.perDeviceTrainBatchSize 16 x 3 processes",
        ),
        (
            SOLVER,
            {"spec__pods": {"resources": {"limits": {"nvidia.com/gpu": 65}}}},
            "65 GPUs; a pod trains on at most 64",
        ),
        (
            SOLVER,
            {"spec__pods": {"resources": {"limits": {"nvidia.com/gpu": 1, "amd.com/gpu": 1}}}},
            "GPUs of two kinds, amd.com/gpu and nvidia.com/gpu",
        ),
        (SOLVER, {"spec__pods": {"resources": {"limits": {"nvidia.com/gpu": "500m"}}}}, "it must be a whole number"),
        (SOLVER, {"spec__pods": {"resources": {"requests": {"nvidia.com/gpu": 1}}}}, "without a limit"),
        (
            SOLVER,
            {
                "spec__pods": {"resources": {"requests": {"memory": "64Gi"}}},
                "spec__solver__pods": {"resources": {"limits": {"memory": "32G"}}},
            },
            "spec.solver.pods.resources.requests.memory is 64Gi, above its limit 32G",
        ),
        (
            SOLVER,
            {
                "spec__solver__grpo__sharding": "fsdp",
                "spec__pods": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            },
            "grpo.sharding is 'fsdp', and spec.solver.pods has one GPU; give it two or more, or remove sharding",
        ),
        (
            SOLVER,
            {
                "spec__solver__grpo__generation": "vllm",
                "spec__solver__grpo__vllmMode": "server",
                "spec__solver__pods": {"nodes": 2},
            },
            "spec.solver.grpo.vllmMode is 'server', which is beside one pod, and spec.solver.pods has 2 nodes; set "
            "nodes to 1, or vllmMode to colocate",
        ),
        (
            SOLVER,
            {"spec__solver__prompt": {"user": "{question}" + "x" * 60_000, "system": "y" * 60_000}},
            "bytes of JSON",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_sentence(step: str, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(step, **changes)


def test_two_volumes_at_one_place_are_refused() -> None:
    asked = [{"name": name, "mountPath": "/mnt/a", "ephemeral": {"size": 1}} for name in "ab"]
    assert refusal(SOLVER, spec__pods={"volumes": asked}) == (
        "spec.solver.pods.volumes has two with mountPath '/mnt/a'; give each a place of its own"
    )


def test_what_an_image_brings_along_may_be_a_path() -> None:
    assert manifests(SOLVER, spec__model__uri="file:///models/base", spec__exclude=[{"uri": "file:///data/x.jsonl"}])


def test_a_lowered_limit_of_devices_needs_no_request() -> None:
    eight = {"requests": {"nvidia.com/gpu": 8, "cpu": 4}, "limits": {"nvidia.com/gpu": 8}}
    changes = {
        "spec__pods": {"resources": eight},
        "spec__evaluation__pods": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
    }
    assert trainer_of(EVALUATE, **changes)["resources"] == {"requests": {"cpu": 4}, "limits": {"nvidia.com/gpu": 1}}


# --- whatever is asked for --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_whatever_a_valid_run_asks_for_it_gets_restricted_pods_or_a_sentence() -> None:
    """400 valid runs. That PodSecurity itself agrees with `violations` is for tests/cluster/test_jobs.py."""
    runs, rendered = set(), itertools.count()

    @given(document=specs.documents())
    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def search(document: dict[str, Any]) -> None:
        try:
            run = SelfEvolutionRun.model_validate(document)
        except ValidationError:
            reject()  # it is not one of the 400
        runs.add(run.model_dump_json())
        for step in plan(run.spec).steps[:4]:
            if restricted_or_refused(run, step):
                next(rendered)

    search()
    assert len(runs) > 360, "hypothesis should not repeat itself"
    assert next(rendered) > 3 * len(runs), "most of what is tried should be rendered"


def restricted_or_refused(run: SelfEvolutionRun, step: Step) -> bool:
    """Whether the step got its Job; asserts that it is as it must be, or that it is refused in a person's terms."""
    try:
        # which asks the list of `allowed` by itself
        job, *services = render(run, step, 1, attempt_name(run.metadata.name, step, 1), SETTINGS)
    except InputError as error:
        assert error.reason != "NotAllowed", error
        assert str(error).startswith("spec."), error
        return False
    pod = job["spec"]["template"]["spec"]
    assert violations(pod) == []
    assert len(services) == (job["spec"]["completions"] > 1 and step.shards == 1)
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names))
        env = in_container(container["env"])
        assert PhaseConfig.model_validate_json(env[CONFIG_ENV]).inputs == step.inputs
    return True


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("spec.exclude[0].uri", {"spec__exclude": [{"uri": "file:beside.jsonl"}]}),
        ("spec.finetune.data.uri", {"spec__finetune": {"data": {"uri": "file:beside.jsonl"}}}),
        ("spec.rollout.oracle.data.uri", {"spec__rollout__oracle": {"kind": "data", "data": {"uri": "file:beside"}}}),
        ("spec.verifier.anchors.data.uri", {**TRIAD, "spec__verifier": {"anchors": {"data": {"uri": "file:beside"}}}}),
        (
            "spec.verifier.model.uri",
            {**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], "model": {"uri": "file:beside"}}},
        ),
        (
            "spec.verifier.rubric.criteria[0].uri",
            {
                **RUBRIC,
                "spec__verifier": {
                    "kind": "rubric",
                    "rubric": {**RUBRIC["spec__verifier"]["rubric"], "criteria": [{"uri": "file:beside"}]},
                },
            },
        ),
    ],
)
def test_what_lies_beside_a_manifest_is_refused_by_its_field(field: str, changes: dict[str, Any]) -> None:
    spec = make_run(**{"spec__storage__uri": "s3://models/runs", **changes}).spec
    with pytest.raises(InputError, match=re.escape(f"{field} is 'file:beside")):
        _refuse_paths_of_one_machine(spec)
