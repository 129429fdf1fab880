"""The state of a sharded training as files of each process's own share: torch.distributed.checkpoint, as safetensors.

    taken                           in the training's thread: this process's share, in CPU memory
    write                           in the checkpoints' threads of all processes together: its files
    load_weights, load_optimizer    into a training of any number of processes, sharded or not

No process holds the whole. A file names of each tensor where it begins within the whole one, so that whoever reads
takes what it holds from all of them. What is the same in all processes (settings of the optimizer, its steps) is in
one file of torch's, as that of a training that is not sharded, and is opened with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from selfevo_contract.errors import ServiceError
from selfevo_trainer.distributed import collective
from selfevo_trainer.grpo.sharding import of_another, own_part, trained_by_index

Share = Mapping[str, torch.Tensor]
"""A process's, by name: tensors that know where in the whole one they lie."""

_WEIGHTS = "weights."
_MOMENTS = "moments."
"""Before the index of the parameter among the optimizer's."""


def taken(model: Any, optimizer: Any) -> tuple[Share, dict[str, Any]]:
    """This process's share of what is trained, and what of the optimizer is the same in all; copies in CPU memory."""
    share: dict[str, torch.Tensor] = {
        f"{_WEIGHTS}{name}": _copy(each) for name, each in model.named_parameters() if each.requires_grad
    }
    state = optimizer.state_dict()
    alike: dict[int, dict[str, Any]] = {}
    for index, values in state["state"].items():
        alike[index] = {}
        for name, value in values.items():
            if isinstance(value, DTensor) and value.ndim:
                share[f"{_MOMENTS}{index}.{name}"] = _copy(value)
            else:
                alike[index][name] = _copy(own_part(value)) if isinstance(value, torch.Tensor) else value
    return share, {"state": alike, "param_groups": state["param_groups"]}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def write(share: Share, folder: Path, group: Any) -> None:
    """Write this process's files. All processes of ``group`` are in it together, and end with an error when one does.

    Raises:
        OSError and the like: here.
        ServiceError: in another process.
    """
    # A file is put together in memory before it is written: one for the weights, one for each kind of moments.
    kinds = sorted({_kind(name) for name in share})
    files = {name: 1 + kinds.index(_kind(name)) for name in share}
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    # All of it lies in CPU memory. By a stream to copy it from a GPU, this thread would open the node's first one.
    writer.per_thread_copy_ahead = 0
    try:
        save(dict(share), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        failures = {rank: failed for rank, (failed, _) in error.failures.items()}
        if (own := failures.get(collective.rank())) is not None:
            raise own from None
        rank, failed = next(iter(failures.items()))
        raise ServiceError(f"process {rank} cannot write its part of a checkpoint: {failed}; try again") from None


def _kind(name: str) -> str:
    return name.rpartition(".")[2] if name.startswith(_MOMENTS) else _WEIGHTS


def lie_in(folder: Path) -> bool:
    """Whether a checkpoint has this form."""
    return any(folder.glob("shard-*.safetensors"))


def load_weights(model: Any, folder: Path) -> None:
    """Put a checkpoint's weights into ``model``; a process of a sharded one reads its own share.

    Raises:
        InputError: they are another model's.
    """
    trained = {f"{_WEIGHTS}{name}": each for name, each in model.named_parameters() if each.requires_grad}
    _read(folder, {name: each.detach() for name, each in trained.items()})


def load_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Put a checkpoint's moments and learning rate into the optimizer.

    Raises:
        InputError: they are another model's.
    """
    state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
    trained = trained_by_index(optimizer, state, folder)
    moments: dict[str, torch.Tensor] = {}
    for name in _sizes(folder):
        if name.startswith(_MOMENTS):
            number, kind = name.removeprefix(_MOMENTS).split(".", 1)
            index = int(number)
            moments[name] = state["state"][index][kind] = torch.zeros_like(trained[index], requires_grad=False)
    _read(folder, moments)
    optimizer.load_state_dict(state)
    scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))


def _sizes(folder: Path) -> dict[str, torch.Size]:
    """Of the whole tensors."""
    found: Any = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: each.size for name, each in found.items()}


def _read(folder: Path, into: Mapping[str, torch.Tensor]) -> None:
    sizes = _sizes(folder)
    for name, tensor in into.items():
        if name not in sizes:
            raise of_another(folder, f"has no {name.removeprefix(_WEIGHTS)}")
        if sizes[name] != tensor.shape:
            found, trained = tuple(sizes[name]), tuple(tensor.shape)
            raise of_another(folder, f"has {name.removeprefix(_WEIGHTS)} of shape {found} for {trained}")
    if not into:  # no update was done: there are no moments
        return
    with torch.no_grad(), _alone():
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Within it torch does not warn that each process reads by itself, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process.*")
        yield
