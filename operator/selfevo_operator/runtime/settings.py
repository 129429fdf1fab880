"""The operator's settings: flags, or environment variables of the same names."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from selfevo_contract.errors import InputError
from selfevo_contract.explain import explain
from selfevo_contract.spec.pods import Pods
from selfevo_contract.traces import collector_of
from selfevo_operator.manifests.settings import PodSettings

ENV_PREFIX = "SELFEVO_OPERATOR_"
Default = Callable[[str, str], str]
"""Name of a variable without its prefix, and what holds without it -> its value in the environment, or that."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Patience:
    """Seconds until something counts as lost. No flags: tests shorten them by SELFEVO_OPERATOR_PATIENCE, as JSON."""

    request: float = 30.0
    """A call to the API server."""
    watch: float = 70.0
    """A watch without an event. The server sends bookmarks every minute."""
    stuck: float = 120.0
    """A reconcile, or a run that waits for one, while no call to the API server ends: a defect, and the liveness
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
    progress_seconds: float = 30.0
    """How often a run's pods are asked how far they are; 0 for never. Needs the right to get pods/log."""
    read_workloads: bool = False
    """Read Kueue's Workloads, for the reason why a Job waits; needs the right to list them."""
    patience: Patience = Patience()


def read_settings(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line, else from the environment, else defaults. Ends with a sentence where wrong."""

    def default(name: str, value: str) -> str:
        return environment.get(ENV_PREFIX + name, value)

    parser = _parser(default)
    given = parser.parse_args(arguments)
    namespaces = _namespaces(parser, given, default)
    host, port = _address(parser, given.listen)
    if not given.workers.isdecimal() or not 1 <= int(given.workers) <= 256:
        parser.error(f"--workers is {given.workers!r}; it must be a whole number from 1 to 256")
    resync = _resync_seconds(parser, given.resync_seconds)
    return Settings(
        namespaces=namespaces,
        pods=replace(_pods(parser, given), collector=_collector(parser, environment)),
        host=host,
        port=port,
        workers=int(given.workers),
        resync_seconds=resync,
        progress_seconds=_progress_seconds(parser, given.progress_seconds),
        kubeconfig=given.kubeconfig,
        verbose=given.verbose,
        read_workloads=given.read_workloads,
        patience=Patience(**json.loads(default("PATIENCE", "{}"))),
    )


def _parser(default: Default) -> argparse.ArgumentParser:
    """Every flag, each with its value from the environment where the flag is not given."""

    def is_set(name: str) -> bool:
        return default(name, "") not in ("", "0", "false")

    parser = argparse.ArgumentParser(
        prog="python -m selfevo_operator", description="Turns SelfEvolutionRuns into Jobs."
    )
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--namespace", action="append", metavar="NS", help="a namespace to serve; may be given often")
    scope.add_argument("--all-namespaces", action="store_true", default=is_set("ALL_NAMESPACES"),
                       help="serve the whole cluster (needs a ClusterRole)")  # fmt: skip
    _add_pod_flags(parser, default)
    parser.add_argument("--allow-host-network", action="store_true", default=is_set("ALLOW_HOST_NETWORK"),
                        help="let runs have their pods on their node's network")  # fmt: skip
    for flag, what in (
        ("--allow-resource-claim-templates", "ResourceClaimTemplates"),
        ("--allow-resource-claims", "ResourceClaims"),
    ):
        parser.add_argument(flag, default=default(_variable(flag), ""),
                            metavar="NAMES", help=f"{what} that runs may name, e.g. eight-gpus,team-*")  # fmt: skip
    parser.add_argument("--listen", default=default("LISTEN", "0.0.0.0:8080"), metavar="HOST:PORT",
                        help="where /healthz, /readyz and /metrics are served")  # fmt: skip
    parser.add_argument("--workers", default=default("WORKERS", "32"), help="runs reconciled at the same time")
    parser.add_argument("--resync-seconds", default=default("RESYNC_SECONDS", "120"),
                        help="how often everything is listed anew")  # fmt: skip
    parser.add_argument("--progress-seconds", default=default("PROGRESS_SECONDS", "30"),
                        help="how often the log of a run's pods is read for how far they are (needs the right to get "
                        "pods/log); 0 for never")  # fmt: skip
    parser.add_argument("--kubeconfig", default=default("KUBECONFIG", "") or None, help="outside of a cluster")
    parser.add_argument("--verbose", action="store_true", default=is_set("VERBOSE"))
    parser.add_argument("--read-workloads", action="store_true", default=is_set("READ_WORKLOADS"),
                        help="say why Kueue does not admit a Job (needs the right to list workloads)")  # fmt: skip
    return parser


def _variable(flag: str) -> str:
    """The environment variable of ``flag``, without our prefix."""
    return flag.removeprefix("--").replace("-", "_").upper()


def _add_pod_flags(parser: argparse.ArgumentParser, default: Default) -> None:
    parser.add_argument("--image", default=default("IMAGE", ""), help="trainer image of runs that name none")
    parser.add_argument(
        "--image-pull-policy", default=default("IMAGE_PULL_POLICY", ""), help="pull policy of that image"
    )
    parser.add_argument("--pods", default=default("PODS", "{}"), metavar="JSON",
                        help="what every run's spec.pods begins from: an object with its fields")  # fmt: skip
    for flag, what in (("--run-as-user", "user"), ("--run-as-group", "group"), ("--fs-group", "group of volumes")):
        parser.add_argument(flag, default=default(_variable(flag), "10001"), metavar="NUMBER",
                            help=f"{what} of the pods; empty where the platform chooses (OpenShift)")  # fmt: skip
    parser.add_argument("--gpu-resources", default=default("GPU_RESOURCES", "*/gpu"), metavar="NAMES",
                        help="resources that count as GPUs, e.g. */gpu,nvidia.com/mig-*,habana.ai/gaudi")  # fmt: skip


def _namespaces(parser: argparse.ArgumentParser, given: argparse.Namespace, default: Default) -> tuple[str, ...]:
    """Whose runs are driven; empty for all. A flag wins over the environment."""
    namespaces = given.namespace or [name for name in default("NAMESPACE", "").split(",") if name]
    if given.all_namespaces and not given.namespace:
        namespaces = []
    elif not namespaces:
        parser.error("neither --namespace nor --all-namespaces is given; name whose runs to drive")
    for name in namespaces:
        if not _NAMESPACE.fullmatch(name):
            parser.error(f"--namespace is {name!r}, which is no namespace's name; correct it")
    return tuple(dict.fromkeys(namespaces))


def _address(parser: argparse.ArgumentParser, listen: str) -> tuple[str, int]:
    """Host and port; every host where none is given."""
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        parser.error(f"--listen is {listen!r}; write it as HOST:PORT, for example 0.0.0.0:8080")
    return host or "0.0.0.0", int(port)


def _collector(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Where traces are sent, by OpenTelemetry's own variables."""
    try:
        return collector_of(environment)
    except InputError as error:
        parser.error(str(error))


def _resync_seconds(parser: argparse.ArgumentParser, text: str) -> float:
    seconds = _number(text)
    if not 1 <= seconds <= 86400:
        parser.error(f"--resync-seconds is {text!r}; it must be a number from 1 to 86400")
    return seconds


def _progress_seconds(parser: argparse.ArgumentParser, text: str) -> float:
    seconds = _number(text)
    if seconds != 0 and not 1 <= seconds <= 86400:
        parser.error(f"--progress-seconds is {text!r}; it must be 0 or a number from 1 to 86400")
    return seconds


def _number(text: str) -> float:
    """-1 where it is none."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def _pods(parser: argparse.ArgumentParser, given: argparse.Namespace) -> PodSettings:
    """What the flags decide for the pods of every run."""
    if not given.image:
        parser.error("--image is not given; name the trainer image that runs use when their spec.pods.image is empty")
    numbers: dict[str, Any] = {}
    for name in ("run_as_user", "run_as_group", "fs_group"):
        text = getattr(given, name)
        if text and not (text.isdecimal() and 0 < int(text) < 2**31):
            parser.error(f"--{name.replace('_', '-')} is {text!r}; it must be a number from 1 to 2147483647, or empty")
        numbers[name] = int(text) if text else None
    try:
        defaults = Pods.model_validate(json.loads(given.pods))
    except ValidationError as error:
        parser.error(f"--pods: {'; '.join(explain(error, Pods))}")
    except ValueError as error:
        parser.error(
            f"--pods is {given.pods!r}, which is no JSON ({error}); write an object of the fields of spec.pods"
        )
    return PodSettings(
        image=given.image,
        defaults=defaults,
        gpu_resources=_names(given.gpu_resources),
        host_network=given.allow_host_network,
        resource_claim_templates=_names(given.allow_resource_claim_templates),
        resource_claims=_names(given.allow_resource_claims),
        **numbers,
        **({"image_pull_policy": given.image_pull_policy} if given.image_pull_policy else {}),
    )


def _names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
