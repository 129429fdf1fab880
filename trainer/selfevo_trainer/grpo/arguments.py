"""Arguments that all of TRL's trainers have in common, whatever they train."""

from __future__ import annotations

from typing import Any

import torch

from selfevo_contract.phases import Loading


def common_arguments(loading: Loading) -> dict[str, Any]:
    """Arguments of `transformers.TrainingArguments`: precision by the machine and the run's dtype, checkpoints and logs
    by our own hooks."""
    on_cpu = not torch.cuda.is_available()
    return {
        "use_cpu": on_cpu,
        "bf16": not on_cpu and loading.dtype == "bfloat16",
        "fp16": not on_cpu and loading.dtype == "float16",
        "save_strategy": "no",  # `hooks.Hooks` asks for saves
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite is to be seen, not replaced by the one before
        "report_to": "none",
        "disable_tqdm": True,
    }
