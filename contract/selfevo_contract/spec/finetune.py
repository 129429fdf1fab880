"""Training on labelled data after the last iteration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.spec.pods import Pods
from selfevo_contract.uris import StoreUri


class Finetune(Closed):
    """Supervised training on labelled data after the last iteration."""

    data: StoreUri
    """JSON lines with the columns question and answer."""
    max_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] = 100
    """Optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """AdamW's learning rate."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""
