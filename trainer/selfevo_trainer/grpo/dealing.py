"""Which prompts a step has, and which completions an update of it; where they are generated, and where not again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from selfevo_contract.canonical import derive_seed
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo import sharding, shards
from selfevo_trainer.grpo.completions import StepCompletions
from selfevo_trainer.grpo.snapshots import RandomState, random_state, set_random_state
from selfevo_trainer.process.signals import StopRequest
from selfevo_trainer.prompts import encode_all
from selfevo_trainer.rewards.base import InParts


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
    """TRL's trainer, with our tokens of prompts and our order of a step's completions, which are kept and restored."""

    kept: StepCompletions | None = None
    """This process's completions of the newest step, for a checkpoint."""
    restored: StepCompletions | None = None
    """Those of the step that a checkpoint was taken in: they take the place of its generation, or of a part of it,
    once; where they are scored, of the scoring too."""
    in_parts: InParts | None = None
    """The reward function, if it is one."""
    stop: StopRequest | None = None
    on_unscored: Callable[[], None] | None = None
    """Called in all processes when a step's completions are there, and between two parts of their scoring."""

    def resume_at(self, update: int, restored: StepCompletions | None) -> None:
        """Go on from a checkpoint: what TRL's does not hold of its own accord."""
        args: Any = self.args
        self._step = update * args.gradient_accumulation_steps
        self.restored = restored

    @property
    def first_update(self) -> int:
        """Optimizer updates that were done when the step under way began."""
        args: Any = self.args
        of_a_step: int = args.steps_per_generation // args.gradient_accumulation_steps * self.num_iterations
        return self.state.global_step // of_a_step * of_a_step

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Nothing here: `hooks.Hooks.on_save` takes a snapshot."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if shards.lie_in(folder):
            shards.load_weights(self.model, folder)
        elif sharding.is_sharded(self.model):
            sharding.load_weights(self.model, folder)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and shards.lie_in(Path(checkpoint)):
            shards.load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))
        elif checkpoint is not None and sharding.is_sharded(self.model):
            sharding.load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))
        else:
            of_trainer: Any = super()
            of_trainer._load_optimizer_and_scheduler(checkpoint)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        restored, metrics = self.restored, self._metrics["train"]
        if restored is None or not restored.scored:
            # No weight changes in here: alone, a process ends at once when it is asked to. Several agree first.
            at_once = self.stop.raised() if self.stop and not collective.grouped() else contextlib.nullcontext()
            before = {name: len(values) for name, values in metrics.items()}
            with at_once:
                made: dict[str, Any] = super()._generate_and_score_completions(inputs)
            added = {name: values[before.get(name, 0) :] for name, values in metrics.items()}
            self.kept = StepCompletions(
                self.first_update, made, random_state(), added, int(self.state.num_input_tokens_seen)
            )
            return made
        self.kept, self.restored = restored, None
        self.state.num_input_tokens_seen = restored.tokens_seen
        if self.state.global_step == restored.first_update:  # else the first update's metrics had them
            for name, values in restored.metrics.items():
                metrics[name].extend(values)
        set_random_state(restored.random)
        return dict(restored.made)

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[list[list[int]], list[list[float]] | None]:
        restored = self.restored
        if restored is None or restored.generated_parts is not None:
            seen = int(self.state.num_input_tokens_seen)
            of_trl: Any = super()
            ids, logprobs = of_trl._generate_single_turn(*args, **kwargs)
            kept = StepCompletions.unscored(self.first_update, ids, logprobs, random_state(), seen)
        else:
            kept, self.restored = restored, None
            self.state.num_input_tokens_seen = kept.tokens_seen
            set_random_state(kept.random)
        self.kept = kept
        if self.in_parts is not None:
            self.in_parts.parts = kept.parts
        self.unscored()
        return kept.made["ids"], kept.made["logprobs"]

    def take_parts(self) -> tuple[list[torch.Tensor], RandomState] | None:
        """`generation.Keeper`'s."""
        restored, self.restored = self.restored, None
        return None if restored is None else (restored.so_far, restored.random)

    def keep_parts(self, parts: Sequence[torch.Tensor], random: RandomState, number: int) -> None:
        """`generation.Keeper`'s."""
        seen = int(self.state.num_input_tokens_seen)
        self.kept = StepCompletions.partial(self.first_update, parts, random, seen, number)

    def unscored(self) -> None:
        """A moment at which a step's completions can be kept before they are all scored.

        Raises:
            Interrupted: a request to stop has come.
        """
        if self.on_unscored is not None and self.stop is not None:
            with self.stop.deferred():  # a snapshot is taken whole
                self.on_unscored()
            if not collective.grouped():
                self.stop.check()

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        within = self.restored is not None and self.state.global_step != self.restored.first_update
        at_update = random_state() if within else None
        prepared = self._dealt(generation_batch)
        if at_update is not None:  # the step was dealt out anew, as it had been before its first update
            set_random_state(at_update)
        return prepared

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # TRL's own would read control tokens that a question spells.
        return encode_all(self.processing_class, prompts), None, {}

    def _dealt(self, generation_batch: Any) -> dict[str, Any]:
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
            seed = derive_seed(args.seed, "step", self.first_update)
            order = deal(rows, updates, collective.rank() * rows, seed)
            dealt = {name: _taken(values, order) for name, values in made.items()}
            buffered = split_tensor_dict(dealt, passes)
            setattr(self, "_buffered_inputs", buffered)  # noqa: B010  TRL declares it None
        return dict(buffered[self._step % passes])


def _taken(values: Any, order: list[int]) -> Any:
    """``values`` in ``order``; a value for all rows at once stays."""
    if isinstance(values, list):
        return [values[row] for row in order]
    return values[order] if isinstance(values, torch.Tensor) and values.ndim else values
