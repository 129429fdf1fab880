"""Generation in the trainer's own process by transformers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class TransformersEngine(Closed):
    """Generation in the trainer's own process by transformers."""

    built: ClassVar[bool] = True

    kind: Literal["transformers"] = "transformers"
    """Which engine."""
    batch_size: Annotated[Whole, Field(ge=1, le=65536)] = 64
    """Sequences generated at once."""
