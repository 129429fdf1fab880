"""How text is sampled from a model. Names are TRL's (GRPOConfig), in camelCase, wherever TRL has one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class Sampling(Closed):
    """How text is sampled from a model."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Softmax temperature; 0 is greedy decoding."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    top_k: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    """Sample among this many most likely tokens only; 0 turns it off."""
    max_completion_length: Annotated[Whole, Field(ge=1, le=1_000_000)] = 4096
    """Longest completion, in tokens."""
