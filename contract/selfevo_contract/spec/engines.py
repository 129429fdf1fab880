"""How text is generated: a class for each kind of engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class TransformersEngine(Closed):
    """Generation in the trainer's own process by transformers."""

    kind: Literal["transformers"] = "transformers"
    """Which engine."""
    batch_size: Annotated[Whole, Field(ge=1, le=65536)] = 64
    """Sequences generated at once."""


class VllmEngine(Closed):
    """Generation in the trainer's own process by vLLM."""

    kind: Literal["vllm"]
    """Which engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the GPU's memory that vLLM may take."""


class ServerEngine(Closed):
    """Generation by an OpenAI-compatible server beside the trainer."""

    kind: Literal["server"]
    """Which engine."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] = 4
    """GPUs of the server."""


Engine = Annotated[TransformersEngine | VllmEngine | ServerEngine, Field(discriminator="kind")]
