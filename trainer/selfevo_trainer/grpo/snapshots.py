"""The state of training in CPU memory, and as the files that TRL's trainer resumes from.

    take      in the training's thread, in every process: copies, in seconds
    write     in another thread, of the first process, or of all where they share it: files, while training goes on

What lies in the folder is what Trainer._save_checkpoint writes there, less what `checkpoints.kept_files` leaves out;
of a sharded training weights and moments are `shards`.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME, Trainer

from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo import sharding, shards

RandomState = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """The state after an optimizer update. Nothing of it changes when training goes on."""

    update: int
    """Optimizer updates done."""
    folder: Path
    """Holds the small files already."""
    model: Any
    """Gives the weights' files their form; its own weights are not read."""
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]

    def write(self) -> Path:
        """Write the rest of the files. Returns the folder."""
        self.model.save_pretrained(self.folder, state_dict=dict(self.weights))
        torch.save(self.optimizer, self.folder / OPTIMIZER_NAME)
        return self.folder


@dataclass(frozen=True)
class SharedSnapshot:
    """The same of a sharded training: this process's share."""

    folder: Path
    """Holds the small files already, in the first process."""
    share: shards.Share
    alike: Mapping[str, Any]
    """What of the optimizer is the same in all processes."""
    group: Any
    """Of all processes, for the threads that write."""

    def write(self) -> Path:
        """Write the rest of the files, in all processes at the same time. Returns the folder."""
        shards.write(self.share, self.folder, self.group)
        if collective.rank() == 0:
            torch.save(dict(self.alike), self.folder / OPTIMIZER_NAME)
        return self.folder


def take(trainer: Trainer, folder: Path, state: RandomState, group: Any = None) -> Snapshot | SharedSnapshot | None:
    """The state of ``trainer`` between two optimizer updates; gradients that it has accumulated are none of it.

    Args:
        folder: Of the files.
        state: What the process's random state was when the next update began, or would begin now.
        group: Of a sharded training: all processes, for the threads that write.

    Returns:
        the snapshot; None in a process that is not the first, unless the training is sharded.
    """
    trainer.store_flos()
    args: Any = trainer.args
    name = "rng_state.pth" if args.world_size <= 1 else f"rng_state_{args.process_index}.pth"
    states = collective.all_gather([(name, random_bytes(state))])  # each process alone sees its own
    model: Any = trainer.model
    optimizer: Any = trainer.optimizer
    shared = None
    if sharding.is_sharded(model):
        shared = SharedSnapshot(folder, *shards.taken(model, optimizer), group)
    if collective.rank() != 0:
        return shared
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in states:
        (folder / name).write_bytes(data)
    scheduler: Any = trainer.lr_scheduler
    torch.save(scheduler.state_dict(), folder / SCHEDULER_NAME)
    if trainer.accelerator.scaler is not None:
        torch.save(trainer.accelerator.scaler.state_dict(), folder / SCALER_NAME)
    trainer.state.save_to_json(str(folder / TRAINER_STATE_NAME))
    if shared is not None:
        return shared
    frozen = {_place(each) for each in model.parameters() if not each.requires_grad}
    seen: dict[Any, torch.Tensor] = {}
    weights = {
        name: each if _place(each) in frozen else _copied(each, seen) for name, each in model.state_dict().items()
    }
    return Snapshot(trainer.state.global_step, folder, model, weights, _copied(optimizer.state_dict(), seen))


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _copied(value: Any, seen: dict[Any, torch.Tensor]) -> Any:
    """``value`` in CPU memory of its own; tensors that share theirs (tied weights) share the copy's."""
    if isinstance(value, torch.Tensor):
        place = _place(value)
        if place not in seen or value.numel() == 0:
            seen[place] = value.detach().to("cpu", copy=True)
        return seen[place]
    if isinstance(value, Mapping):
        return {name: _copied(each, seen) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each, seen) for each in value)
    return value


def random_state() -> RandomState:
    """This process's, as Trainer saves it."""
    state: RandomState = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = (
            torch.cuda.random.get_rng_state_all() if collective.grouped() else torch.cuda.random.get_rng_state()
        )
    return state


def set_random_state(state: RandomState) -> None:
    """Put it back."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.random.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        if isinstance(state["cuda"], list):
            torch.cuda.random.set_rng_state_all(state["cuda"])
        else:
            torch.cuda.random.set_rng_state(state["cuda"])


def random_bytes(state: RandomState) -> bytes:
    """As the file that Trainer reads: torch's format, which it opens as weights only."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()
