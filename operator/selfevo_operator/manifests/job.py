"""A step as a Job, and the headless Service that its pods find each other by. Pure: the contract's types in, JSON out.

What Kubernetes does for us here, and what follows from it:

- **Retries.** The Job replaces a pod that failed, spec.backoffLimit times, with its own back-off. Exit codes are a
  contract (docs/design.md, decision 7): a pod that says 2 or 4 fails the Job at once; one that was disrupted, or that
  SIGTERM ended with 143, is replaced without being counted and goes on from its last checkpoint. All pods of a Job bear
  the same attempt; each commit has an id of its own, so they do not meet.
- **Shards.** A rollout or an evaluation is an Indexed Job, with one shard too. Each index has the backoffLimit to
  itself, and one that used it up does not stop the others: shards commit themselves, and the next attempt makes only
  what is missing.
- **Several nodes.** An Indexed Job, all pods at once. A Job knows no «all or nothing»: it replaces the pod that failed
  and leaves the others alone. So the trainers see to that: when one ends, the others notice, save and end with 143,
  every index is replaced, and they join anew. One failure counts once. Without Kueue the pods are scheduled one by one,
  and those that came first hold their GPUs until all are there.
- **Replacement** when a pod has ended, not when it is asked to end (podReplacementPolicy Failed): two would hold two
  sets of GPUs, and the second would start from an older checkpoint.
- **The Service** belongs to the run, not to the Job. Its name is the same in every attempt, so nothing is left over
  when a Job is gone, and creating it again does nothing. Create it before the Job: then no crash lies between a Job
  that runs and the names that its pods resolve.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.plan import Step
from selfevo_contract.pods import merged, nodes_of, pods_of
from selfevo_contract.process import CONFIG_ENV, MASTER_ADDR_ENV, MASTER_PORT_DEFAULT, RUN_ENV, part_of, phase_config
from selfevo_contract.run import API_VERSION, KIND, SelfEvolutionRun
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.oracles import DataOracle
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.verifier import Verifier
from selfevo_contract.traces import TRACEPARENT_ENV
from selfevo_operator.manifests import allowlist, server_sidecar
from selfevo_operator.manifests.labels import (
    ATTEMPT,
    ITERATION,
    KEY,
    MANAGED_BY,
    MANAGER,
    MIN_PARALLELISM,
    PHASE,
    PRIORITY,
    QUEUE,
    RUN,
    STEP,
    TEMPLATE,
    TRAINER,
)
from selfevo_operator.manifests.pod import Place, pod_spec
from selfevo_operator.manifests.settings import PodSettings

Manifest = dict[str, Any]


def render(run: SelfEvolutionRun, step: Step, attempt: int, name: str, settings: PodSettings) -> list[Manifest]:
    """The Job ``name`` for one attempt at ``step``, and after it the Service that it needs, if any.

    Raises:
        InputError: the run cannot be had on a cluster as it is; one sentence for the person who wrote it.
    """
    spec = run.spec.model_copy(update={"pods": merged(settings.defaults, run.spec.pods)})
    _refuse_paths_of_one_machine(spec)
    nodes = nodes_of(spec, step.phase)
    service = _service_name(run) if nodes > 1 else ""
    config = phase_config(spec, run.metadata.name, run.metadata.namespace, step, name)
    place = Place(nodes, service, f"{name}-0.{service}") if service else Place()
    pods = pods_of(spec, step.phase)
    labels = {**pods.labels, **_labels(run, step, attempt)}
    optional = {"activeDeadlineSeconds": pods.active_deadline_seconds}
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": run.metadata.namespace,
            "labels": {**labels, **_queue(spec, step)},
            "annotations": {KEY: step.key, **_elastic(spec, step)},
            "ownerReferences": [_owner(run)],
        },
        "spec": {
            **_completions(spec, step, nodes),
            **{field: value for field, value in optional.items() if value is not None},
            "ttlSecondsAfterFinished": spec.ttl_seconds_after_finished,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels, "annotations": {**pods.annotations, KEY: step.key}},
                "spec": pod_spec(spec, config, place, settings, run),
            },
        },
    }
    job["spec"]["podFailurePolicy"] = {"rules": _failure_rules(job["spec"]["template"]["spec"])}
    job["metadata"]["annotations"][TEMPLATE] = template_digest(job)
    allowlist.check_job(
        job,
        host_network=settings.host_network,
        claim_templates=settings.resource_claim_templates,
        claims=settings.resource_claims,
    )
    return [job, _service(run, service)] if service else [job]


def template_digest(job: Manifest) -> str:
    """What a rendered Job is apart from its name and its attempt, and of that, what its place in a queue hangs on.

    16 hexadecimal digits for each, with a '-' between them. Compare them with the annotation of an existing Job to see
    whether that was rendered from another spec. They have no meaning for a Job as an API server gives it back, with
    defaults filled in.
    """
    template = job["spec"]["template"]
    metadata = _without(_unattempted(job["metadata"]), "name")
    pod = dict(template["spec"])
    for kind in ("containers", "initContainers"):
        if kind in pod:
            pod[kind] = [{**container, "env": _unattempted_envs(container["env"])} for container in pod[kind]]
    bare = {
        **job,
        "metadata": {**metadata, "annotations": _without(metadata["annotations"], TEMPLATE)},
        "spec": {**job["spec"], "template": {**template, "metadata": _unattempted(template["metadata"]), "spec": pod}},
    }
    return f"{_digest(bare)}-{_digest(_place(job))}"


_PLACE_OF_JOB = ("completionMode", "completions", "parallelism")
_PLACE_OF_POD = (
    *("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "schedulerName"),
    *("runtimeClassName", "overhead", "resourceClaims", "hostNetwork", "resources"),
)


def _place(job: Manifest) -> Any:
    """What a queue goes by: itself, how many pods there are, what each asks for and where it may run."""
    template = job["spec"]["template"]
    kueues = {**template["metadata"]["labels"], **template["metadata"]["annotations"]}
    containers = (*template["spec"].get("initContainers", []), *template["spec"]["containers"])
    return [
        job["metadata"]["labels"].get(QUEUE),
        job["metadata"]["annotations"].get(MIN_PARALLELISM),
        [job["spec"].get(field) for field in _PLACE_OF_JOB],
        {name: value for name, value in kueues.items() if "kueue" in name},
        [template["spec"].get(field) for field in _PLACE_OF_POD],
        [(container["name"], container.get("resources")) for container in containers],
    ]


def _digest(content: Any) -> str:
    # Only we compare it, and only with our own: no need for canonical JSON, which takes ten times as long.
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if field != name}


def _unattempted(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {**metadata, "labels": _without(metadata["labels"], ATTEMPT)}


def _unattempted_envs(variables: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without the run, which the trainer computes nothing by."""
    return [_unattempted_env(variable) for variable in variables if variable["name"] != RUN_ENV]


def _unattempted_env(variable: Mapping[str, Any]) -> Mapping[str, Any]:
    if variable["name"] == CONFIG_ENV:
        return {**variable, "value": {**json.loads(variable["value"]), "attempt": ""}}
    return {**variable, "value": ""} if variable["name"] in (MASTER_ADDR_ENV, TRACEPARENT_ENV) else variable


def _labels(run: SelfEvolutionRun, step: Step, attempt: int) -> dict[str, str]:
    return {
        **_labels_of_run(run),
        STEP: step.name,
        PHASE: step.phase,
        ITERATION: str(step.iteration),
        ATTEMPT: str(attempt),
    }


def _labels_of_run(run: SelfEvolutionRun) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "selfevo",
        "app.kubernetes.io/instance": run.metadata.name,
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/part-of": "selfevo",
        MANAGED_BY: MANAGER,
        RUN: run.metadata.name,
    }


def _queue(spec: RunSpec, step: Step) -> dict[str, str]:
    """Labels by which Kueue takes the Job over; its webhook then creates it suspended."""
    queue = _queue_of(spec, step)
    if queue is None:
        return {}
    priority = {PRIORITY: spec.priority_class} if spec.priority_class else {}
    return {QUEUE: queue, **priority}


def _queue_of(spec: RunSpec, step: Step) -> str | None:
    return getattr(part_of(spec, step.phase), "queue", None) or spec.queue


def _elastic(spec: RunSpec, step: Step) -> dict[str, str]:
    """Shards do not need each other: a queue that has room for some of them may start with those.

    Kueue then lowers the Job's parallelism and leaves its completions: every shard is made, in more than one go. It
    wants the number to be below the parallelism. Pods that train together come all or not at all.

    Only where it is asked for: of a Workload that was admitted in part and evicted, Kueue's webhook refuses the pods
    that are done already (reclaimablePods above the count), and it can be evicted no second time.
    """
    least = getattr(part_of(spec, step.phase), "min_shards", None)
    return {MIN_PARALLELISM: str(least)} if least is not None and _queue_of(spec, step) is not None else {}


def _owner(run: SelfEvolutionRun) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.metadata.name,
        "uid": run.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _completions(spec: RunSpec, step: Step, nodes: int) -> dict[str, Any]:
    if step.type.sharded:
        indexed = {"completionMode": "Indexed", "completions": step.shards, "parallelism": step.shards}
        return {**indexed, "backoffLimitPerIndex": spec.backoff_limit}
    mode = "Indexed" if nodes > 1 else "NonIndexed"
    return {"completionMode": mode, "completions": nodes, "parallelism": nodes, "backoffLimit": spec.backoff_limit}


def _failure_rules(pod: Manifest) -> list[dict[str, Any]]:
    """The exit codes' contract. The first rule that fits counts; where none fits, the failure is counted."""
    ours = [
        c["name"] for c in [*pod["containers"], *pod.get("initContainers", [])] if c["name"] != server_sidecar.SERVER
    ]
    final = [int(ExitCode.INPUT), int(ExitCode.DATA)]
    stopped = [int(ExitCode.TERMINATED)]
    return [
        *(_on_exit("FailJob", container, final) for container in ours),
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _on_exit("Ignore", TRAINER, stopped),
    ]


def _on_exit(action: str, container: str, codes: list[int]) -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"containerName": container, "operator": "In", "values": codes}}


def _service_name(run: SelfEvolutionRun) -> str:
    """Of this run and of no namesake that was there before; a letter first, as a Service's name wants it."""
    mark = hashlib.sha256(run.metadata.uid.encode()).hexdigest()[:8]
    return f"selfevo-{run.metadata.name[:40].rstrip('-')}-{mark}"


def _service(run: SelfEvolutionRun, name: str) -> Manifest:
    """Names for the run's pods from the moment that they have an address: ranks join before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": run.metadata.namespace,
            "labels": _labels_of_run(run),
            "ownerReferences": [_owner(run)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {MANAGED_BY: MANAGER, RUN: run.metadata.name},
            "ports": [{"name": "coordinator", "port": MASTER_PORT_DEFAULT, "protocol": "TCP"}],
        },
    }


def _refuse_paths_of_one_machine(spec: RunSpec) -> None:
    """What lies on one machine is not there in a pod. An image may bring a model or data along, so those may be paths.

    Raises:
        InputError: the first field that names such a place.
    """
    if spec.storage.uri.startswith("file:"):
        raise InputError(
            f"spec.storage.uri is {spec.storage.uri!r}, and a pod's disk is gone with the pod; use s3://<bucket>/<prefix>"
        )
    if spec.publish is not None and spec.publish.to.startswith("file:"):
        raise InputError(
            f"spec.publish.to is {spec.publish.to!r}, and a pod's disk is gone with the pod; use "
            "hf://<owner>/<name> or s3://<bucket>/<prefix>"
        )
    named = [("spec.model.uri", spec.model.uri), *_data(spec)]
    for field, uri in named:
        if uri.startswith("file:") and not uri.startswith("file:///"):
            raise InputError(
                f"{field} is {uri!r}, a path beside the manifest, and a pod does not have it; upload it and use s3://, "
                "or file:/// when it is in the trainer's image"
            )


def _data(spec: RunSpec) -> list[tuple[str, str]]:
    def of(field: str, data: Data) -> tuple[str, str]:
        return f"{field}.uri", data.uri

    tasks = spec.evaluation.tasks if spec.evaluation else []
    oracle = spec.rollout.oracle
    return [
        *(of(f"spec.evaluation.tasks[{index}].data", task.data) for index, task in enumerate(tasks)),
        *(of(f"spec.exclude[{index}]", data) for index, data in enumerate(spec.exclude)),
        *([of("spec.rollout.oracle.data", oracle.data)] if isinstance(oracle, DataOracle) else []),
        *([of("spec.finetune.data", spec.finetune.data)] if spec.finetune else []),
        *(_of_a_verifier(spec.verifier) if spec.verifier else []),
    ]


def _of_a_verifier(verifier: Verifier) -> list[tuple[str, str]]:
    model, anchors, rubric = verifier.model, verifier.anchors, verifier.rubric
    criteria = enumerate(rubric.criteria if rubric else [])
    return [
        *([("spec.verifier.anchors.data.uri", anchors.data.uri)] if anchors else []),
        *([("spec.verifier.model.uri", model.uri)] if model else []),
        *((f"spec.verifier.rubric.criteria[{index}].uri", data.uri) for index, data in criteria),
    ]
