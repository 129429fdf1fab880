"""How fast cards and engines are: each figure with where it is from. Pure.

    measured    by a benchmark of this repository, in benchmarks/results
    published   by somebody else, whose page is named
    guessed     by nobody: a starting point

No figure was measured with selfevo; what one GPU showed with a small model stands beside them in docs/sizing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["measured", "published", "guessed"]


@dataclass(frozen=True)
class Figure:
    """A number that an estimate goes by."""

    what: str
    value: float
    unit: str
    origin: Origin
    source: str
    """Whose it is, or how it was come by."""

    def __str__(self) -> str:
        return f"{self.what}: {self.value:,.4g} {self.unit}".rstrip() + f" ({self.origin}: {self.source})"


@dataclass(frozen=True)
class Card:
    """One of `memory.CARDS`."""

    tflops: Figure
    """In 16 bits, without sparsity."""
    bandwidth: Figure
    """Of its memory, GB/s."""


def _card(model: str, tflops: float, bandwidth: float) -> Card:
    sheet = f"NVIDIA's data sheet of the {model}"
    return Card(
        Figure(f"{model}, bfloat16 without sparsity", tflops, "TFLOP/s", "published", sheet),
        Figure(f"{model}, its memory", bandwidth, "GB/s", "published", sheet),
    )


SPEEDS = {
    "24 GB": _card("L4", 121, 300),
    "48 GB": _card("L40S", 362, 864),
    "80 GB": _card("H100 SXM", 989, 3350),
    "141 GB": _card("H200", 989, 4800),
    "180 GB": _card("B200", 2250, 8000),
}
"""By the names of `memory.CARDS`."""

TRAINING = Figure(
    "share of a card's TFLOP/s that a pass of training reaches",
    0.33,
    "",
    "published",
    "torchtitan, benchmarks of Llama 3.1 8B with FSDP on 8 H100 without torch.compile; TRL's trainer may reach less",
)
DECODING = Figure(
    "share of its ideal speed that an engine reaches at a token",
    0.65,
    "",
    "published",
    "ML.ENERGY leaderboard: Qwen3-14B by vLLM on one H100, 128 and 256 answers at once, 4,474 and 5,760 tokens/s; for "
    "transformers it is a guess",
)
LAYER = Figure(
    "time of one layer at a token with transformers, however small it is",
    0.83,
    "ms",
    "published",
    "Qwen2's documentation: Qwen2-0.5B, 24 layers, one sequence on an A100, 49.94 tokens/s",
)
LINK = Figure(
    "what a GPU gets a second of weights that others hold, with grpo.sharding",
    200,
    "GB/s",
    "guessed",
    "within one node, less than half of an H100's NVLink one way; between nodes it is their network's",
)
MEAN_LENGTH = Figure(
    "length of a completion on average, as a share of maxCompletionLength",
    0.25,
    "",
    "guessed",
    "most answers end long before; `--answer-tokens` gives a number",
)
LONGEST = Figure(
    "length of the longest completion of a batch, as a share of maxCompletionLength",
    1.0,
    "",
    "guessed",
    "of many answers one never ends; with transformers the whole batch waits for it, and training is padded to it",
)
QUESTIONS = Figure(
    "questions of a held-out task that is none of `selfevo data`",
    500,
    "",
    "guessed",
    "as many as MATH-500 has",
)
TEXT = Figure("text of a token", 4, "bytes", "guessed", "English; rows are compressed when they are stored")

ASSUMED = (TRAINING, DECODING, LAYER, LINK, MEAN_LENGTH, LONGEST, QUESTIONS, TEXT)
"""All but those of the card."""


def figures(card: str) -> tuple[Figure, ...]:
    """Everything that an estimate on ``card`` goes by."""
    return (SPEEDS[card].tflops, SPEEDS[card].bandwidth, *ASSUMED)
