"""The spec of a step's pods, as a namespace that enforces PodSecurity `restricted` admits it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import PHASES
from selfevo_contract.pods import GRACE_SECONDS, field_of, pods_of, refuse_odd_keys
from selfevo_contract.process import (
    GRACE_SECONDS_ENV,
    MASTER_PORT_DEFAULT,
    PROCESSES_MAX,
    SERVER_TOKEN_ENV,
    TERMINATION_LOG_DEFAULT,
    PhaseConfig,
)
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.engines import ServerEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.run import RunSpec
from selfevo_operator.manifests import server_sidecar
from selfevo_operator.manifests.claims import claims_of_pod, claims_of_trainer, gpus_by_claims
from selfevo_operator.manifests.environment import (
    WORK,
    Variable,
    believed,
    judge_token,
    launch,
    oracle_token,
    plain,
    publish_token,
    run_variables,
    token,
    traced,
    variables,
)
from selfevo_operator.manifests.labels import TRAINER
from selfevo_operator.manifests.placement import scheduling, volumes
from selfevo_operator.manifests.resources import gpu, resources
from selfevo_operator.manifests.settings import PodSettings

COMMAND = ["python", "-m", "selfevo_trainer"]

SHARED_MEMORY = "1Gi"
"""The runtime's own 64 MiB are too few for NCCL and for data loaders."""


@dataclass(frozen=True)
class Place:
    """How the pods of a step find each other."""

    nodes: int = 1
    """Pods that train together."""
    service: str = ""
    """Headless Service that gives them names; empty when a pod is alone."""
    coordinator: str = ""
    """Host name of the first."""


def pod_spec(
    spec: RunSpec, config: PhaseConfig, place: Place, settings: PodSettings, run: SelfEvolutionRun
) -> dict[str, Any]:
    """The spec of the pods that do what is in ``config``, of ``run``; ``spec`` is its own with the operator's defaults.

    Raises:
        InputError: what the run asks for cannot be had; one sentence.
    """
    phase = config.inputs.phase
    pods, field = pods_of(spec, phase), field_of(phase)
    refuse_odd_keys(pods, field)
    if pods.host_network and not settings.host_network:
        raise InputError(
            f"{field}.hostNetwork is true, and this operator gives no pod its node's network; set it to false, or ask "
            "for policy.allowed.hostNetwork (the operator's --allow-host-network)"
        )
    asked = resources(pods.resources, f"{field}.resources")
    device, gpus = gpu(pods.resources.limits, f"{field}.resources", settings.gpu_resources)
    claims = claims_of_pod(pods, field, settings)
    gpus += gpus_by_claims(pods, field, gpus, trains=PHASES[phase].distributed)
    more, _ = volumes(pods, field)

    def container(name: str, ours: list[Variable], *, credentials: bool = True) -> dict[str, Any]:
        given = variables(pods.env, config, [*believed(pods.ca_bundle), *ours], credentials=credentials)
        return _container(name, pods, field, settings, given)

    ours = [*_processes(config, gpus, place, pods, field), *_run_variables(run, config, pods, settings)]
    init_containers: list[dict[str, Any]] = []
    if isinstance(config.engine, ServerEngine) and config.engine.endpoint is not None:
        ours += token(config.engine.endpoint.token_secret, SERVER_TOKEN_ENV)
    if config.servers:
        ours += server_sidecar.client_variables()
        own = config.gpus_of_servers()
        devices = {device or settings.gpu_resource: own} if own else {}
        servers = server_sidecar.server_variables()
        fetch = container(server_sidecar.FETCH, servers)
        server = container(server_sidecar.SERVER, servers, credentials=False)
        init_containers = [server_sidecar.fetching(fetch, asked), server_sidecar.serving(server, devices)]
    trainer = container(TRAINER, ours)
    devices_too = {**asked, **claims_of_trainer(pods)}
    if pods.host_network and place.service:
        # The scheduler then puts no two pods on a node that would wait at the same port of it.
        trainer["ports"] = [{"name": "coordinator", "containerPort": MASTER_PORT_DEFAULT, "protocol": "TCP"}]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _grace_seconds(pods),
        "securityContext": _pod_security(settings),
        **({"initContainers": init_containers} if init_containers else {}),
        "containers": [{**trainer, **({"resources": devices_too} if devices_too else {})}],
        "volumes": [
            {"name": "work", "emptyDir": {} if pods.scratch is None else {"sizeLimit": pods.scratch}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pods.shared_memory or SHARED_MEMORY}},
            *more,
        ],
        **({"resourceClaims": claims} if claims else {}),
        **{name: value for name, value in _optional(pods, config, place).items() if value},
    }


def _run_variables(run: SelfEvolutionRun, config: PhaseConfig, pods: Pods, settings: PodSettings) -> list[Variable]:
    """The variables of the trainer alone, beside those of its processes."""
    return [
        *traced(settings.collector, run.metadata.uid, config.attempt, pods.env),
        *run_variables(run),
        *oracle_token(config.inputs),
        *judge_token(config.inputs),
        *publish_token(run.spec.publish, config.inputs),
    ]


def _optional(pods: Pods, config: PhaseConfig, place: Place) -> dict[str, Any]:
    """What stands in the spec of a pod only where it is not empty."""
    return {
        "imagePullSecrets": [{"name": name} for name in pods.image_pull_secrets],
        "nodeSelector": dict(sorted(pods.node_selector.items())),
        "tolerations": [toleration.wire() for toleration in pods.tolerations],
        "priorityClassName": pods.priority_class_name,
        "runtimeClassName": pods.runtime_class_name,
        "schedulerName": pods.scheduler_name,
        "serviceAccountName": pods.service_account_name,
        "subdomain": place.service,
        "hostNetwork": pods.host_network,
        # With the host's own resolver, the pods would not find each other.
        "dnsPolicy": "ClusterFirstWithHostNet" if pods.host_network else None,
        **scheduling(pods, config.run, config.step),
    }


def _container(name: str, pods: Pods, field: str, settings: PodSettings, environment: list[Variable]) -> dict[str, Any]:
    """A container without any right, on a root file system that nobody can write.

    Our termination message is JSON, written to its file. Where Python itself died, the file is empty and the end of the
    log stands in for it, which helps a person: whoever reads the message must expect text that is no PhaseResult.
    """
    image = pods.image or settings.image
    if not image:
        raise InputError(f"{field}.image is not given, nor is the operator's --image; name the trainer's image")
    policy = pods.image_pull_policy or settings.image_pull_policy
    return {
        "name": name,
        "image": image,
        **({"imagePullPolicy": policy} if policy else {}),
        "command": list(_COMMANDS[name]),
        "env": environment,
        "volumeMounts": [
            {"name": "work", "mountPath": WORK},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            *volumes(pods, field)[1],
        ],
        "terminationMessagePath": TERMINATION_LOG_DEFAULT,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


_COMMANDS: Mapping[str, list[str]] = {TRAINER: COMMAND, **server_sidecar.COMMANDS}


def _pod_security(settings: PodSettings) -> dict[str, Any]:
    numbers = {
        "runAsUser": settings.run_as_user,
        "runAsGroup": settings.run_as_group,
        "fsGroup": settings.fs_group,
    }
    return {
        "runAsNonRoot": True,
        **{name: number for name, number in numbers.items() if number is not None},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _grace_seconds(pods: Pods) -> int:
    return pods.termination_grace_period_seconds or GRACE_SECONDS


def _processes(config: PhaseConfig, gpus: int, place: Place, pods: Pods, field: str) -> list[Variable]:
    """The trainer's variables for its processes, one a GPU.

    Raises:
        InputError: the trainer would find that they cannot share a step; better before the GPUs are waited for.
    """
    if not PHASES[config.inputs.phase].distributed:
        return []
    processes = max(gpus, 1)
    if processes > PROCESSES_MAX:
        by = "resourceClaims" if any(claim.gpus for claim in pods.resource_claims) else "resources.limits"
        raise InputError(f"{field}.{by} has {gpus} GPUs; a pod trains on at most {PROCESSES_MAX}")
    grpo: Grpo | None = getattr(config.inputs, "grpo", None)
    everywhere = processes * place.nodes
    if grpo is not None and grpo.sharded and everywhere == 1:
        raise InputError(
            f"spec.{PHASES[config.inputs.phase].part}.grpo.sharding is 'fsdp', and {field} has one GPU; give it two or "
            "more, or remove sharding"
        )
    if grpo is not None and grpo.policy_server is not None and place.nodes > 1:
        raise InputError(
            f"spec.{PHASES[config.inputs.phase].part}.grpo.vllmMode is 'server', which is beside one pod, and {field} "
            f"has {place.nodes} nodes; set nodes to 1, or vllmMode to colocate"
        )
    if grpo is not None and grpo.policy_server is not None and pods.host_network:
        raise InputError(
            f"spec.{PHASES[config.inputs.phase].part}.grpo.vllmMode is 'server', which takes weights from whoever "
            f"reaches its 127.0.0.1, and {field}.hostNetwork makes that the node's; set hostNetwork to false, or "
            "vllmMode to colocate"
        )
    if grpo is not None and not grpo.divides_over(everywhere):
        where = field.removesuffix(".pods") + ".grpo.perDeviceTrainBatchSize"
        raise InputError(
            f"{where} {grpo.per_device_train_batch_size} x {everywhere} processes (one for each GPU of each node) does "
            f"not divide the {grpo.completions_per_update} completions of an update; choose another one, or other GPUs"
        )
    grace = plain(GRACE_SECONDS_ENV, str(_grace_seconds(pods)))
    return [grace, *launch(processes, place.nodes, place.coordinator, pods.join_seconds)]
