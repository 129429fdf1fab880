"""What the operator is told when it starts: flags, or environment variables of the same names."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from selfevo_contract.explain import explain
from selfevo_contract.spec.pods import Pods
from selfevo_operator.manifests.job import PodSettings

ENV_PREFIX = "SELFEVO_OPERATOR_"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Patience:
    """Seconds until something counts as lost. No flags: tests shorten them by SELFEVO_OPERATOR_PATIENCE, as JSON."""

    request: float = 30.0
    """A call to the API server."""
    watch: float = 70.0
    """A watch that says nothing. The server sends bookmarks every minute."""
    stuck: float = 120.0
    """A look at a run, or a run that waits for one, while no call to the API server ends: a defect, and the liveness
    probe says so."""


@dataclass(frozen=True)
class Settings:
    """How this operator runs."""

    namespaces: tuple[str, ...]
    """Whose runs it drives; empty for all."""
    pods: PodSettings
    host: str
    port: int
    workers: int
    resync_seconds: float
    kubeconfig: str | None
    verbose: bool
    read_workloads: bool = False
    """Read Kueue's Workloads, to say why a Job waits; needs the right to list them."""
    patience: Patience = Patience()

    @property
    def scopes(self) -> tuple[str | None, ...]:
        """What is listed and watched: each namespace, or None for the whole cluster."""
        return self.namespaces or (None,)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line, else from the environment, else defaults. Ends with a sentence where wrong."""

    def default(name: str, value: str) -> str:
        return environment.get(ENV_PREFIX + name, value)

    parser = argparse.ArgumentParser(
        prog="python -m selfevo_operator", description="Turns SelfEvolutionRuns into Jobs."
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--namespace", action="append", metavar="NS", help="a namespace to serve; may be given often")
    scope.add_argument("--all-namespaces", action="store_true", help="serve the whole cluster (needs a ClusterRole)")
    parser.add_argument("--image", default=default("IMAGE", ""), help="trainer image of runs that name none")
    parser.add_argument(
        "--image-pull-policy", default=default("IMAGE_PULL_POLICY", ""), help="pull policy of that image"
    )
    parser.add_argument("--pods", default=default("PODS", "{}"), metavar="JSON",
                        help="what every run's spec.pods begins from: an object with its fields")  # fmt: skip
    for flag, what in (("--run-as-user", "user"), ("--run-as-group", "group"), ("--fs-group", "group of volumes")):
        name = flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(flag, default=default(name, "10001"), metavar="NUMBER",
                            help=f"{what} of the pods; empty where the platform chooses (OpenShift)")  # fmt: skip
    parser.add_argument("--gpu-resources", default=default("GPU_RESOURCES", "*/gpu"), metavar="NAMES",
                        help="resources that count as GPUs, e.g. */gpu,nvidia.com/mig-*,habana.ai/gaudi")  # fmt: skip
    parser.add_argument("--allow-host-network", action="store_true",
                        default=default("ALLOW_HOST_NETWORK", "") not in ("", "0", "false"),
                        help="let runs have their pods on their node's network")  # fmt: skip
    for flag, what in (
        ("--allow-resource-claim-templates", "ResourceClaimTemplates"),
        ("--allow-resource-claims", "ResourceClaims"),
    ):
        parser.add_argument(flag, default=default(flag.removeprefix("--").replace("-", "_").upper(), ""),
                            metavar="NAMES", help=f"{what} that runs may name, e.g. eight-gpus,team-*")  # fmt: skip
    parser.add_argument("--listen", default=default("LISTEN", "0.0.0.0:8080"), metavar="HOST:PORT",
                        help="where /healthz, /readyz and /metrics are served")  # fmt: skip
    parser.add_argument("--workers", default=default("WORKERS", "32"), help="runs looked at at the same time")
    parser.add_argument("--resync-seconds", default=default("RESYNC_SECONDS", "120"),
                        help="how often everything is listed anew")  # fmt: skip
    parser.add_argument("--kubeconfig", default=default("KUBECONFIG", "") or None, help="outside of a cluster")
    parser.add_argument("--verbose", action="store_true", default=default("VERBOSE", "") not in ("", "0", "false"))
    parser.add_argument("--read-workloads", action="store_true",
                        default=default("READ_WORKLOADS", "") not in ("", "0", "false"),
                        help="say why Kueue does not admit a Job (needs the right to list workloads)")  # fmt: skip
    told = parser.parse_args(arguments)

    namespaces = told.namespace or [name for name in default("NAMESPACE", "").split(",") if name]
    everywhere = told.all_namespaces or default("ALL_NAMESPACES", "") not in ("", "0", "false")
    if everywhere and not told.namespace:
        namespaces = []
    elif not namespaces:
        parser.error("neither --namespace nor --all-namespaces is given; name whose runs to drive")
    for name in namespaces:
        if not _NAMESPACE.fullmatch(name):
            parser.error(f"--namespace is {name!r}, which is no namespace's name; correct it")
    host, _, port = told.listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        parser.error(f"--listen is {told.listen!r}; write it as HOST:PORT, for example 0.0.0.0:8080")
    if not told.workers.isdecimal() or not 1 <= int(told.workers) <= 256:
        parser.error(f"--workers is {told.workers!r}; it must be a whole number from 1 to 256")
    try:
        resync = float(told.resync_seconds)
    except ValueError:
        resync = 0.0
    if not 1 <= resync <= 86400:
        parser.error(f"--resync-seconds is {told.resync_seconds!r}; it must be a number from 1 to 86400")
    if not told.image:
        parser.error("--image is not given; name the trainer image that runs use when their spec.pods.image is empty")
    numbers: dict[str, Any] = {}
    for name in ("run_as_user", "run_as_group", "fs_group"):
        text = getattr(told, name)
        if text and not (text.isdecimal() and 0 < int(text) < 2**31):
            parser.error(f"--{name.replace('_', '-')} is {text!r}; it must be a number from 1 to 2147483647, or empty")
        numbers[name] = int(text) if text else None
    gpus, templates, claims = (
        tuple(name.strip() for name in text.split(",") if name.strip())
        for text in (told.gpu_resources, told.allow_resource_claim_templates, told.allow_resource_claims)
    )
    try:
        defaults = Pods.model_validate(json.loads(told.pods))
    except ValidationError as error:
        parser.error(f"--pods: {'; '.join(explain(error, Pods))}")
    except ValueError as error:
        parser.error(f"--pods is {told.pods!r}, which is no JSON ({error}); write an object of the fields of spec.pods")
    return Settings(
        namespaces=tuple(dict.fromkeys(namespaces)),
        pods=PodSettings(
            image=told.image,
            defaults=defaults,
            gpu_resources=gpus,
            host_network=told.allow_host_network,
            resource_claim_templates=templates,
            resource_claims=claims,
            **numbers,
            **({"image_pull_policy": told.image_pull_policy} if told.image_pull_policy else {}),
        ),
        host=host or "0.0.0.0",
        port=int(port),
        workers=int(told.workers),
        resync_seconds=resync,
        kubeconfig=told.kubeconfig,
        verbose=told.verbose,
        read_workloads=told.read_workloads,
        patience=Patience(**json.loads(default("PATIENCE", "{}"))),
    )
