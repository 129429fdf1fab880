"""A step's completions, kept beside a checkpoint: a resumed step does not make them again.

Each process has its own. When they are scored they are what TRL's `_generate_and_score_completions` returns: tokens,
masks, advantages, and log-probabilities where they are needed. Before, they are what `_generate_single_turn` returned:
tokens, and vLLM's log-probabilities; and what a reward function that works in parts knows of them. Before all are
generated, they are the parts of them that are: prompts and completions as transformers' `generate` returns them. Beside
them lies what else making them changed: the process's random state, the metrics and the count of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from selfevo_contract.artifacts import COMPLETIONS, GENERATED, GENERATING, in_parts
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
    """What generating and scoring add to the metrics of the step's first update; nothing yet before they are scored."""
    tokens_seen: int
    """TRL's count: before they are scored without the step's own, which it adds then."""
    scored: bool = True
    generated_parts: int | None = None
    """How many parts of them all processes have; None when each has all."""

    @classmethod
    def unscored(
        cls, first_update: int, ids: Any, logprobs: Any, random: RandomState, tokens_seen: int
    ) -> StepCompletions:
        """Those that are not scored."""
        made = {"ids": ids, "logprobs": logprobs, "parts": []}
        return cls(first_update, made, random, {}, tokens_seen, scored=False)

    @classmethod
    def partial(
        cls, first_update: int, parts: Sequence[torch.Tensor], random: RandomState, tokens_seen: int, number: int
    ) -> StepCompletions:
        """Those that are not all generated."""
        made = {_part(i): part for i, part in enumerate(parts)}
        return cls(first_update, made, random, {}, tokens_seen, scored=False, generated_parts=number)

    @property
    def so_far(self) -> list[torch.Tensor]:
        """The parts of those that are not all generated."""
        return [self.made[_part(i)] for i in range(len(self.made))]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What is known of those that are not all scored; it grows."""
        known: list[dict[str, Any]] = self.made["parts"]
        return known

    @property
    def place(self) -> str:
        """Below a checkpoint."""
        if self.generated_parts is not None:
            return in_parts(GENERATING, self.generated_parts)
        return COMPLETIONS if self.scored else in_parts(GENERATED, len(self.parts))

    def on_cpu(self) -> StepCompletions:
        """The same in CPU memory of its own."""
        made = {name: _copied(value) for name, value in self.made.items()}
        return replace(self, made=made)


def _part(number: int) -> str:
    return f"part-{number:05d}"


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    return list(value) if isinstance(value, list) else value


def write(folder: Path, process: int, kept: StepCompletions) -> None:
    """As files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value for name, value in kept.made.items() if isinstance(value, torch.Tensor)}
    other = {name: value for name, value in kept.made.items() if name not in tensors}
    in_tensors, in_json, in_random = (folder / name for name in completion_files(process))
    save_file(tensors, in_tensors)
    about = {
        "firstUpdate": kept.first_update,
        "metrics": kept.metrics,
        "tokensSeen": kept.tokens_seen,
        "scored": kept.scored,
        "generatedParts": kept.generated_parts,
        "made": other,
    }
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
    scored = about.get("scored", True)  # earlier trainers kept no others
    return StepCompletions(
        about["firstUpdate"], made, random, about["metrics"], about["tokensSeen"], scored, about.get("generatedParts")
    )
