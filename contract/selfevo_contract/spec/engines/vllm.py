"""Generation in the trainer's own process by vLLM."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed


class VllmEngine(Closed):
    """Generation in the trainer's own process by vLLM."""

    built: ClassVar[bool] = False

    kind: Literal["vllm"]
    """Which engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the GPU's memory that vLLM may take."""
