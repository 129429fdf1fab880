"""What the formulas need to know of a model: widths, layers, vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.spec.lora import Lora

KINDS = ("llama", "qwen3", "mistral")
"""Values of `model_type`: decoders of one form (RMS norm, gated MLP, rotary positions, no biases)."""


def bytes_in(dtype: str) -> int:
    """Bytes of one weight in ``dtype``, a value of `model.dtype`."""
    return 4 if dtype == "float32" else 2


@dataclass(frozen=True)
class Matrix:
    """Weights that may get an adapter."""

    name: str
    """Of its module, from the model on."""
    sides: int
    """Inputs and outputs together."""
    linear: bool = True
    """Or else an embedding, which has an adapter only where its name is written."""

    def adapted_by(self, lora: Lora) -> bool:
        """As peft chooses: every linear layer, or the names that end with a written one, from a dot on."""
        if lora.target_modules is None:
            return self.linear
        return any(f".{self.name}".endswith(f".{ending}") for ending in lora.target_modules)


@dataclass(frozen=True)
class Cached:
    """Keys and values of one layer."""

    numbers: int
    """For each token."""
    window: int | None = None
    """Tokens that are kept at most; None where all are."""


@dataclass(frozen=True)
class Counted:
    """What a model has of which the formulas here know nothing, found on one without contents
    (`selfevo_trainer.models.counting`)."""

    parameters: int
    matrices: tuple[Matrix, ...]
    cached: tuple[Cached, ...]


@dataclass(frozen=True)
class Architecture:
    """Sizes from a model's config.json. Letters in the formulas: h hidden, f intermediate, q heads x head size,
    k key-value heads x head size, s tokens of a sequence."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    qk_norm: bool
    """Qwen3 normalises queries and keys, Llama does not."""
    counted: Counted | None = None
    """In place of the formulas for parameters, adapters and keys and values; None of KINDS."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Architecture:
        """From the content of config.json.

        Raises:
            InputError: it is none of the architectures that the formula was checked for.
        """
        kind = config.get("model_type")
        if kind not in KINDS:
            raise InputError(
                f"config.json has model_type {kind!r}, whose memory is not worked out; known are {', '.join(KINDS)}"
            )
        heads, hidden = _number(config, "num_attention_heads"), _number(config, "hidden_size")
        return cls(
            hidden=hidden,
            intermediate=_number(config, "intermediate_size"),
            layers=_number(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=_number(config, "num_key_value_heads", heads),
            head_size=_number(config, "head_dim", hidden // heads),
            vocabulary=_number(config, "vocab_size"),
            tied=bool(config.get("tie_word_embeddings")),
            qk_norm=kind == "qwen3",
        )

    @property
    def q(self) -> int:
        return self.heads * self.head_size

    @property
    def k(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def parameters(self) -> int:
        if self.counted is not None:
            return self.counted.parameters
        norms = 2 * self.hidden + (2 * self.head_size if self.qk_norm else 0)
        layer = self.hidden * (2 * self.q + 2 * self.k) + 3 * self.hidden * self.intermediate + norms
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * layer + self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; those of an output layer of its own are as many."""
        return self.vocabulary * self.hidden

    @property
    def in_layers(self) -> int:
        """Parameters of all but the embedding and the output layer."""
        return self.parameters - (1 if self.tied else 2) * self.embedding

    def adapter(self, lora: Lora) -> int:
        """Parameters of an adapter: rank x (inputs + outputs) of each matrix that has one."""
        matrices = self._matrices() if self.counted is None else self.counted.matrices
        return lora.rank * sum(matrix.sides for matrix in matrices if matrix.adapted_by(lora))

    def _matrices(self) -> Iterator[Matrix]:
        """By the names that transformers has for them. The output layer is none of them, for it gets no adapter."""
        h, f, q, k = self.hidden, self.intermediate, self.q, self.k
        attention = {"q_proj": h + q, "k_proj": h + k, "v_proj": h + k, "o_proj": q + h}
        mlp = {"gate_proj": h + f, "up_proj": h + f, "down_proj": f + h}
        for layer in range(self.layers):
            for part, sides in (("self_attn", attention), ("mlp", mlp)):
                yield from (Matrix(f"model.layers.{layer}.{part}.{name}", side) for name, side in sides.items())
        yield Matrix("model.embed_tokens", self.vocabulary + h, linear=False)

    def saved_by_a_layer(self, sequence: int, *, autocast: bool = True) -> int:
        """Bytes for each token that the backward pass of one layer needs, with fused attention.

        26h   two norms in float32 (input and result: 16h), their results cast for q, k, v, gate and up (10h)
        16h   without autocast: two norms' input in float32 (8h), normed and multiplied in bfloat16 (8h)
        8f    gate, its SiLU, up and the product, in bfloat16
        8q    query, keys and values repeated for all heads, result of attention
        14q+6k, for 8q, where queries and keys are normalised in float32
        4     a head: the log-sum-exp of attention; with norms, a scale for each query and key head as well
        2s    the padding mask of a sequence, in bfloat16
        """
        attention = 8 * self.q + 4 * self.heads
        if self.qk_norm:
            attention += 6 * self.q + 6 * self.k + 4 * (self.heads + self.kv_heads)
        return (26 if autocast else 16) * self.hidden + 8 * self.intermediate + attention + 2 * sequence + 8

    def cached(self, bytes_each: int, sequence: int = 1) -> int:
        """Bytes of keys and values in all layers for one token of a sequence of that many. Layers with a window keep
        the last tokens only, and so less for each of a long sequence."""
        if self.counted is None:
            return self.layers * 2 * self.k * bytes_each
        kept = (it.numbers * min(sequence, it.window or sequence) for it in self.counted.cached)
        return -(-sum(kept) * bytes_each // sequence)


def _number(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    found = config.get(name)
    if found is None and default is not None:
        return default
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise InputError(
            f"config.json has no {name}; take the model's own one"
            if found is None
            else f"config.json has {name} {found!r}, which is no whole number of 1 or more; take the model's own one"
        )
    return found


MODELS = {
    "SmolLM2-135M-Instruct": Architecture(576, 1536, 30, 9, 3, 64, 49152, True, False),
    "Qwen3-0.6B-Base": Architecture(1024, 3072, 28, 16, 8, 128, 151936, True, True),
    "Qwen3-1.7B-Base": Architecture(2048, 6144, 28, 16, 8, 128, 151936, True, True),
    "Qwen3-4B-Base": Architecture(2560, 9728, 36, 32, 8, 128, 151936, True, True),
    "Qwen3-8B-Base": Architecture(4096, 12288, 36, 32, 8, 128, 151936, False, True),
    "OctoThinker-3B-Hybrid-Base": Architecture(3072, 8192, 28, 24, 8, 128, 128256, True, False),
    "OctoThinker-8B-Hybrid-Base": Architecture(4096, 14336, 32, 32, 8, 128, 128256, False, False),
}
"""The models of the examples and their small siblings. OctoThinker has the sizes of Llama 3.2 3B and Llama 3.1 8B."""

_BASES = {
    **{f"Qwen3-{size}": f"Qwen3-{size}-Base" for size in ("0.6B", "1.7B", "4B", "8B")},
    **{f"Llama-{version}": f"OctoThinker-{size}-Hybrid-Base" for version, size in (("3.2-3B", "3B"), ("3.1-8B", "8B"))},
}
"""What a reward model has the sizes of, by the end of its name."""
JUDGES = {
    f"Skywork-Reward-V2-{name}": replace(MODELS[base], tied=True)  # a classifier has no output layer
    for name, base in _BASES.items()
}
"""Reward models that a judge may begin as."""


def known(uri: str) -> Architecture | None:
    """The model at ``uri`` by its name, the last part without a revision; None when that says nothing."""
    name = uri.rpartition("/")[2].partition("@")[0]
    return MODELS.get(name) or JUDGES.get(name)
