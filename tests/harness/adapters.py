"""Adapters for tests that are not trained: random, and as large as a test wants them."""

from __future__ import annotations

from pathlib import Path

from harness.tiny import BASE
from selfevo_contract.spec.lora import Lora
from selfevo_trainer.models import adapters


def an_adapter(folder: Path, *, rank: int = 3, std: float = 0.02, seed: int = 1) -> Path:
    """An adapter on the demo's base. With a ``std`` of .02 it says other things than the base does."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    adapted = adapters.begin(model, Lora(rank=rank, alpha=2.0 * rank), seed=0)
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    adapters.complete(folder, BASE, str(BASE))
    return folder
