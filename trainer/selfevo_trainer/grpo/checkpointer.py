"""When a checkpoint is taken, what of it is missing in the store, and what is still saved when training is stopped.

update_begins    the random state that a broken-off update begins with again
is_due           after each optimizer update: by steps or by time
due_unscored     when a step's completions are there and not all scored: by time, or beside a state that is in the store
hand_over        snapshot now, in all processes; upload beside the training, by the first, or by all of a sharded one
finish           after training: what is on its way is waited for, as long as the pod's grace allows
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from selfevo_contract.artifacts import ManifestDraft
from selfevo_contract.errors import Terminated
from selfevo_contract.sizing.fit import BYTES_OF_STATE
from selfevo_contract.sizing.grace import too_short
from selfevo_contract.spec.names import seconds_of
from selfevo_store import new_write_id
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo import checkpoints, completions, snapshots
from selfevo_trainer.grpo.checkpoints import Shared
from selfevo_trainer.grpo.completions import StepCompletions
from selfevo_trainer.grpo.snapshots import SharedSnapshot, Snapshot
from selfevo_trainer.grpo.trainers import Trainer
from selfevo_trainer.grpo.uploads import Uploads

log = logging.getLogger("selfevo")


class Steps(Protocol):
    """What checkpoints and progress know of a training's settings (`Grpo`, or a judge's)."""

    @property
    def max_steps(self) -> int:
        """How many steps it has."""

    @property
    def updates(self) -> int:
        """How many optimizer updates it has."""

    @property
    def updates_per_step(self) -> int:
        """How many of them a step has."""

    @property
    def sharded(self) -> bool:
        """Whether processes share out what is trained."""


class Checkpointer:
    """Of one training. Its methods are called in all processes, in the same order."""

    trainer: Trainer
    """Set when it is made."""

    def __init__(self, context: Context, steps: Steps) -> None:
        self.context = context
        self.steps = steps
        self.uploads = Uploads()
        """The first process's, and those of all in a sharded training; else the others' are idle."""
        every = context.config.checkpoint_every
        self._steps = every if isinstance(every, int) else None
        self._seconds = None if isinstance(every, int) else seconds_of(every)
        self._taken_at = time.monotonic()
        self._random = snapshots.random_state()
        self._state_of: int | None = None
        self._completions_of: tuple[int, str] | None = None
        """The updates whose state, and whose step's completions, lie in the store or are on their way there."""
        self._found = False
        """Training goes on from a checkpoint."""
        self._state_bytes: int | None = None
        self._state_rate: float | None = None
        """Bytes of the newest state that was uploaded, and how many of them a second, writing to the disk included."""
        self._group: Any = None

    def begins(self, trainer: Trainer, found: checkpoints.Found | None) -> None:
        """Training begins, or goes on from ``found``."""
        self.trainer = trainer
        self._found = found is not None
        if found is not None:
            self._state_of = found.update
            self._completions_of = None if found.place is None else (found.update, found.place)
        if self.context.checkpoint_bytes is None:  # else the preflight has warned
            self._advise()
        if self.steps.sharded:
            self._group = collective.apart()
        self._taken_at = time.monotonic()

    def update_begins(self) -> None:
        """An optimizer update begins, or could: one that is broken off is begun again with the same random state."""
        self._random = snapshots.random_state()

    def is_due(self) -> bool:
        """Whether this process asks for a checkpoint, after an optimizer update.

        By steps, it waits until the one before is done; a request to stop ends the waiting.

        Raises:
            whatever the newest upload raised.
        """
        self.uploads.check()
        update = self.trainer.state.global_step
        if update >= self.steps.updates:
            return False  # after the last one comes the model itself
        if self._seconds is not None:
            return self._idle() and self._by_time()
        step, within = divmod(update, self.steps.updates_per_step)
        if within or step % (self._steps or 1):
            return False
        if self.context.rank.first:  # its upload ends when all have; the others may be asked to stop without it
            with self.context.clock.during("checkpoint"):
                self.uploads.wait(unless=lambda: self.context.stop.requested)
        return True

    def should_add_completions(self) -> bool:
        """Whether the state that the step under way began with is in the store and its completions are not.

        With them, whoever is killed from now on goes on without generating again.
        """
        state, rest = self._missing()
        return not state and rest and self._idle()

    def due_unscored(self) -> tuple[bool, bool]:
        """Whether a step's completions are to go to the store before they are all scored, and whether the state that
        they were generated with is to go there with them."""
        state, rest = self._missing()
        due = state and self._by_time()
        return self._idle() and rest and (due or not state), self._idle() and due

    def hand_over(self, *, state: bool = True) -> None:
        """Take a snapshot, of the state or of the step's completions alone, and have it uploaded."""
        context, update = self.context, self.trainer.state.global_step
        folder = Path(str(self.trainer.args.output_dir))
        rest: Sequence[StepCompletions] = []
        taken: Snapshot | SharedSnapshot | None = None
        shared: Shared | None = None
        with context.clock.during("checkpoint"):
            draft = context.draft()
            if state and self._group is not None:
                shared = Shared(collective.broadcast(new_write_id()), self._group)
                self.uploads.wait()  # a process may be a moment behind the first one, which is done
            if self._missing()[1]:
                kept = self.trainer.kept
                assert kept is not None
                rest = collective.all_gather([kept.on_cpu()])
                self._completions_of = update, kept.place
            if state:
                place = folder / f"{PREFIX_CHECKPOINT_DIR}-{update}"
                taken = snapshots.take(self.trainer, place, self._random, self._group)
                self._state_of, self._taken_at = update, time.monotonic()
        rest = rest if context.rank.first else []
        if context.rank.first or shared:
            self.uploads.start(lambda: self._upload(draft, taken, rest, folder, update, shared))

    def finish(self, *, stopping: bool) -> None:
        """Training has ended: wait for what is on its way; where it was stopped, save the state of now as well.

        Raises:
            Terminated: it was stopped before its last update.
            whatever the newest upload raised.
        """
        if self.trainer.state.global_step >= self.steps.updates or not stopping:
            with self.context.clock.during("checkpoint"):
                self.uploads.wait()
            return
        until = self._until()
        with self.context.clock.during("checkpoint"):
            # First what is on its way: there may be time for no other.
            whole = self.uploads.wait(until)
            state, rest = self._missing()
            if collective.broadcast(whole and (rest or state) and (not state or self._fits(until))):
                self.hand_over(state=state)
                whole = self.uploads.wait(until)
            else:
                whole = whole and not state
            # A rank that went on to its end would count as failed.
            collective.wait_for_all()
        raise Terminated(self._stopped(whole=whole))

    def _upload(
        self,
        draft: ManifestDraft,
        taken: Snapshot | SharedSnapshot | None,
        rest: Sequence[StepCompletions],
        folder: Path,
        update: int,
        shared: Shared | None,
    ) -> None:
        """In the other thread. The completions come first: a checkpoint within a step is none without them."""
        if taken is not None and self.context.rank.first:
            checkpoints.remove_completions(self.context, update)
        if rest:
            inside = folder / f"completions-{update}"
            for process, kept in enumerate(rest):
                completions.write(inside, process, kept)
            checkpoints.save_completions(self.context, draft, inside, update, rest[0].place)
        if taken is not None:
            begun = time.monotonic()
            saved = checkpoints.save(self.context, draft, taken.write(), update, self.steps.updates_per_step, shared)
            self._state_bytes, self._state_rate = saved, saved / max(time.monotonic() - begun, 1e-6)
            self._advise(self._state_rate)

    def _until(self) -> float | None:
        """The end of the grace by time.monotonic(): the first to come of all processes, for only some may have been
        asked, and all end together."""
        now, own = time.monotonic(), self.context.stop_by()
        left = [each for each in collective.all_gather([None if own is None else own - now]) if each is not None]
        return now + min(left) if left else None

    def _idle(self) -> bool:
        return self.context.rank.first and not self.uploads.busy

    def _by_time(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._taken_at >= self._seconds

    def _missing(self) -> tuple[bool, bool]:
        """Whether the state of now is not in the store, and whether its step has completions that are not."""
        update, kept = self.trainer.state.global_step, self.trainer.kept
        if kept is None or kept.first_update != self.trainer.first_update:
            return self._state_of != update and update > 0, False
        return self._state_of != update, self._completions_of != (update, kept.place)

    def _fits(self, until: float | None) -> bool:
        """Whether the state can be uploaded in time, by how long the newest one took: completions are too small for a
        rate that holds for it."""
        if until is None or self._state_rate is None or self._state_bytes is None:
            return True
        needed, left = self._state_bytes / self._state_rate, until - time.monotonic()
        if needed > left:
            log.warning("no checkpoint is taken now: it takes about %.0f s, and there are %.0f s left", needed, left)
        return needed <= left

    def _advise(self, measured: float | None = None) -> None:
        """Say when the pod's grace is too short for a checkpoint."""
        grace = self.context.grace_seconds
        if grace is None or not self.context.rank.first:
            return
        model: Any = self.trainer.model
        trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
        size = self._state_bytes or BYTES_OF_STATE * trained
        if measured is not None:  # of all processes together
            advice = too_short(grace, size, measured, measured=True)
        else:
            advice = too_short(grace, size, processes=self.context.rank.size if self.steps.sharded else 1)
        if advice:
            log.warning("%s", advice)

    def _stopped(self, *, whole: bool) -> str:
        update = self.trainer.state.global_step
        done, of_step = divmod(update, self.steps.updates_per_step)
        total = self.steps.max_steps
        begun = of_step or (self._completions_of is not None and self._completions_of[0] == update)
        where = f"in step {done + 1} of {total}" if begun or not done else f"after step {done} of {total}"
        if whole and self._state_of is not None:
            return f"stopped on request {where}; the checkpoint is committed"
        if whole:
            return f"stopped on request {where}, of which nothing could be kept yet; it begins again"
        then = "goes on from the checkpoint before it" if self._found or self._state_bytes else "begins anew"
        return (
            f"stopped on request {where}; the time was too short to upload that, and the next attempt {then}: raise "
            "pods.terminationGracePeriodSeconds"
        )
