"""Environment variables of a step's containers. Pure.

Kubernetes expands ``$(NAME)`` in a value and makes ``$`` of ``$$``. A prompt may hold either (``$$x^2$$`` is LaTeX),
and a changed prompt is another key: what is written here arrives as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Inputs, PublishInputs
from selfevo_contract.process import (
    CACHE_ENV,
    CONFIG_ENV,
    JOIN_SECONDS_ENV,
    JUDGE_TOKEN_ENV,
    MASTER_ADDR_ENV,
    MASTER_PORT_DEFAULT,
    MASTER_PORT_ENV,
    NODES_ENV,
    ORACLE_TOKEN_ENV,
    PROCESSES_ENV,
    PUBLISH_TOKEN_ENV,
    RUN_ENV,
    WORKDIR_ENV,
    PhaseConfig,
)
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import encoded_run
from selfevo_contract.spec.engines.server import TokenSecret
from selfevo_contract.spec.environment import CaBundle, EnvVar
from selfevo_contract.spec.oracles import EndpointOracle
from selfevo_contract.spec.publish import Publish
from selfevo_contract.spec.rubric import Rubric
from selfevo_contract.spec.storage import Storage
from selfevo_contract.traces import ENDPOINT_ENVS, TRACEPARENT_ENV, attempt_span

WORK = "/work"
"""Mount of the working volume, and the home of the user, who has no other."""
CA_FOLDER, CA_FILE = "/etc/selfevo/ca", "ca.crt"
"""Where a run's certificates are seen."""
CONFIG_LIMIT = 96 * 1024
"""Bytes of a PhaseConfig. Linux takes 128 KiB for one variable, its name included."""

_PLACES = {
    WORKDIR_ENV: f"{WORK}/phase",
    CACHE_ENV: f"{WORK}/cache/selfevo",
    "HOME": WORK,
    "TMPDIR": "/tmp",
    "XDG_CACHE_HOME": f"{WORK}/cache",
    "XDG_CONFIG_HOME": f"{WORK}/config",
    "XDG_DATA_HOME": f"{WORK}/data",
    "HF_HOME": f"{WORK}/cache/huggingface",
    "TORCHINDUCTOR_CACHE_DIR": f"{WORK}/cache/torchinductor",
    "TRITON_CACHE_DIR": f"{WORK}/cache/triton",
    # The user has a number only; libraries that need its name read this before they read /etc/passwd and fail.
    "USER": "selfevo",
    "LOGNAME": "selfevo",
    # What crashes in native code leaves a stack at the end of its log, and so in the termination message.
    "PYTHONFAULTHANDLER": "1",
}

Variable = dict[str, Any]


def variables(
    users: Iterable[EnvVar], config: PhaseConfig, more: Sequence[Variable] = (), *, credentials: bool = True
) -> list[Variable]:
    """The person's variables, then ours; a name that is in both is ours, and stands there once.

    Args:
        more: Further variables of ours.
        credentials: Whether the container talks to the object store. One that does not gets nothing from any Secret.

    Raises:
        InputError: the PhaseConfig is too long.
    """
    ours = [
        *(plain(name, value) for name, value in _PLACES.items()),
        *(_credentials(config.storage) if credentials else []),
        *more,
        {"name": CONFIG_ENV, "value": config_text(config)},
    ]
    names = {variable["name"] for variable in ours}
    return [
        *(_of_user(user) for user in users if user.name not in names and (credentials or not user.value_from)),
        *ours,
    ]


def _of_user(variable: EnvVar) -> Variable:
    if variable.value_from is None:
        return plain(variable.name, variable.value)
    reference = variable.value_from.secret_key_ref
    return of_secret(reference.name, reference.key, optional=reference.optional, variable=variable.name)


def plain(name: str, value: str) -> Variable:
    """A variable that has exactly this value in the container."""
    return {"name": name, "value": value.replace("$", "$$")}


def config_text(config: PhaseConfig) -> str:
    """The PhaseConfig as JSON in ASCII and without a ``$``.

    Raises:
        InputError: it is longer than a variable may be.
    """
    text = json.dumps(config.wire(), separators=(",", ":")).replace("$", "\\u0024")
    if len(text) > CONFIG_LIMIT:
        raise InputError(
            f"the configuration of {config.step} is {len(text)} bytes of JSON, above {CONFIG_LIMIT} (it travels as an "
            "environment variable); shorten the prompts of spec.challenger and spec.solver"
        )
    return text


def run_variables(run: SelfEvolutionRun) -> list[Variable]:
    """The run, which its trainers leave in the store; nothing where it is longer than a variable may be."""
    text = encoded_run(run)
    return [{"name": RUN_ENV, "value": text}] if len(text) <= CONFIG_LIMIT else []


def launch(processes: int, nodes: int, coordinator: str, join_seconds: int | None = None) -> list[Variable]:
    """The variables by which a trainer trains in several processes; nothing when one does it alone.

    The trainer starts them itself, and Kubernetes gives each pod its rank (JOB_COMPLETION_INDEX).

    Args:
        processes: In each pod.
        nodes: Pods.
        coordinator: Host name of the pod with rank 0.
        join_seconds: How long they wait for each other; the trainer's own choice when not given.
    """
    several = [plain(PROCESSES_ENV, str(processes))] if processes > 1 else []
    if nodes > 1:
        several += [
            plain(NODES_ENV, str(nodes)),
            plain(MASTER_ADDR_ENV, coordinator),
            plain(MASTER_PORT_ENV, str(MASTER_PORT_DEFAULT)),
            *([plain(JOIN_SECONDS_ENV, str(join_seconds))] if join_seconds is not None else []),
        ]
    return several


def believed(bundle: CaBundle | None) -> list[Variable]:
    """A run's certificates for Python's ssl and httpx (the hub's client), requests, and boto3."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE") if bundle is not None else ()
    return [plain(name, f"{CA_FOLDER}/{CA_FILE}") for name in names]


def oracle_token(inputs: Inputs) -> list[Variable]:
    """The token of the endpoint that a rollout's oracle is, which only the kubelet reads."""
    oracle = getattr(inputs, "oracle", None)
    secret = oracle.token_secret if isinstance(oracle, EndpointOracle) else None
    return token(secret, ORACLE_TOKEN_ENV)


def judge_token(inputs: Inputs) -> list[Variable]:
    """The token of the endpoint that judges by criteria: only phases that ask it get it."""
    rubric: Rubric | None = getattr(inputs, "rubric", None)
    secret = rubric.endpoint.token_secret if rubric is not None else None
    return token(secret, JUDGE_TOKEN_ENV)


def publish_token(publish: Publish | None, inputs: Inputs) -> list[Variable]:
    """The token with which a Solver is published: no other phase's pods get it."""
    secret = publish.token_secret if publish is not None and isinstance(inputs, PublishInputs) else None
    return token(secret, PUBLISH_TOKEN_ENV)


def traced(collector: tuple[str, str] | None, uid: str, attempt: str, users: Iterable[EnvVar]) -> list[Variable]:
    """Where the trainer sends its spans, and the one that they belong to; nothing where there is no collector.

    An endpoint in ``users``' variables holds: a trainer may reach the collector by another address than the operator.
    """
    if collector is None:
        return []
    given = any(user.name in ENDPOINT_ENVS for user in users)
    return [*([] if given else [plain(*collector)]), plain(TRACEPARENT_ENV, attempt_span(uid, attempt).traceparent)]


def _credentials(storage: Storage) -> list[Variable]:
    """From the Secret that the run names. Without one, the platform gives the pod an identity (its service account)."""
    secret = storage.credentials_secret
    if secret is None or not storage.uri.startswith("s3://"):
        return []
    return [
        of_secret(secret, "AWS_ACCESS_KEY_ID"),
        of_secret(secret, "AWS_SECRET_ACCESS_KEY"),
        of_secret(secret, "AWS_SESSION_TOKEN", optional=True),
    ]


def token(secret: TokenSecret | None, variable: str) -> list[Variable]:
    """``variable`` with a token that only the kubelet reads; nothing where none is asked for."""
    return [] if secret is None else [of_secret(secret.name, secret.key, variable=variable)]


def of_secret(secret: str, key: str, *, optional: bool = False, variable: str = "") -> Variable:
    """A variable that the kubelet fills from a Secret; it bears the key's name when not given another."""
    reference = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable or key, "valueFrom": {"secretKeyRef": reference}}
