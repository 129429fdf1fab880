"""Low-rank adapters. Names are peft's (LoraConfig), in camelCase."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class Lora(Closed):
    """A low-rank adapter is trained in place of all weights (LoRA, arXiv 2106.09685)."""

    rank: Annotated[Whole, Field(ge=1, le=4096)] = 32
    """Rank of the two matrices beside each adapted one."""
    alpha: Annotated[float, Field(gt=0, le=65536)] = 32.0
    """The adapter's product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped while it is trained."""
    target_modules: (
        Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=64)] | None
    ) = None
    """Names of the modules that get an adapter, by their endings, e.g. `q_proj`; every linear layer but the last one
    when not given (peft's all-linear)."""
