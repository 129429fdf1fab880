"""Tiny models for tests: made from configurations, taught for seconds by the demo's own recipe."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from runs import EXAMPLES, load_script, merged

BASE = EXAMPLES / "arithmetic" / "base"
"""The demo's model: knows both roles, right about half of the time."""
HELDOUT = EXAMPLES / "arithmetic" / "heldout.jsonl"

Architecture = Literal["qwen3", "llama"]
STEPS = 60
"""Enough for nine of ten completions in the Challenger's role to be valid, and too few for right answers."""

SETTINGS: dict[str, Any] = {
    "iterations": 1,
    "challenger": {
        "grpo": {"maxSteps": 3, "promptsPerStep": 2, "numGenerations": 4, "perDeviceTrainBatchSize": 8},
        "reward": {"solverSamples": 4},
    },
    "rollout": {"questions": 40, "samples": 4, "band": {"min": 0.3, "max": 1.0}, "shards": 2},
    "solver": {
        "grpo": {
            "maxSteps": 3,
            "promptsPerStep": 4,
            "promptsPerUpdate": 4,
            "numGenerations": 8,
            "perDeviceTrainBatchSize": 16,
        }
    },
    "evaluation": {"samples": 2},
    "grading": {"method": "exact"},
}
"""Over examples/arithmetic.yaml: whole phases in about a second each."""


def settings(over: dict[str, Any] | None = None, *, questions: Path | None = None) -> dict[str, Any]:
    """SETTINGS with ``over`` laid over them, evaluation and exclusion by ``questions``."""
    data: dict[str, Any] = {}
    if questions is not None:
        named = {"uri": f"file://{questions}"}
        data = {"evaluation": {"tasks": [{"name": "tiny", "data": named}]}, "exclude": [named]}
    made: dict[str, Any] = merged(merged(SETTINGS, data), over or {})
    return made


def write_questions(path: Path, count: int = 8) -> Path:
    """The first ``count`` held-out questions of the demo."""
    path.write_text("".join(HELDOUT.read_text().splitlines(keepends=True)[:count]))
    return path


@cache
def recipe() -> ModuleType:
    """examples/arithmetic/make_base.py."""
    return load_script("make_base", EXAMPLES / "arithmetic" / "make_base.py")


def make(folder: Path, architecture: Architecture) -> Path:
    """Teach a fresh model both roles and save it.

    ``qwen3`` as the demo has it. ``llama`` as OctoThinker's base models come: no chat template, no padding token.
    """
    import torch

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = recipe()
        tokenizer = base.build_tokenizer()
        model = base.build_model(tokenizer)
        if architecture == "llama":
            # Word for word what prompts.plain_text makes of one message, so that the model is taught what it will see.
            tokenizer.chat_template = "{{- 'user: ' + messages[0]['content'] -}}"
            model = _llama(tokenizer)
        base.train(model, tokenizer, base.pretraining_text(0, base.make_heldout()), STEPS)
    base.save(model, tokenizer, folder, "float32")
    if architecture == "llama":
        forget(folder, "chat_template", "pad_token")
    return folder


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM  # transformers annotates no constructor
    return model(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=32,
            intermediate_size=192,
            max_position_embeddings=512,
            initializer_range=0.05,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )
    )


def forget(folder: Path, *names: str) -> None:
    """Take settings out of the folder's tokenizer."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in config.items() if name not in names}))
    if "chat_template" in names:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
