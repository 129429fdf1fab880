"""Generation by an OpenAI-compatible server beside the trainer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class ServerEngine(Closed):
    """Generation by an OpenAI-compatible server beside the trainer."""

    built: ClassVar[bool] = False

    kind: Literal["server"]
    """Which engine."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] = 4
    """GPUs of the server."""
    fingerprint: Literal["check", "off"] = "check"
    """Whether the server's log-probabilities are held against the model's fingerprint before its answers count. `off`
    is for an endpoint that gives none: then nothing shows that it serves the weights that were asked for, and the
    report says so."""
