"""How fast cards and engines are: each figure with where it is from. Pure.

    measured    by a benchmark of this repository, in benchmarks/results
    published   by somebody else, whose page is named
    guessed     by nobody: a starting point

Measured ones are of one H200 and a model of Qwen3-0.6B's shape (benchmarks/results/gpu.json): what a call costs however
small the model is, and what comes before the first one. What large models reach was published by others.
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
    1.0,
    "ms",
    "measured",
    "one H200, 28 layers: 24.3 ms a token in solver-train, 33.6 ms in challenger-train; Qwen2's documentation has 0.83 "
    "on an A100 (Qwen2-0.5B, one sequence)",
)
TOKEN = Figure(
    "time in which vLLM writes a token of each of its sequences, however small the model is",
    10.5,
    "ms",
    "measured",
    "one H200, 256 sequences: solver-rollout 10.1 ms, evaluate 11.1 ms, without the time for prompts",
)
EAGER_LAYER = Figure(
    "the same for each layer with enforceEager",
    1.2,
    "ms",
    "measured",
    "one H200, 28 layers: evaluate, 33.2 ms a token",
)
PASS = Figure(
    "time of one layer in a forward pass of perDeviceTrainBatchSize sequences, however small it is; there and back are "
    "three of them",
    2.0,
    "ms",
    "measured",
    "one H200, 28 layers, 8 sequences of 0.6 billion parameters: solver-train, 64 times six such passes in 21.8 s; "
    "smaller ones may take less",
)
START = Figure(
    "start of a trainer's process, until it reads its inputs",
    16,
    "s",
    "measured",
    "one H200's machine: 10 to 23 s in six phases; the pull of the image comes before it and is not in it",
)
STORE = Figure(
    "what a pod reads a second of the store",
    1.0,
    "GB/s",
    "guessed",
    "as the trainer's preflight has it; none is in the node's cache",
)
LOADING = Figure(
    "what is loaded a second of a model's files",
    0.42,
    "GB/s",
    "measured",
    "one H200: evaluate, 1.2 GB by transformers in 2.8 s; larger models may be faster",
)
GROWTH = Figure(
    "what the first batches of the engine transformers take longer, until torch has the memory of its cache",
    18,
    "s",
    "measured",
    "one H200: 26 s in evaluate and 11 s in challenger-train, beyond 1 ms a layer",
)
VLLM_START = Figure(
    "start of vLLM in a pod that has compiled nothing: compiling, CUDA graphs, warming up",
    101,
    "s",
    "measured",
    "one H200: evaluate, 104 s with the reading of 1.2 GB",
)
VLLM_AGAIN = Figure(
    "the same of another model in the same pod",
    55,
    "s",
    "measured",
    "one H200: 40 to 77 s with the reading of 1.2 GB; another length is compiled anew",
)
VLLM_EAGER = Figure(
    "start of vLLM with enforceEager",
    20,
    "s",
    "measured",
    "one H200: evaluate, 23 s with the reading of 1.2 GB",
)
LINK = Figure(
    "what a GPU gets a second of weights that others hold, with grpo.sharding",
    200,
    "GB/s",
    "guessed",
    "within one node, less than half of an H100's NVLink one way; between nodes it is their network's",
)
HOST_LINK = Figure(
    "what a GPU gets a second of its share in CPU memory, with grpo.cpuOffload",
    50,
    "GB/s",
    "guessed",
    "PCIe 5.0 x16 has 64 one way; where several GPUs share a socket's memory it is less",
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

CRITERIA = Figure(
    "what a judge with criteria reads in each call beside its system prompt, the task and the answer",
    400,
    "tokens",
    "guessed",
    "some criteria with a scale each, and the form of its answer",
)
VERDICT = Figure(
    "what such a judge writes in each call",
    150,
    "tokens",
    "guessed",
    "a few sentences and the scores; one that thinks writes up to rubric.maxCompletionLength",
)
OF_JUDGES = (CRITERIA, VERDICT)
"""In no hours: how fast a judge answers is its server's."""

STARTING = (START, STORE, LOADING, GROWTH, VLLM_START, VLLM_AGAIN, VLLM_EAGER)
"""What comes before the first token or update."""
ASSUMED = (
    *(TRAINING, DECODING, LAYER, TOKEN, EAGER_LAYER, PASS, LINK, HOST_LINK, *STARTING),
    *(MEAN_LENGTH, LONGEST, QUESTIONS, TEXT),
)
"""All but those of the card."""


def figures(card: str) -> tuple[Figure, ...]:
    """Everything that an estimate on ``card`` goes by."""
    return (SPEEDS[card].tflops, SPEEDS[card].bandwidth, *ASSUMED)
