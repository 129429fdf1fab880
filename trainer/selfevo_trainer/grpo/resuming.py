"""A training goes on from its newest checkpoint, and leaves one where it is stopped: ``train(resume_from_checkpoint=)``
of TRL's trainers."""

from __future__ import annotations

from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.errors import DataError, ServiceError, Terminated
from selfevo_trainer.context import NO_DISTRIBUTION, Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo import checkpoints, completions
from selfevo_trainer.grpo.checkpointer import Steps
from selfevo_trainer.grpo.hooks import Hooks, check_finite
from selfevo_trainer.grpo.trainers import Trainer
from selfevo_trainer.models.loading import device
from selfevo_trainer.process.signals import Interrupted


def train_on(context: Context, trainer: Trainer, steps: Steps, hooks: Hooks) -> None:
    """Train to the last step, from the newest checkpoint if there is one.

    From here on a request to stop is noted, to the end of the process: what is trained is then committed.

    Raises:
        Terminated: SIGTERM came; what was done is committed as a checkpoint, if the grace period was long enough.
        DataError: a weight is infinite or NaN, or the hooks' ``check_history`` raised it.
        ServiceError: training ended before its last step.
    """
    checkpointer = hooks.checkpointer
    found = _resume(context, steps)
    if found is not None:
        context.resumed_from = found.update // steps.updates_per_step
        of_its_step = found.completions and completions.read(found.completions, context.rank.number, device())
        trainer.resume_at(found.update, of_its_step or None)
    checkpointer.begins(trainer, found)
    context.progress("training", context.resumed_from or 0, steps.max_steps)
    # Each pass checks whether it is to be the last. After the last one comes the commit, and a request is too late for
    # it: what is uploaded then is kept, within the grace that the pod has.
    context.stop.defer()
    try:
        with context.clock.during("training"):
            _train(trainer, found.state if found else None, hooks)
        checkpointer.finish(stopping=hooks.stopping)
    except DataError:
        checkpointer.uploads.settle()
        checkpoints.clear(context)  # no attempt will go on from them
        raise
    except Terminated:
        raise  # it has waited as long as there was time
    except BaseException:
        checkpointer.uploads.settle(context.stop_by())  # what is on its way is kept
        raise
    if trainer.state.global_step < steps.updates:
        step = trainer.state.global_step // steps.updates_per_step
        raise ServiceError(f"training ended at step {step} of {steps.max_steps} without a reason; try again")


def _resume(context: Context, steps: Steps) -> checkpoints.Found | None:
    """The newest checkpoint, the same in all processes: the first one chooses it."""
    found = checkpoints.latest(context, steps.updates_per_step) if context.rank.first else None
    chosen = collective.broadcast((found.update, found.place) if found else None)
    return found if found or chosen is None else checkpoints.at(context, *chosen)


def _train(trainer: Trainer, checkpoint: Path | None, hooks: Hooks) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Interrupted:
        hooks.stopping = True
    except (RuntimeError, ValueError) as error:
        check_finite(trainer.model, alone=True)  # a model of NaN cannot be sampled from: then that is what went wrong
        if NO_DISTRIBUTION in str(error):
            raise DataError(
                "the model in training computes NaN or infinity, from which nothing can be sampled; lower learningRate "
                "or set spec.model.dtype to float32 or bfloat16",
                reason=reasons.NOT_FINITE,
            ) from error
        raise
    check_finite(trainer.model)
