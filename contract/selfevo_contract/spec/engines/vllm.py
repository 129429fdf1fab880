"""Generation in the trainer's own process by vLLM."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class VllmEngine(Closed):
    """Generation in the trainer's own process by vLLM."""

    kind: Literal["vllm"]
    """Which engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the GPU's memory that vLLM may take; where nothing trains beside it, 0.9 gives more answers at once."""
    tensor_parallel_size: Annotated[Whole, Field(ge=1, le=64)] | None = None
    """GPUs over which the model is split; when not given, as many of the process's GPUs as divide its attention
    heads, and 1 where several processes train."""
    max_model_length: Annotated[Whole, Field(ge=256, le=16777216)] | None = None
    """Most tokens of a prompt and its completion; when not given, what the phase's limits come to, else as many as
    the model and the memory allow."""
    max_sequences: Annotated[Whole, Field(ge=1, le=65536)] = 256
    """Answers that are generated at once."""
    quantization: Literal["fp8"] | None = None
    """How the frozen weights are made smaller when they are loaded; it is part of what a step computes."""
    enforce_eager: bool = False
    """Do without CUDA graphs: slower, starts sooner, needs less memory."""
    enable_sleep_mode: bool = False
    """Of a frozen Solver beside the Challenger that trains: give the GPU's memory back between two steps, with the
    weights in main memory meanwhile."""
