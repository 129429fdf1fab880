"""What happens beside TRL's training: progress, requests to stop, clocks, weights that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from selfevo_contract import reasons
from selfevo_contract.errors import DataError
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo import sharding
from selfevo_trainer.grpo.checkpointer import Checkpointer, Steps
from selfevo_trainer.process.pace import UpdatePace
from selfevo_trainer.process.signals import Interrupted
from selfevo_trainer.rewards.base import RewardFunction

SHOWN = ("reward", "kl", "entropy", "completions/mean_length", "mean_token_accuracy", "accuracy")
"""What a line of progress shows of TRL's metrics."""


class Hooks(TrainerCallback):
    """Says how far training is, has checkpoints taken, stops on request."""

    def __init__(
        self,
        context: Context,
        steps: Steps,
        checkpointer: Checkpointer,
        check_history: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        self.context = context
        self.steps = steps
        self.checkpointer = checkpointer
        self.check_history = check_history
        self.shown: dict[str, float] = {}
        self.pace = UpdatePace(lambda: context.clock.tokens * context.rank.size)
        self.stopping = False
        """Some process was asked to stop, and all of them do."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.pace.begins(state.global_step)

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.checkpointer.update_begins()

    def on_substep_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        # SIGTERM reaches the processes at different moments; they stop after the same pass.
        self.stopping, keep = collective.any_ranks(
            [self.context.stop.requested, self.checkpointer.should_add_completions()]
        )
        if self.stopping:
            control.should_training_stop = True
        elif keep:
            self.checkpointer.hand_over(state=False)
        return control

    def on_unscored(self) -> None:
        """A step's completions are there, and scoring all of them may take long: the Challenger's are answered first.

        Raises:
            Interrupted: in all processes, when some process was asked to stop.
        """
        unscored, state = self.checkpointer.due_unscored()
        stopping, unscored, state = collective.any_ranks([self.context.stop.requested, unscored, state])
        if stopping:
            raise Interrupted("stopped on request before all completions of a step were scored")
        if unscored:
            self.checkpointer.hand_over(state=state)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> TrainerControl:
        # Now: to sample from NaN on a GPU ends the process with an assertion of the device, which says nothing.
        check_finite(model)
        self.checkpointer.update_begins()
        due = self.checkpointer.is_due()
        self.stopping, due = collective.any_ranks([self.context.stop.requested, due])
        if self.stopping:
            control.should_training_stop = True
        elif due:
            control.should_save = True
        return control

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Only now this update has its row in the history.
        self.checkpointer.hand_over()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if self.context.rank.first:
            # What is measured once a step stays until the next one.
            self.shown |= {name: round(logs[name], 4) for name in SHOWN if isinstance((logs or {}).get(name), float)}
            # TRL's global_step counts updates.
            if self.steps.updates_per_step > 1:
                self.shown["update"] = float(state.global_step)
            done = state.global_step // self.steps.updates_per_step
            self.pace.did(state.global_step, self.steps.updates)
            self.context.progress("training", done, self.steps.max_steps, self.shown, self.pace)
            self.context.tracking.update(state.global_step, logs or {})
        # Of the whole history, which checkpoints carry on: the verdict is the same however often training was resumed.
        self.check_history(state.log_history)


def timed_reward(context: Context, reward: RewardFunction) -> RewardFunction:
    """``reward``, its time counted."""

    def timed(*args: Any, **kwargs: Any) -> list[float]:
        with context.clock.during("reward"):
            return reward(*args, **kwargs)

    timed.__name__ = getattr(reward, "__name__", type(reward).__name__)
    return timed


def check_finite(model: Any, *, alone: bool = False) -> None:
    """Raises DataError when a weight is infinite or NaN; in all processes that share the weights out among them, unless
    this one asks ``alone``."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    # The device is waited for once, not for each of hundreds of parameters: this is asked after each update.
    finite = torch.stack([torch.isfinite(sharding.own_part(each)).all() for each in parameters]).tolist()
    if sharding.is_sharded(model) and not alone:
        finite = [not found for found in collective.any_ranks([not each for each in finite])]
    if not all(finite):
        name = names[finite.index(False)]
        raise DataError(
            f"training made {name} infinite or NaN; lower learningRate or maxGradNorm", reason=reasons.NOT_FINITE
        )
