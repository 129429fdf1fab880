"""Which prompts a step has, and which completions an update of it."""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from selfevo_contract.canonical import derive_seed
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.distributed import collective
from selfevo_trainer.prompts import encode_all


def schedule(rows: int, grpo: Grpo, seed: int) -> list[int]:
    """Which row each prompt of the whole training takes: permutations of all rows, one after another.

    TRL drops what does not fill a batch and starts an epoch anew; a data set with exactly the prompts of all steps has
    one epoch and drops nothing, also when the curriculum has fewer rows than a step has prompts.

    Returns:
        row numbers, promptsPerStep for each step.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "schedule"))
    needed = grpo.max_steps * grpo.prompts_per_step
    order: list[int] = []
    while len(order) < needed:
        order += torch.randperm(rows, generator=generator).tolist()
    return order[:needed]


def deal(rows: int, updates: int, first: int, seed: int) -> list[int]:
    """The order in which a process takes its completions of a step, for several updates.

    Of each ``updates`` neighbouring completions of the whole step every update gets one, drawn at random. So an update
    has the same completions in all, however many processes there are; TRL's own shuffle is within each process.

    Args:
        rows: completions of this process; ``updates`` divides them.
        first: number of its first completion in the whole step.

    Returns:
        row numbers: the first update's ``rows / updates``, then the second's, and so on.
    """
    drawn = []
    for start in range(0, rows, updates):
        generator = torch.Generator().manual_seed(derive_seed(seed, "deal", first + start))
        drawn.append((start + torch.randperm(updates, generator=generator)).tolist())
    return [row for update in zip(*drawn, strict=True) for row in update]


class DealingTrainer(GRPOTrainer):
    """TRL's trainer, with our tokens of prompts and our order of a step's completions."""

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # TRL's own would read control tokens that a question spells.
        return encode_all(self.processing_class, prompts), None, {}

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        # As TRL's own, with `deal` in place of its shuffle. A step of one update has nothing to deal out.
        args: Any = self.args
        passes: int = args.steps_per_generation
        updates = passes // args.gradient_accumulation_steps
        if updates == 1:
            prepared: dict[str, Any] = super()._prepare_inputs(generation_batch)
            return prepared
        buffered: Any = self._buffered_inputs
        if self._step % (passes * self.num_iterations) == 0 or buffered is None:
            made = self._generate_and_score_completions(generation_batch)
            rows = len(made["completion_ids"])
            seed = derive_seed(args.seed, "step", self.state.global_step)
            order = deal(rows, updates, collective.rank() * rows, seed)
            dealt = {name: _taken(values, order) for name, values in made.items()}
            buffered = split_tensor_dict(dealt, passes)
            setattr(self, "_buffered_inputs", buffered)  # noqa: B010  TRL declares it None
        return dict(buffered[self._step % passes])


def _taken(values: Any, order: list[int]) -> Any:
    """``values`` in ``order``; what is said of all rows at once stays."""
    if isinstance(values, list):
        return [values[row] for row in order]
    return values[order] if isinstance(values, torch.Tensor) and values.ndim else values
