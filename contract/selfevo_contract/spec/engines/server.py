"""Generation by an OpenAI-compatible server: beside the trainer, or one that the platform runs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract import uris
from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule, form
from selfevo_contract.spec.names import Name

SHARE = 0.9
"""Of each of its GPUs' memory, what a server takes when nothing else is written."""


class TokenSecret(Closed):
    """One key of a Secret in the run's namespace. Who writes the run must be allowed to `get` it."""

    name: Name
    """The Secret."""
    key: Annotated[str, Field(max_length=253), form("[-._A-Za-z0-9]+", "letters, digits, '-', '_' and '.'")] = "token"
    """Its key; `token` when not given."""


class ServerEndpoint(Closed):
    """A server that runs already."""

    url: uris.Endpoint
    """Its address; what is asked lies under /v1 of it."""
    model: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The name by which it serves the model; when not given, `<phase>/<key>` of the step that made it, and the base
    model's address."""
    token_secret: TokenSecret | None = None
    """Where the token lies that it asks for; on one machine the variable SELFEVO_SERVER_TOKEN holds it."""


class ServerEngine(Closed):
    """Generation by an OpenAI-compatible server, beside the trainer or at an endpoint."""

    kind: Literal["server"]
    """Which engine."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] | None = None
    """GPUs of one replica, over which its model is split; 1 when not given, 0 for a server without any."""
    replicas: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """Servers of each model beside the trainer, with GPUs of their own; 1 when not given."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of each GPU's memory that servers may take, all models together; 0.9 when not given."""
    max_concurrency: Annotated[Whole, Field(ge=1, le=65536)] = 256
    """Requests that a trainer process has under way at once."""
    request_timeout: Annotated[Whole, Field(ge=1, le=86400)] = 600
    """Seconds for one answer; a request that takes longer is made again."""
    startup_seconds: Annotated[Whole, Field(ge=1, le=86400)] = 1800
    """Seconds for a server to answer: when it starts, and when it is gone in the middle."""
    fingerprint: Literal["check", "off"] = "check"
    """Whether the server's log-probabilities are held against the model's fingerprint before its answers count. `off`
    is for an endpoint that gives none: then nothing shows that it serves the weights that were asked for, and the
    report says so."""
    endpoint: ServerEndpoint | None = None
    """A server that runs already, in place of one beside the trainer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.endpoint) || !(has(self.gpus) || has(self.replicas) || has(self.gpuMemoryUtilization))",
            lambda engine: (
                engine.endpoint is None
                or (engine.gpus is None and engine.replicas is None and engine.gpu_memory_utilization is None)
            ),
            "endpoint is a server that runs already; remove gpus, replicas and gpuMemoryUtilization, or the endpoint",
        ),
    )

    @property
    def gpus_of_replica(self) -> int:
        """GPUs of one replica."""
        return 1 if self.gpus is None else self.gpus

    @property
    def gpus_in_all(self) -> int:
        """GPUs of all servers of a pod."""
        return 0 if self.endpoint is not None else self.gpus_of_replica * (self.replicas or 1)

    @property
    def memory_share(self) -> float:
        """Share of each GPU's memory, for all models together."""
        return self.gpu_memory_utilization or SHARE
