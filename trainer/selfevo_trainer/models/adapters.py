"""Low-rank adapters on the base model, by peft: made, loaded, saved without the base, merged into it.

A folder with an adapter is one that peft saved, with the base's config.json and generation_config.json beside it, so
that whoever asks what kind of model it is finds the answer there. `base_model_name_or_path` in adapter_config.json is
the base's address where it is stored, and a folder on this disk where it has been fetched.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.spec.lora import Lora

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_BASE = "base_model_name_or_path"
_OF_THE_BASE = ("config.json", "generation_config.json")


def is_adapter(folder: Path) -> bool:
    """Whether the model in ``folder`` is an adapter on another one."""
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> Path:
    """Where the base of the fetched adapter in ``folder`` lies on this disk."""
    return Path(json.loads((folder / CONFIG).read_bytes())[_BASE])


def whole(folder: Path) -> Path:
    """The folder with all weights: the base of the adapter in ``folder``, or ``folder`` itself."""
    return base_of(folder) if is_adapter(folder) else folder


def form_of(folder: Path) -> tuple[int, list[str]]:
    """Rank of the adapter in ``folder``, and the endings of the names of the modules that it is beside."""
    config = json.loads((folder / CONFIG).read_bytes())
    return int(config["r"]), sorted({name.rpartition(".")[2] for name in config["target_modules"]})


def put_on(folder: Path, base: Path | str) -> None:
    """Name ``base`` as what the adapter in ``folder`` is on. The file is written anew, for it may be a link into
    a cache."""
    file = folder / CONFIG
    config = json.loads(file.read_bytes()) | {_BASE: str(base)}
    config["target_modules"] = sorted(config["target_modules"])  # a set, in another order in each process
    file.unlink()
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def complete(folder: Path, base: Path, address: str) -> None:
    """Make what the trainer saved a folder as it is stored: with the base's address, and the files that identify it."""
    put_on(folder, address)
    for name in _OF_THE_BASE:
        if (base / name).is_file() and not (folder / name).exists():
            shutil.copyfile(base / name, folder / name)


def begin(model: Any, lora: Lora, seed: int) -> Any:
    """``model`` with a new adapter, which changes nothing yet: its second matrix is zero (arXiv 2106.09685, 4.1).

    Raises:
        InputError: a target module is not there, or is the output layer.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a factor of a quotient: it may be any number
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError:
            raise InputError(
                f"grpo.lora.targetModules is {lora.target_modules}, and the model has no such modules: "
                f"{_modules(model)}; name some of them, or leave the field out for all"
            ) from None
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        # TRL computes log-probabilities in pieces from the head's own weight.
        raise InputError(
            f"grpo.lora.targetModules is {lora.target_modules}, and the output layer cannot have an adapter in GRPO "
            "training; leave it out"
        )
    return adapted


def go_on(model: Any, folder: Path, lora: Lora) -> Any:
    """``model``, the base, with the adapter in ``folder``, to be trained further.

    Raises:
        InputError: it is not of the form that ``lora`` asks for.
    """
    config = json.loads((folder / CONFIG).read_bytes())
    if (config["r"], config["lora_alpha"]) != (lora.rank, lora.alpha):
        raise InputError(
            f"grpo.lora has rank {lora.rank} and alpha {lora.alpha}, and the adapter to begin with has rank "
            f"{config['r']} and alpha {config['lora_alpha']}; write those, or begin from full weights"
        )
    return _loaded(model, folder, trainable=True)


def apply(model: Any, folder: Path) -> Any:
    """``model``, the base, with the frozen adapter in ``folder`` merged into it, or beside it.

    In float32 it is merged, which is faster and equal to rounding. In 16 bits a merged weight would be rounded to the
    base's precision, in which what few steps have learnt can vanish: there the product is added to the outputs.
    """
    import torch

    adapted = _loaded(model, folder, trainable=False)
    return adapted.merge_and_unload() if model.dtype == torch.float32 else adapted


def merge(base: Path, folder: Path, dest: Path) -> None:
    """Write whole weights, base and adapter, in float32 sums and the base's type, to ``dest``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(str(base), dtype="auto", local_files_only=True)
    dtype = model.dtype
    merged = _loaded(model.to(torch.float32), folder, trainable=False).merge_and_unload().to(dtype)
    merged.save_pretrained(dest)
    AutoTokenizer.from_pretrained(str(folder), local_files_only=True).save_pretrained(dest)


def _loaded(model: Any, folder: Path, *, trainable: bool) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(
            f"the adapter in {folder} does not fit the base model ({' '.join(str(error).split())[:200]}); it was "
            "trained on another one: set spec.model to that"
        ) from None


def _modules(model: Any) -> str:
    import torch

    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return ", ".join(sorted(names))
