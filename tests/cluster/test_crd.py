"""The CRD before a real API server: taken, its defaults, its sentences, and what may change after creation."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import yaml
from pydantic import ValidationError

from harness.cluster import tools
from harness.cluster.client import ApiError
from harness.cluster.controlplane import ControlPlane
from harness.full_run import FULL, SMALL, Document
from harness.gotools import ToolUnavailable
from harness.mutations import ABSENT, changed, places, schema_at, values_for
from harness.runs import RUBRIC, TRIAD, document
from selfevo_contract.crd.of_fields import messages_of
from selfevo_contract.crd.resource import definition
from selfevo_contract.crd.transitions import FROZEN
from selfevo_contract.plan import sketch
from selfevo_contract.run import SelfEvolutionRun

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
REMEDY = "start a new run with the other value: it shares every step whose inputs are equal"


JUDGE = RUBRIC["spec__verifier"]
RUBRIC_MISSING = "a verifier of kind rubric needs rubric, and no other has it; set kind to rubric with it, or remove it"


def refusal(plane: ControlPlane, made: Document) -> str:
    with pytest.raises(ApiError) as error:
        plane.admin.create(made, "default", dryRun="All", fieldValidation="Strict")
    assert error.value.status == 422, error.value
    return error.value.message


def test_the_server_takes_the_crd_and_serves_it(control_plane: ControlPlane) -> None:
    crd = control_plane.admin.get("customresourcedefinitions", "selfevolutionruns.selfevo.dev")
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions and "KubernetesAPIApprovalPolicyConformant" not in conditions
    (kept,) = crd["spec"]["versions"]
    assert kept["schema"]["openAPIV3Schema"] == SCHEMA  # nothing was dropped or rewritten


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_taken_and_applying_it_again_changes_nothing(
    control_plane: ControlPlane, namespace: str, path: Path
) -> None:
    example = yaml.safe_load(path.read_text())
    example["metadata"]["namespace"] = namespace
    first = control_plane.admin.apply(example, fieldValidation="Strict")
    again = control_plane.admin.apply(example, fieldValidation="Strict")
    # The first write after the creation, usually the operator's, stores the status' default. Nothing else changes.
    first["metadata"].pop("resourceVersion"), again["metadata"].pop("resourceVersion")
    assert again == first
    stored = control_plane.admin.get("selfevolutionruns", example["metadata"]["name"], namespace)
    assert SelfEvolutionRun.model_validate(stored).spec == SelfEvolutionRun.model_validate(example).spec


def test_the_status_is_written_apart(control_plane: ControlPlane, namespace: str) -> None:
    admin = control_plane.admin
    made = admin.create({**document(metadata={"name": "demo"}), "status": {"phase": "Running"}}, namespace)
    assert made["status"] == {"observedGeneration": 0}, (
        "of a generation that there never is: nobody has reconciled it yet"
    )
    admin.patch("selfevolutionruns", "demo", {"status": {"phase": "Running"}}, namespace, "status")
    after = admin.patch("selfevolutionruns", "demo", {"spec": {"seed": 0}, "status": {"phase": "Failed"}}, namespace)
    assert (after["status"], after["metadata"]["generation"]) == ({"phase": "Running", "observedGeneration": 0}, 1)


def test_the_whole_status_of_the_models_is_kept(control_plane: ControlPlane, namespace: str) -> None:
    schema = SCHEMA["properties"]["status"]
    status = _sample(schema)
    del status["done"]  # records in another form: tests/operator/test_status_patch.py
    control_plane.admin.create(document(metadata={"name": "demo"}), namespace)
    after = control_plane.admin.patch("selfevolutionruns", "demo", {"status": status}, namespace, "status")
    assert after["status"] == status
    wire = SelfEvolutionRun.model_validate(after).status
    assert wire is not None and wire.model_dump(mode="json", by_alias=True) == {**status, "done": []}


def _sample(schema: dict[str, Any]) -> Any:
    if "properties" in schema:
        return {name: _sample(field) for name, field in schema["properties"].items()}
    if "items" in schema:
        return [_sample(schema["items"])]
    if "additionalProperties" in schema:
        return {"x/y": _sample(schema["additionalProperties"])}
    # choices stand in the description: "Pending, Running, ...", "True, False or Unknown."
    text = schema.get("description", "").split(",")[0]
    return {"string": text, "integer": 1, "number": 0.5, "boolean": True}[schema["type"]]


TOLERATION = {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 1}
MISTAKES: list[tuple[Document, str, str]] = [
    (
        document(metadata={"name": "a.b"}),
        "<nil>",
        "metadata.name stands in labels and host names; write at most 63 lower-case letters, digits and '-'",
    ),
    (
        document(spec__model__uri="Qwen/Qwen3"),
        "spec.model.uri",
        "write it as hf://<owner>/<model>@<revision> or s3://<bucket>/<prefix> or file:///<absolute path>",
    ),
    (document(spec__model__uri="s3://bucket/../x"), "spec.model.uri", "write the path without '..'"),
    (
        document(spec__storage__uri="hf://owner/model"),
        "spec.storage.uri",
        "write it as s3://<bucket>/<prefix> or file:///<absolute path>",
    ),
    (document(spec__model__digest="D" * 64), "spec.model.digest", "write it as 64 lower-case hexadecimal digits"),
    (
        document(spec__storage__endpoint="s3.example.com"),
        "spec.storage.endpoint",
        "write it as http(s)://<host>:<port>, without a path",
    ),
    (
        document(spec__queue="Team A"),
        "spec.queue",
        "write it as lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part",
    ),
    (
        document(spec__solver__grpo__perDeviceTrainBatchSize=7),
        "spec.solver.grpo",
        "perDeviceTrainBatchSize does not divide the completions of an update (promptsPerUpdate x numGenerations); "
        "choose a divisor of them",
    ),
    (
        document(spec__finetune={"data": {"uri": "s3://bucket/x"}, "batch": 12}),
        "spec.finetune",
        "perDeviceTrainBatchSize does not divide batch; choose a divisor of it",
    ),
    (
        document(spec__publish={"to": "hf://acme/sums@main"}),
        "spec.publish.to",
        "write it as hf://<owner>/<name> or s3://<bucket>/<prefix> or file:///<absolute path>",
    ),
    (
        document(spec__publish={"to": "s3://bucket/runs/best"}, spec__storage__uri="s3://bucket/runs/"),
        "spec",
        "publish.to lies in storage.uri, among the run's own outputs; choose another place",
    ),
    *(
        (
            document(spec__rollout__engine={"kind": other, name: value}),
            "spec.rollout.engine",
            f"{name} is a field of kind {kind}; remove it or choose that kind",
        )
        for other, kind, name, value in (
            ("vllm", "transformers", "batchSize", 8),
            ("vllm", "transformers", "batchTokens", 4096),
            ("transformers", "vllm", "tensorParallelSize", 2),
            ("transformers", "vllm", "maxModelLength", 4096),
            ("server", "vllm", "maxSequences", 8),
            ("server", "vllm", "quantization", "fp8"),
            ("server", "vllm", "enforceEager", True),
            ("transformers", "vllm", "enableSleepMode", True),
            ("transformers", "server", "gpus", 1),
            ("vllm", "server", "replicas", 1),
            ("vllm", "server", "maxConcurrency", 1),
            ("vllm", "server", "requestTimeout", 1),
            ("vllm", "server", "startupSeconds", 1),
            ("vllm", "server", "fingerprint", "off"),
            ("vllm", "server", "endpoint", {"url": "http://llm:8000"}),
        )
    ),
    (
        document(spec__rollout__engine={"kind": "transformers", "gpuMemoryUtilization": 0.5}),
        "spec.rollout.engine.gpuMemoryUtilization",
        "gpuMemoryUtilization is a field of kinds vllm and server; remove it or choose one of them",
    ),
    *(
        (document(spec__tracking=[tracker]), f"spec.tracking[0]{field}", message)
        for tracker, field, message in (
            (
                {"kind": "mlflow"},
                "",
                "a tracker of kind mlflow needs endpoint; put the tracking server's address there",
            ),
            (
                {"kind": "trackio"},
                "",
                "a tracker of kind trackio needs either space or endpoint; give one of them",
            ),
            ({"kind": "trackio", "space": "curves"}, ".space", "write it as <owner>/<space>"),
            (
                {"kind": "tensorboard", "project": "x"},
                "",
                "project is a field of kinds mlflow and trackio and wandb; remove it or choose one of them",
            ),
            (
                {"kind": "tensorboard", "endpoint": "https://x"},
                "",
                "endpoint is a field of kinds mlflow and trackio and wandb; remove it or choose one of them",
            ),
            (
                {"kind": "wandb", "space": "a/b"},
                ".space",
                "space is a field of kind trackio; remove it or choose that kind",
            ),
            (
                {"kind": "tensorboard", "entity": "x"},
                ".entity",
                "entity is a field of kind wandb; remove it or choose that kind",
            ),
        )
    ),
    *(
        (document(spec__rollout__wellFormed=[check]), f"spec.rollout.wellFormed[0]{field}", message)
        for check, field, message in (
            (
                {"kind": "alphabet", "characters": "a", "after": "b"},
                "",
                "characters says what an answer may have, and after would take it from the question; remove one of "
                "them",
            ),
            (
                {"kind": "number", "after": "b"},
                ".after",
                "after is a field of kinds alphabet and length; remove it or choose one of them",
            ),
            (
                {"kind": "length", "characters": "b"},
                ".characters",
                "characters is a field of kind alphabet; remove it or choose that kind",
            ),
            (
                {"kind": "choice", "unit": "words"},
                ".unit",
                "unit is a field of kind length; remove it or choose that kind",
            ),
        )
    ),
    *(
        (
            document(spec__rollout__engine={"kind": "server", "endpoint": {"url": "http://llm:8000"}, **beside}),
            "spec.rollout.engine",
            "endpoint is a server that runs already; remove gpus, replicas and gpuMemoryUtilization, or the endpoint",
        )
        for beside in ({"gpus": 1}, {"replicas": 1}, {"gpuMemoryUtilization": 0.5})
    ),
    *(
        (
            document(spec__rollout__oracle={"kind": "arithmetic", name: value}),
            "spec.rollout.oracle" + ".data" * (name == "data"),
            f"{name} is a field of kind {kind}; remove it or choose that kind",
        )
        for kind, name, value in (
            ("data", "data", {"uri": "s3://bucket/a"}),
            ("endpoint", "url", "https://llm"),
            ("endpoint", "model", "strong"),
            ("endpoint", "tokenSecret", {"name": "llm"}),
            ("endpoint", "questions", 1),
            ("endpoint", "samples", 1),
            ("endpoint", "seed", 1),
            ("endpoint", "prompt", {"user": "{question}"}),
            ("endpoint", "maxCompletionLength", 1),
            ("endpoint", "temperature", 1),
            ("endpoint", "requestTimeout", 1),
            ("endpoint", "patience", 1),
            ("endpoint", "maxConcurrency", 1),
            ("endpoint", "required", False),
        )
    ),
    (
        document(spec__rollout__oracle={"kind": "endpoint", "url": "https://llm"}),
        "spec.rollout.oracle",
        "an endpoint needs url and model; put both",
    ),
    (
        document(spec__rollout__oracle={"kind": "data"}),
        "spec.rollout.oracle",
        "an oracle of kind data needs data; put the file's uri there",
    ),
    (
        document(
            spec__rollout__labels="truth",
            spec__rollout__oracle={"kind": "endpoint", "url": "https://llm", "model": "strong"},
        ),
        "spec.rollout",
        "labels 'truth' needs an oracle that knows it, for example {kind: arithmetic}",
    ),
    (document(spec__pods={"image": "a b"}), "spec.pods.image", "write it as the name of an image, without spaces"),
    (
        document(spec__pods={"resources": {"limits": {"gpu": 1}}}),
        "spec.pods.resources.limits",
        "write it as cpu, memory, ephemeral-storage, hugepages-2Mi, hugepages-1Gi or a device plugin's name "
        "such as nvidia.com/gpu",
    ),
    (
        document(spec__pods={"resources": {"limits": {"memory": "64 GB"}}}),
        "spec.pods.resources.limits[memory]",
        "write a quantity such as 8, 500m or 64Gi",
    ),
    (
        document(spec__pods={"nodeSelector": {"a b": "c"}}),
        "spec.pods.nodeSelector",
        "write it as the key of a label, such as pool or example.com/pool",
    ),
    (
        document(spec__pods={"nodeSelector": {"a": "b c"}}),
        "spec.pods.nodeSelector[a]",
        "write it as letters, digits, '-', '_' and '.', at most 63 of them",
    ),
    (
        document(spec__pods={"tolerations": [{"effect": "NoSchedule"}]}),
        "spec.pods.tolerations[0]",
        "a toleration without a key needs operator Exists; add either",
    ),
    (
        document(spec__pods={"tolerations": [{**TOLERATION, "operator": "Exists"}]}),
        "spec.pods.tolerations[0]",
        "operator Exists takes no value; remove value or use operator Equal",
    ),
    (
        document(spec__pods={"tolerations": [{**TOLERATION, "effect": "NoSchedule"}]}),
        "spec.pods.tolerations[0]",
        "tolerationSeconds needs effect NoExecute; set it or remove tolerationSeconds",
    ),
    (
        document(spec__pods={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "a b"}}}]}),
        "spec.pods.env[0].valueFrom.secretKeyRef.key",
        "write it as letters, digits, '-', '_' and '.'",
    ),
    (
        document(
            spec__pods={"env": [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}
        ),
        "spec.pods.env[0]",
        "value and valueFrom are both given; remove one",
    ),
    (
        document(spec__pods={"labels": {"selfevo.dev/run": "x"}}),
        "spec.pods.labels",
        "keys of Kubernetes, container runtimes and selfevo are not set by hand; choose another (a queue is named by "
        "spec.queue)",
    ),
    (
        document(spec__pods={"annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=all"}}),
        "spec.pods.annotations",
        "keys of Kubernetes, container runtimes and selfevo are not set by hand; choose another (autoscalers, "
        "descheduler and kueue.x-k8s.io/podset-* excepted)",
    ),
    (
        document(spec__pods={"volumes": [{"name": "a", "mountPath": "/etc", "ephemeral": {"size": 1}}]}),
        "spec.pods.volumes[0].mountPath",
        "write it as /work/cache, /work/phase or /mnt/<name>",
    ),
    (
        document(spec__pods={"volumes": [{"name": "a", "mountPath": "/mnt/a"}]}),
        "spec.pods.volumes[0]",
        "a volume is a persistentVolumeClaim or ephemeral; write one of them",
    ),
    (
        document(spec__pods={"resourceClaims": [{"name": "gpus"}]}),
        "spec.pods.resourceClaims[0]",
        "a claim is made by resourceClaimTemplateName or named by resourceClaimName; write one of them",
    ),
    (
        document(spec__pods={"nodeAffinity": [{"key": "a"}]}),
        "spec.pods.nodeAffinity[0]",
        "In and NotIn compare with values, Exists and DoesNotExist with none; add or remove values",
    ),
    (
        document(spec__pods={"env": [{"name": "1A"}]}),
        "spec.pods.env[0].name",
        "write it as letters, digits and '_', not beginning with a digit",
    ),
    (
        document(spec__pods={"env": [{"name": "PET_RANK"}]}),
        "spec.pods.env[0].name",
        "selfevo sets this variable itself; remove it (credentials come from storage.credentialsSecret)",
    ),
    (
        document(spec__pods={"env": [{"name": "A", "value": "\x00"}]}),
        "spec.pods.env[0].value",
        "write it as text without a NUL character",
    ),
    (
        document(spec__rollout__labels="truth"),
        "spec.rollout",
        "labels 'truth' needs an oracle that knows it, for example {kind: arithmetic}",
    ),
    (document(spec__rollout__shards=99), "spec.rollout", "shards is above questions; lower shards"),
    (
        document(spec__pods__volumes=[{"name": "a", "mountPath": "/mnt/a", "ephemeral": {"size": "0"}}]),
        "spec.pods.volumes[0].ephemeral.size",
        "write a size above zero such as 500Gi or 2Ti",
    ),
    (
        document(spec__rollout__minCurriculum=99),
        "spec.rollout",
        "minCurriculum is above questions; lower minCurriculum",
    ),
    (
        document(spec__solver__grpo__promptsPerUpdate=3, spec__solver__grpo__perDeviceTrainBatchSize=4),
        "spec.solver.grpo",
        "promptsPerUpdate does not divide promptsPerStep; choose a divisor of it",
    ),
    (
        document(spec__challenger__engine={"kind": "vllm"}, spec__challenger__grpo__generation="vllm"),
        "spec.challenger",
        "grpo.generation and engine.kind are both vllm, and one process holds one vLLM; choose engine.kind server, "
        "or grpo.vllmMode server",
    ),
    (
        document(spec__solver__grpo__sharding="fsdp", spec__solver__grpo__generation="vllm"),
        "spec.solver.grpo",
        "generation vllm with vllmMode colocate needs whole weights on each GPU, which sharding fsdp does not have; "
        "set vllmMode to server, or choose one of them",
    ),
    (
        document(spec__solver__grpo__vllmMode="server"),
        "spec.solver.grpo",
        "vllmMode server says where vLLM generates, and generation is not vllm; set generation to vllm, or remove "
        "vllmMode",
    ),
    (
        document(spec__challenger__grpo__vllmTensorParallelSize=2),
        "spec.challenger.grpo",
        "vllmTensorParallelSize says how many GPUs a server has, and vllmMode is not server; set vllmMode to server, "
        "or remove vllmTensorParallelSize",
    ),
    (
        document(spec__solver__grpo__cpuOffload=True),
        "spec.solver.grpo",
        "cpuOffload keeps in CPU memory what sharding fsdp shares out, and sharding is not fsdp; set sharding to fsdp, "
        "or remove cpuOffload",
    ),
    (
        document(spec__solver__grpo__delta=1.2),
        "spec.solver.grpo",
        "delta is not above 1 + epsilonHigh, so that it would cut what the clip range allows; raise it, or write 0 to "
        "turn it off",
    ),
    (
        document(spec__rollout__shards=2, spec__rollout__minShards=2),
        "spec.rollout",
        "minShards is not below shards; lower it, or remove it",
    ),
    (
        document(spec__evaluation__shards=2, spec__evaluation__minShards=2),
        "spec.evaluation",
        "minShards is not below shards; lower it, or remove it",
    ),
    (
        document(
            spec__evaluation__tasks=[{"name": "a", "data": {"uri": "s3://bucket/a"}, "shards": 2}],
            spec__evaluation__shards=8,
            spec__evaluation__minShards=2,
        ),
        "spec.evaluation",
        "minShards is not below shards; lower it, or remove it",
    ),
    (
        document(
            spec__evaluation__tasks=[
                {"name": "a", "data": {"uri": "s3://bucket/a"}, "shards": 1000},
                {"name": "b", "data": {"uri": "s3://bucket/b"}},
            ],
            spec__evaluation__shards=25,
        ),
        "spec.evaluation",
        "the shards of all tasks together are more than 1024; lower some",
    ),
    (
        document(spec__storage__uri="s3://My_Bucket/x"),
        "spec.storage.uri",
        "some stores take such a bucket's name, S3 stores of today do not; choose a bucket with 3 to 63 of a-z, 0-9, "
        "'.' and '-', with a letter or digit at both ends",
    ),
    (
        document(spec__rollout__band={"min": 0.8, "max": 0.2}),
        "spec.rollout.band",
        "min is above max; no question could enter, so swap or widen them",
    ),
    (
        document(spec__solver__prompt__user="Answer!"),
        "spec.solver",
        "prompt.user never shows the question; put {question} into it",
    ),
    (
        document(spec__evaluation__tasks=[{"name": "A", "data": {"uri": "s3://bucket/a"}}]),
        "spec.evaluation.tasks[0].name",
        "write it as lower-case letters, digits and '-', with a letter or digit at both ends",
    ),
    (
        document(
            spec__evaluation__tasks=[{"name": "a", "data": {"uri": "s3://bucket/a"}, "prompt": {"user": "Solve it."}}]
        ),
        "spec.evaluation.tasks[0]",
        "prompt.user never shows the question; put {question} into it",
    ),
    (
        document(spec__guards={"truncation": {"warnAt": 0.5}}),
        "spec.guards.truncation",
        "warnAt is above limit, so it would never be reached first; lower warnAt or raise limit",
    ),
    (
        document(spec__solver={"checkpointEvery": "3 steps"}),
        "spec.solver.checkpointEvery",
        "write a number of steps, or a duration such as 10m",
    ),
    (
        document(spec__guards={"kl": {"action": "promoteBest"}}, spec__evaluation=None),
        "spec",
        "a guard's action promoteBest needs evaluation, which tells the best iteration; add evaluation, or choose stop",
    ),
    (
        document(spec__budget={"wallTime": "3 days"}),
        "spec.budget.wallTime",
        "write it as a duration such as 90m, 72h or 1h30m",
    ),
    (
        document(spec__budget={"wallTime": "0h0m"}),
        "spec.budget",
        "wallTime is zero, and nothing could run; write a duration such as 72h, or remove it",
    ),
    (
        document(spec__budget={"dollars": 100}),
        "spec.budget",
        "dollars are counted by a price; add dollarsPerGpuHour, what one GPU costs an hour",
    ),
    (
        document(spec__review={"before": []}),
        "spec.review",
        "review names no iteration; write before: [2] or every: true, or remove review",
    ),
    (
        document(**{**TRIAD, "spec__solver__reward": None}),
        "spec",
        "challenger.reward.mode and solver.reward.mode are judged in a run with verifier, and in no other; set both, "
        "and verifier with them",
    ),
    (
        document(**{**TRIAD, "spec__verifier": None}),
        "spec",
        "challenger.reward.mode and solver.reward.mode are judged in a run with verifier, and in no other; set both, "
        "and verifier with them",
    ),
    *(
        (document(**{**TRIAD, "spec__verifier": verifier}), "spec.verifier", message)
        for verifier, message in (
            ({**TRIAD["spec__verifier"], "kind": "rubric"}, RUBRIC_MISSING),
            ({**JUDGE, "kind": "reward", **TRIAD["spec__verifier"]}, RUBRIC_MISSING),
            (
                {},
                "a judge that is trained needs anchors, by which it is measured; put the pairs' file into anchors.data",
            ),
            *(
                (
                    {**JUDGE, name: value},
                    "model, lora and server are of a judge that is trained, and one of kind rubric is not; remove them",
                )
                for name, value in (("model", {"uri": "s3://bucket/judge"}), ("lora", {}), ("server", {}))
            ),
        )
    ),
    (
        document(**{**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], "replay": 0}}),
        "spec.verifier.replay",
        "replay is below a half; write 0.5 or more",
    ),
    (
        document(spec__approvedIteration=9),
        "spec",
        "approvedIteration is above iterations; lower it, or raise iterations with it",
    ),
    (
        document(spec__forkFrom={"run": "other", "iteration": 2}),
        "spec",
        "forkFrom.iteration is not below iterations, which counts the other run's, too; lower it, or raise iterations",
    ),
]


@pytest.mark.parametrize(("made", "field", "message"), MISTAKES, ids=[message[:40] for _, _, message in MISTAKES])
def test_a_mistake_is_reported_in_a_sentence_at_its_field(
    control_plane: ControlPlane, made: Document, field: str, message: str
) -> None:
    answer = refusal(control_plane, made)
    assert f"{field}: Invalid value: " in answer and answer.endswith(f": {message}"), answer


def messages(schema: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """Every message, and whether it is about a change."""
    for rule in schema.get("x-kubernetes-validations", []):
        yield from (("oldSelf" in rule["rule"], message) for message in messages_of(rule))
    within = [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for field in (*within, *schema.get("properties", {}).values()):
        yield from messages(field)


def test_there_is_no_message_that_nobody_saw() -> None:
    assert {text for change, text in messages(SCHEMA) if not change} == {message for _, _, message in MISTAKES}
    seen = {message for _, _, message in CHANGES if message} | {PAIRWISE}
    assert {text for change, text in messages(SCHEMA) if change} == seen


# --- what may change ------------------------------------------------------------------------------------------------

FOR_GOOD = (
    "finetune can be added, not removed, after creation; start a new run without it: it shares every step that it has "
    "in common"
)
LOWERED = "iterations can be raised, not lowered, after creation; start a new run with fewer"


def _presence(*names: str) -> list[tuple[str, Any, str]]:
    return [
        (name, ABSENT, f"{name.split('.')[-1]} cannot be added or removed after creation; {REMEDY}") for name in names
    ]


UNBUILT = "this version of selfevo does not have this engine yet"
CHANGES: list[tuple[str, Any, str]] = [
    # may
    ("iterations", 4, ""),
    ("suspend", False, ""),
    ("budget", ABSENT, ""),
    ("budget.gpuHours", 99, ""),
    ("budget.wallTime", "1h", ""),
    ("review", ABSENT, ""),
    ("review.before", [2], ""),
    ("approvedIteration", 3, ""),
    ("approvedIteration", ABSENT, ""),
    ("budget.tokens", ABSENT, ""),
    ("guards.truncation.limit", 0.9, ""),
    ("guards.standardErrors", 0, ""),
    ("guards", ABSENT, ""),
    ("ttlSecondsAfterFinished", 60, ""),
    ("parallelSteps", 3, ""),
    ("backoffLimit", 0, ""),
    ("queue", ABSENT, ""),
    ("queue", "team-b", ""),
    ("priorityClass", "low", ""),
    ("pods", ABSENT, ""),
    ("solver.pods", {"image": "other"}, ""),
    ("rollout.queue", "big", ""),
    ("rollout.engine", {"kind": "vllm", "quantization": "fp8"}, ""),
    ("evaluation.engine", {"kind": "vllm"}, ""),
    ("evaluation.shards", 4, ""),
    ("evaluation.minShards", ABSENT, ""),
    ("evaluation.chunkQuestions", 4, ""),
    ("rollout.shards", 4, ""),
    ("rollout.chunkQuestions", 4, ""),
    ("challenger.checkpointEvery", 9, ""),
    ("solver.grpo.sharding", ABSENT, ""),
    ("solver.grpo.cpuOffload", ABSENT, ""),
    ("storage.credentialsSecret", ABSENT, ""),
    ("storage.region", "eu-2", ""),
    ("storage.requireConditionalPut", True, ""),
    ("storage.checksum", "whenSupported", ""),
    ("storage.keepAnswers", "votes", ""),
    ("evaluation.metric", "mean", ""),
    # may not
    ("iterations", 2, f"{LOWERED}: it shares every step that it has in common"),
    ("seed", 2, FROZEN),
    ("model.uri", "hf://Qwen/Qwen3-8B-Base@main", FROZEN),
    ("storage.endpoint", "https://other", FROZEN),
    ("challenger.grpo.learningRate", 2e-6, FROZEN),
    ("challenger.reward.repetition.weight", 0.1, FROZEN),
    ("challenger.reward.memory.weight", 0.1, FROZEN),
    ("rollout.samples", 9, FROZEN),
    ("rollout.band", ABSENT, FROZEN),
    ("solver.prompt.user", "{question}?", FROZEN),
    ("evaluation.every", 1, FROZEN),
    ("evaluation.tasks.0.data.uri", "file:///data/else.jsonl", FROZEN),
    ("evaluation.tasks.0.samples", 8, FROZEN),
    ("evaluation.tasks.0.prompt", ABSENT, FROZEN),
    ("exclude", ABSENT, FROZEN),
    ("exclude", [], FROZEN),
    ("finetune.maxSteps", 2, FROZEN),
    ("finetune.kind", "sft", FROZEN),
    ("finetune.data.uri", "s3://bucket/else.jsonl", FROZEN),
    ("finetune.control", True, FROZEN),
    ("finetune", ABSENT, FOR_GOOD),
    ("forkFrom.iteration", 2, FROZEN),
    ("solver.engine", {"kind": "vllm"}, f"{UNBUILT}; choose 'transformers'"),
    ("challenger.engine", {"kind": "server"}, ""),
    *_presence("verifier", "evaluation", "forkFrom", "layout", "model.digest", "storage.endpoint"),
    *_presence("rollout.answerSampling", "evaluation.sampling", "challenger.questionSampling"),
    *_presence("rollout.engine.quantization"),
    *_presence("rollout.minCurriculum", "solver.grpo.promptsPerUpdate", "solver.grpo.learningRate"),
    *_presence(
        "challenger.grpo.lora",
        "challenger.reward.memory",
        "rollout.replay",
        "verifier.model",
        "verifier.lora",
        "verifier.anchors",
        "verifier.promotion.lengthCorrelation",
        "verifier.gate.reach",
        "solver.grpo.vllmMode",
        "solver.grpo.vllmTensorParallelSize",
    ),
    ("verifier.rubric", JUDGE["rubric"], f"rubric cannot be added or removed after creation; {REMEDY}"),
    ("engines", ABSENT, ""),
    ("verifier.server", ABSENT, ""),
    ("verifier.checkpointEvery", "1h", ""),
    ("verifier.server.gpus", 4, ""),
    ("tracking", [{"kind": "tensorboard"}], ""),
    ("tracking", ABSENT, ""),
    ("rollout.wellFormed", [{"kind": "number"}], FROZEN),
    ("rollout.wellFormed", ABSENT, FROZEN),
    ("rollout.replay.share", 0.5, FROZEN),
    ("solver.grpo.generation", "transformers", FROZEN),
    ("solver.grpo.vllmTensorParallelSize", 4, FROZEN),
    ("solver.grpo.lora.targetModules", ABSENT, FROZEN),
    ("solver.grpo.lora.rank", 64, FROZEN),
]
# compared as a whole, for its kinds have other fields
CHANGES.append(("rollout.oracle", {**FULL["spec"]["rollout"]["oracle"], "questions": 9}, FROZEN))
# an oracle is what labels 'truth' needs: it is taken away where it is not needed
CHANGES.append(("rollout.oracle", ABSENT, f"oracle cannot be added or removed after creation; {REMEDY}"))


@pytest.fixture(scope="module")
def stored(control_plane: ControlPlane) -> Document:
    """FULL, in the store."""
    made = copy.deepcopy(FULL)
    made["spec"]["rollout"]["labels"] = "majority"
    made["metadata"] |= {"name": "full", "namespace": control_plane.make_namespace()}
    return control_plane.admin.create(made)


def update(plane: ControlPlane, stored: Document, spec: Document) -> str:
    """Why the API server refuses ``spec`` in the place of what is stored; empty when it takes it."""
    metadata = stored["metadata"]
    path = plane.admin.path("selfevolutionruns", metadata["namespace"], metadata["name"])
    try:
        plane.admin.request("PUT", path, {**stored, "spec": spec}, query={"dryRun": "All", "fieldValidation": "Strict"})
    except ApiError as error:
        assert error.status == 422, error
        return error.message
    return ""


def at(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in path.split("."))


@pytest.mark.parametrize(
    ("path", "value", "message"), CHANGES, ids=[f"{path}-{value!s:.20}" for path, value, _ in CHANGES]
)
def test_what_may_change_and_what_may_not(
    control_plane: ControlPlane, stored: Document, path: str, value: Any, message: str
) -> None:
    answer = update(control_plane, stored, changed(stored["spec"], at(path), value))
    if message:
        field = f"spec.{path.split('.0.')[0]}"
        holder = field.rpartition(".")[0]  # of the fields of which one may be there or not, which the message names
        assert (field in answer or f"{holder}: Invalid value" in answer) and f": {message}" in answer, answer
    else:
        assert answer == ""


@pytest.mark.parametrize("path", ["verifier", "evaluation", "forkFrom", "exclude", "rollout.oracle"])
def test_what_is_not_there_may_not_be_added(control_plane: ControlPlane, namespace: str, path: str) -> None:
    made = copy.deepcopy(SMALL)
    for name in ("verifier", "evaluation"):
        del made["spec"][name]
    del made["spec"]["rollout"]["oracle"], made["spec"]["challenger"]["reward"], made["spec"]["solver"]["reward"]
    made["metadata"] |= {"namespace": namespace}
    small = control_plane.admin.create(made)
    value: Any = FULL["spec"]
    for part in at(path):
        value = value[part]
    answer = update(control_plane, small, changed(small["spec"], at(path), value))
    assert (
        f": {FROZEN}"
        if path == "exclude"
        else f"{path.split('.')[-1]} cannot be added or removed after creation; {REMEDY}"
    ) in answer
    assert update(control_plane, small, {**small["spec"], "exclude": []}) == ""
    # Fine-tuning comes at the end of the plan, as more iterations do.
    assert update(control_plane, small, {**small["spec"], "finetune": FULL["spec"]["finetune"]}) == ""


PAIRWISE = f"pairwise cannot be added or removed after creation; {REMEDY}"


def test_where_a_judge_is_asked_may_change_and_what_it_is_asked_may_not(
    control_plane: ControlPlane, namespace: str
) -> None:
    judged = control_plane.admin.create(document(**RUBRIC, metadata={"name": "judged"}), namespace)
    for path, value, refused in (
        ("endpoint.url", "https://other", False),
        ("endpoint.maxTokens", 9, False),
        ("maxUnscored", 0.5, False),
        ("votes", 5, True),
        ("pairwise", {}, PAIRWISE),
        ("model", "weak", True),
        ("criteria", [{"uri": "s3://bucket/other.yaml"}], True),
    ):
        answer = update(control_plane, judged, changed(judged["spec"], at(f"verifier.rubric.{path}"), value))
        assert (refused if isinstance(refused, str) else FROZEN if refused else "") in answer, (path, answer)
        assert bool(answer) == bool(refused), (path, answer)


def test_tasks_keep_their_order_which_is_part_of_a_key(control_plane: ControlPlane, stored: Document) -> None:
    tasks = stored["spec"]["evaluation"]["tasks"]
    assert FROZEN in update(control_plane, stored, changed(stored["spec"], at("evaluation.tasks"), tasks[::-1]))


FREE = (
    *("iterations", "suspend", "parallelSteps", "backoffLimit", "ttlSecondsAfterFinished", "priorityClass", "queue"),
    *(
        "guards",
        "budget",
        "review",
        "publish",
        "approvedIteration",
        "engines",
        "pods",
        "storage.credentialsSecret",
        "storage.region",
        "storage.requireConditionalPut",
        "verifier.server",
    ),
    *(
        "storage.checksum",
        "storage.keepAnswers",
        "tracking",
        *("evaluation.metric", "evaluation.shards", "evaluation.minShards", "evaluation.chunkQuestions"),
        "rollout.queue",
        "rollout.shards",
        "rollout.minShards",
        "rollout.chunkQuestions",
        "challenger.checkpointEvery",
        "solver.checkpointEvery",
        "finetune.checkpointEvery",
        "verifier.checkpointEvery",
        *(f"{part}.grpo.{field}" for part in ("challenger", "solver") for field in ("sharding", "cpuOffload")),
    ),
    *(f"{part}.pods" for part in ("challenger", "rollout", "solver", "verifier", "evaluation", "finetune")),
    *(f"{part}.engine" for part in ("challenger", "rollout", "solver", "verifier", "evaluation")),
)


def other_values(stored: Document) -> Iterator[tuple[str, Document]]:
    """Every place of the spec with another value that leaves it valid, every fourth one with up to three.

    Iterations apart, which only grow. Of the pods of a part, which are those of the run once more, every fourth place.
    """
    before = SelfEvolutionRun.model_validate(stored).spec
    for path, given in places(stored["spec"]):
        found = 0
        of_part = "pods" in path[1:]
        chosen = crc32(repr(path).encode()) % 4 == 0
        if of_part and not chosen:
            continue
        schema = schema_at(SCHEMA["properties"]["spec"], path)
        for value in values_for(given, schema):
            if schema.get("type") == "integer" and isinstance(value, float):
                continue  # to the contract 3.0 is 3; the API server evaluates no rule on it
            if path in ((), ("iterations",)) or found == (3 if chosen and not of_part else 1):
                break
            spec = json.loads(json.dumps(changed(stored["spec"], path, value)))
            try:
                after = SelfEvolutionRun.model_validate({**stored, "spec": spec}).spec
            except ValidationError:
                continue
            if after != before:
                yield ".".join(map(str, path)), spec
                found += 1


def test_whatever_moves_a_key_or_an_output_is_refused(control_plane: ControlPlane, stored: Document) -> None:
    before = SelfEvolutionRun.model_validate(stored)
    keys = {step.name: step.key for step in sketch(before.spec).steps}
    tried = moved = 0
    for path, spec in other_values(stored):
        after = SelfEvolutionRun.model_validate({**stored, "spec": spec}).spec
        answer = update(control_plane, stored, spec)
        free = any(path == one or path.startswith(f"{one}.") for one in FREE)
        held = free and (UNBUILT in answer or "quantization cannot be added or removed" in answer)
        assert (answer == "") == (free and not held), f"{path}: {answer or 'taken'}"
        # What is published elsewhere is another step, and moves no other.
        moves = {
            step.name
            for step in sketch(after).steps
            if keys.get(step.name, step.key) != step.key and not (step.type.publishes and path.startswith("publish"))
        }
        assert not (moves and answer == ""), f"{path} moves {moves}"
        tried, moved = tried + 1, moved + bool(moves)
    assert tried > 300 and moved > 100


# --- kubectl --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Any:
    try:
        program = tools.program(tools.KUBECTL)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    config = control_plane.kubeconfig(control_plane.admin_token, tmp_path_factory.mktemp("kubectl") / "config")

    def run(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        command = [program, "--kubeconfig", config, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in codes, done.stderr
        return done.stdout + done.stderr

    return run


def test_kubectl_explains_every_field(kubectl: Any) -> None:
    answer = " ".join(kubectl("explain", "ser", "--recursive").split())
    assert "SelfEvolutionRun" in answer and "a better model in the object store" in answer
    answer = " ".join(kubectl("explain", "ser.spec.rollout.band").split())
    assert "Majority shares that enter the curriculum." in answer and "Smallest majority share." in answer
    answer = " ".join(kubectl("explain", "ser.spec.challenger.engine").split())
    assert "enum: transformers, vllm, server" in answer and "Of kind vllm. Share of the GPU's memory" in answer
    assert "When status last changed." in kubectl("explain", "ser.status.conditions")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_kubectl_finds_no_difference_in_what_it_applied(
    kubectl: Any, control_plane: ControlPlane, namespace: str, tmp_path: Path, path: Path
) -> None:
    example = yaml.safe_load(path.read_text())
    example["metadata"]["namespace"] = namespace
    here = tmp_path / path.name
    here.write_text(yaml.safe_dump(example))
    assert kubectl("apply", "-f", here).endswith("created\n")
    assert kubectl("apply", "-f", here).endswith("unchanged\n")
    assert kubectl("diff", "-f", here) == ""


def test_kubectl_finds_no_difference_in_lists_whose_items_leave_defaults_to_us(
    kubectl: Any, namespace: str, tmp_path: Path
) -> None:
    pods = {
        "env": [{"name": "EMPTY"}, {"name": "T", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
        "volumes": [{"name": "m", "mountPath": "/work/cache", "persistentVolumeClaim": {"claimName": "c"}}],
        "nodeAffinity": [{"key": "pool", "values": ["gpu"]}],
        "resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "gpus-8"}],
        "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}],
    }
    here = tmp_path / "run.yaml"
    made = document(spec__pods=pods, metadata={"name": "lists", "namespace": namespace})
    here.write_text(yaml.safe_dump(made))
    assert kubectl("apply", "-f", here).endswith("created\n")
    assert kubectl("apply", "-f", here).endswith("unchanged\n")
    assert kubectl("diff", "-f", here) == ""
    stored = json.loads(kubectl("get", "ser", "lists", "-n", namespace, "-o", "json"))
    assert {name: stored["spec"]["pods"][name] for name in pods} == pods
    # What the operator reads is the same as ever: the models fill in what the server leaves out.
    assert SelfEvolutionRun.model_validate(stored).spec.pods == SelfEvolutionRun.model_validate(made).spec.pods


def test_kubectl_get_shows_where_a_run_stands(kubectl: Any, control_plane: ControlPlane, namespace: str) -> None:
    admin = control_plane.admin
    admin.create(document(metadata={"name": "demo"}, spec__queue="team-a"), namespace)
    ready = {"type": "Ready", "status": "False", "reason": "Progressing", "lastTransitionTime": "now"}
    status = {
        "phase": "Running",
        "iteration": 2,
        "best": {"iteration": 1, "score": 0.5},
        "modelUri": "s3://bucket/best",
        "conditions": [{**ready, "message": "Step solver-train-2 is running."}],
        "steps": [
            {"name": "evaluate-0", "state": "Succeeded", "phase": "evaluate", "iteration": 0, "key": "a"},
            {
                "name": "solver-train-2",
                "state": "Running",
                "phase": "solver-train",
                "iteration": 2,
                "key": "b",
                "progress": {"percent": 43},
            },
        ],
    }
    admin.patch("selfevolutionruns", "demo", {"status": status}, namespace, "status")
    head, row = kubectl("get", "ser", "-n", namespace).splitlines()
    assert head.split() == ["NAME", "PHASE", "ITERATION", "BEST", "SCORE", "QUEUE", "AGE"]
    assert row.split()[:-1] == ["demo", "Running", "2", "1", "0.5", "team-a"]
    wide = kubectl("get", "ser", "-n", namespace, "-o", "wide")
    assert all(part in wide for part in ("Progressing", "Step solver-train-2 is running.   43 ", "s3://bucket/best"))
    assert "selfevolutionrun.selfevo.dev/demo" in kubectl("get", "all", "-n", namespace)
