"""Generation in the trainer's own process by transformers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole


class TransformersEngine(Closed):
    """Generation in the trainer's own process by transformers."""

    kind: Literal["transformers"] = "transformers"
    """Which engine."""
    batch_size: Annotated[Whole, Field(ge=1, le=65536)] = 64
    """Most sequences that are generated at once."""
    batch_tokens: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = 393_216
    """Most tokens that a batch may grow to, each sequence counted as its batch's longest prompt and
    maxCompletionLength: what a cache has room for. Longer prompts make smaller batches. The default is 64 sequences of
    2048 + 4096. When memory runs out, batches are halved once, and the log says so."""

    def sequences(self, length: int) -> int:
        """How many sequences of ``length`` tokens, prompt and completion, are generated at once; one at least."""
        return max(1, min(self.batch_size, self.batch_tokens // length))
