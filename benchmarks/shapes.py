"""Models of real shapes with random weights, made on the spot: what a phase costs depends on shapes, not on values.

Every token of their tokenizer is spelled as a whole question with an answer, so that whatever such a model writes is a
valid question (the last one counts) and an answer in a box, of which there are four: votes agree and differ as dice do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SHAPES: dict[str, dict[str, Any]] = {
    # config.json of Qwen/Qwen3-0.6B-Base
    "qwen3-0.6b": {
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 32_768,
        "rope_theta": 1_000_000,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "rope_theta": 10_000,
    },
}
BOXES = 4
SPECIALS = ("<|pad|>", "<|end|>", "<|unknown|>")


def spelled(token: int) -> str:
    """How a token is spelled: numbers up to the vocabulary's size, in words that a question may hold.

    >>> spelled(7)
    '<question> what is w7 of a w7 ? </question> \\\\boxed{3}'
    """
    return f"<question> what is w{token} of a w{token} ? </question> \\boxed{{{token % BOXES}}}"


def write_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """Write a tokenizer whose tokens are SPECIALS and then ``words``, and which reads what stands between blanks."""
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *words])}
    pad, end, unknown = SPECIALS
    backend = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token=pad, eos_token=end, unk_token=unknown
    ).save_pretrained(folder)


def write_model(shape: str, folder: Path, dtype: str) -> int:
    """Write config.json, weights and tokenizer of ``shape`` to ``folder``.

    Returns:
        the number of parameters.
    """
    torch.manual_seed(0)
    size = SHAPES[shape]
    config = Qwen3Config(**size, tie_word_embeddings=True, rms_norm_eps=1e-6, eos_token_id=1, pad_token_id=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model: Any = Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]
        model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder)
    write_tokenizer(folder, [spelled(i) for i in range(len(SPECIALS), size["vocab_size"])])
    return sum(parameter.numel() for parameter in model.parameters())
