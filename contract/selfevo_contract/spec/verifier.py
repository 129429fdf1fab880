"""The third role."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.spec.pods import Pods


class Verifier(Closed):
    """The third role (docs/method.md, «Verifier»)."""

    max_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 8
    """Optimizer steps an iteration."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-7
    """AdamW's learning rate."""
    batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 64
    """Pairs in one step."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""
