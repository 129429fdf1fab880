"""A step's completions with their rewards, kept beside a checkpoint: a resumed step does not make them again.

Each process has its own, as TRL's `_generate_and_score_completions` returns them: tokens, masks, advantages, and
log-probabilities where they are needed. Beside them lies what else generation changed: the process's random state, the
metrics and the count of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from selfevo_trainer.grpo.checkpoints import completion_files
from selfevo_trainer.grpo.snapshots import RandomState


@dataclass(frozen=True)
class StepCompletions:
    """One process's completions of one step."""

    first_update: int
    """Optimizer updates that were done when they were generated."""
    made: Mapping[str, Any]
    random: RandomState
    """Right after."""
    metrics: Mapping[str, list[float]]
    """What generation adds to the metrics of the step's first update."""
    tokens_seen: int

    def on_cpu(self) -> StepCompletions:
        """The same in CPU memory of its own."""
        made = {
            name: value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value
            for name, value in self.made.items()
        }
        return StepCompletions(self.first_update, made, self.random, self.metrics, self.tokens_seen)


def write(folder: Path, process: int, kept: StepCompletions) -> None:
    """As files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value for name, value in kept.made.items() if isinstance(value, torch.Tensor)}
    other = {name: value for name, value in kept.made.items() if name not in tensors}
    in_tensors, in_json, in_random = (folder / name for name in completion_files(process))
    save_file(tensors, in_tensors)
    about = {"firstUpdate": kept.first_update, "metrics": kept.metrics, "tokensSeen": kept.tokens_seen, "made": other}
    in_json.write_text(json.dumps(about))
    torch.save(kept.random, in_random)


def read(folder: Path, process: int, device: Any) -> StepCompletions:
    """What ``write`` wrote, its digests checked before; tensors on ``device``."""
    in_tensors, in_json, in_random = (folder / name for name in completion_files(process))
    about = json.loads(in_json.read_text())
    allowed: Any = safe_globals  # numpy's part of it
    with allowed():
        random = torch.load(in_random, weights_only=True)
    made = {**load_file(in_tensors, device=str(device)), **about["made"]}
    return StepCompletions(about["firstUpdate"], made, random, about["metrics"], about["tokensSeen"])
