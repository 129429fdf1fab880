"""Servers in the pod of the trainer, behind an OpenAI-compatible address: the engine `server`, for frozen models,
`grpo.vllmMode: server`, for the policy in training, and `verifier.server`, for the judge. Pure.

    fetch-model   init container: brings the weights from store or hub into the working volume; exits as a trainer
    server        native sidecar (an init container that always restarts): serves them with GPUs of its own
    trainer       starts when the server's process runs, and waits until it is ready: only so does somebody learn why a
                  server never is. Kubernetes stops the server when the trainer has ended

The server gets no credentials, for it needs none: `fetch-model` has been there. It asks for GPUs only; what it takes of
the node's memory and processors is not set aside.

The trainer's half is `selfevo_trainer.serve`, which reads from the PhaseConfig what is to be served, and what asks at
SELFEVO_SERVER_URL. Where two roles generate (solver-rollout), two models share the server's GPUs; the judge has GPUs of
its own among them, and so has the policy, to which the trainer sends its weights by NCCL within the pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfevo_contract.process import SERVER_MODELS_ENV, SERVER_PORT_ENV, SERVER_URL_ENV
from selfevo_contract.spec.names import Quantity
from selfevo_operator.manifests.environment import WORK, Variable, plain

FETCH = "fetch-model"
SERVER = "server"
COMMANDS = {
    FETCH: ["python", "-m", "selfevo_trainer.serve", "--fetch"],
    SERVER: ["python", "-m", "selfevo_trainer.serve"],
}

PORT = 8000
_MODELS = f"{WORK}/served"
STARTUP_SECONDS = 600
"""Time for the server's process to run, on a node that is busy; how long it may take to be ready is the engine's
startupSeconds, which the trainer counts."""


def client_variables() -> list[Variable]:
    """The trainer's variables: where to ask, and where the server leaves its log."""
    return [plain(SERVER_URL_ENV, f"http://127.0.0.1:{PORT}"), plain(SERVER_MODELS_ENV, _MODELS)]


def server_variables() -> list[Variable]:
    """Variables of `fetch-model` and the server: where the weights are kept, and where to listen."""
    return [plain(SERVER_MODELS_ENV, _MODELS), plain(SERVER_PORT_ENV, str(PORT))]


def fetching(container: Mapping[str, Any], asked: Mapping[str, Mapping[str, Quantity]]) -> dict[str, Any]:
    """``container`` as the one that fetches: with the trainer's resources, but without its devices.

    It runs before the others, so that these add nothing to what the pod takes; a quota may insist on them.
    """
    own = {kind: {name: of for name, of in named.items() if "/" not in name} for kind, named in asked.items()}
    own = {kind: named for kind, named in own.items() if named}
    return {**container, **({"resources": own} if own else {})}


def serving(container: Mapping[str, Any], devices: Mapping[str, Quantity]) -> dict[str, Any]:
    """``container`` as the server, with ``devices``."""
    runs = {"httpGet": {"path": "/live", "port": PORT}, "timeoutSeconds": 5}
    healthy = {"httpGet": {"path": "/health", "port": PORT}, "timeoutSeconds": 5}
    return {
        **container,
        "restartPolicy": "Always",
        "ports": [{"name": "openai", "containerPort": PORT, "protocol": "TCP"}],
        **({"resources": {"limits": dict(devices)}} if devices else {}),
        "startupProbe": {**runs, "periodSeconds": 5, "failureThreshold": STARTUP_SECONDS // 5},
        "readinessProbe": {**healthy, "periodSeconds": 10, "failureThreshold": 3},
    }
