"""The judge in a server of its own, with GPUs of its own (docs/verifier.md, «A server for the judge»)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.spec.engines.server import SHARE, ServerEngine


class JudgeServer(Closed):
    """vLLM's servers of a judge, beside the trainer. Where a judge is read is no input of a step."""

    gpus: Annotated[Whole, Field(ge=0, le=64)] | None = None
    """GPUs of one replica, over which the judge is split; 1 when not given, 0 for a server without any."""
    replicas: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Servers of the judge in each pod, with GPUs of their own."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = SHARE
    """Share of each GPU's memory that a server may take."""
    request_timeout: Annotated[Whole, Field(ge=1, le=86400)] = 600
    """Seconds for the scores of one request; one that takes longer is made again."""
    startup_seconds: Annotated[Whole, Field(ge=1, le=86400)] = 1800
    """Seconds for a server to answer: when it starts, and when it is gone in the middle."""

    @property
    def engine(self) -> ServerEngine:
        """How its servers are started, as those of frozen models are."""
        given = self.model_dump(by_alias=True, exclude_none=True)
        return ServerEngine.model_validate({"kind": "server", **given})
