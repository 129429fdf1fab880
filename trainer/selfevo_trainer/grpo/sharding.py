"""One training's weights, reference, gradients and moments, shared out over its processes: FSDP2 by accelerate and TRL.

The model that is saved is whole and of the form that one process writes: it is gathered one tensor at a time, into the
first process's CPU memory. Checkpoints are files of each process's share (`shards`), and are read by any number of
processes, sharded or not; so are those that one process wrote, of whose tensors each process takes its own part. Files
are read as safetensors, and with ``weights_only=True`` where they are torch's, after their digests were checked.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import safe_open
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from trl.trainer import grpo_trainer
from trl.trainer.grpo_config import GRPOConfig

from selfevo_contract.errors import InputError
from selfevo_contract.phases import Loading
from selfevo_trainer.distributed import collective

ARGUMENTS: dict[str, Any] = {
    "fsdp": True,
    # The layers are those that the model says may not be split.
    "fsdp_config": {"version": 2, "reshard_after_forward": True, "state_dict_type": "FULL_STATE_DICT"},
}
"""GRPOConfig's."""
_FIELD = "grpo.sharding"


def arguments(loading: Loading, *, offloaded: bool = False) -> dict[str, Any]:
    """GRPOConfig's for a sharded training, its shares in CPU memory where ``offloaded``.

    Raises:
        InputError: the machine or the dtype cannot have one.
    """
    check_machine(loading)
    if not offloaded:
        return ARGUMENTS
    # What lies in CPU memory is summed over the processes there, by gloo beside NCCL: accelerate makes both, if these
    # say so before GRPOConfig, which opens the process group.
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}
    return {**ARGUMENTS, "fsdp_config": {**ARGUMENTS["fsdp_config"], "cpu_offload": True}}


def check_machine(loading: Loading) -> None:
    """Raises InputError where accelerate would train whole copies instead, or gradients would need a scale."""
    if loading.dtype == "float16":
        raise InputError(f"{_FIELD} is 'fsdp', and spec.model.dtype is 'float16'; set spec.model.dtype to bfloat16")
    if not torch.cuda.is_available():
        raise InputError(f"{_FIELD} is 'fsdp', and there is no GPU here; remove {_FIELD}")


def in_float32(args: GRPOConfig) -> GRPOConfig:
    """Have gradients summed over the processes in float32 where the passes compute in bfloat16; accelerate's own policy
    would sum them in bfloat16."""
    plugin: Any = args.fsdp_plugin_args
    if plugin is not None and args.bf16:
        # Outputs stay as they are computed: the last norm and the output layer would not fit together otherwise.
        plugin["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
    return args


def is_sharded(model: Any) -> bool:
    """Whether its weights are shared out over the processes."""
    return isinstance(model, FSDPModule)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of ``tensor``; all of one that is not shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextlib.contextmanager
def reference_by_layers() -> Iterator[None]:
    """Within it TRL loads a reference to the CPU and shards it as accelerate does the policy. Its own way would load it
    over all of the node's GPUs, and shard it as one piece, which is whole on the GPU at the start and in each pass."""
    module: Any = grpo_trainer
    real, load = module.prepare_fsdp, module.create_model_from_path

    def by_layers(model: Any, accelerator: Accelerator) -> Any:
        plugin: Any = accelerator.state.fsdp_plugin
        layers = set(getattr(model, "_no_split_modules", None) or ())
        for each in list(model.modules()):
            if type(each).__name__ in layers:
                policy = plugin.mixed_precision_policy or MixedPrecisionPolicy()
                fully_shard(each, mp_policy=policy, offload_policy=plugin.cpu_offload)
        return real(model, accelerator)

    module.prepare_fsdp, module.create_model_from_path = by_layers, functools.partial(load, device_map=None)
    try:
        yield
    finally:
        module.prepare_fsdp, module.create_model_from_path = real, load


# --- whole, in the first process's CPU memory -------------------------------------------------------------------------


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """What is trained of ``model``, by the names of its state; tied weights share one tensor. Asked in all processes;
    empty in all but the first."""
    state = model.state_dict()
    owners = dict(model.named_parameters(remove_duplicate=False))
    seen: dict[int, torch.Tensor | None] = {}
    weights = {}
    for name, tensor in state.items():
        owner = owners.get(name)
        if owner is not None and not owner.requires_grad:
            continue
        # By the parameter, not by its place in memory: a process may have none of some, and all have to agree.
        if owner is None or id(owner) not in seen:
            found = _gathered(tensor)
            if owner is not None:
                seen[id(owner)] = found
        else:
            found = seen[id(owner)]
        if found is not None:
            weights[name] = found
    return weights


def _gathered(tensor: torch.Tensor) -> torch.Tensor | None:
    full = tensor
    if isinstance(tensor, DTensor):
        shared: Any = tensor.to(tensor.device_mesh.device_type)  # by the GPUs, also what lies in CPU memory
        full = shared.full_tensor()
    return full.detach().to("cpu", copy=True) if collective.rank() == 0 else None


# --- and back ---------------------------------------------------------------------------------------------------------


def load_weights(model: Any, folder: Path) -> None:
    """Put a checkpoint's weights into the sharded ``model``.

    Raises:
        InputError: it lacks some.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(file, "pt")) for file in sorted(folder.glob("*.safetensors"))]
        where = {name: file for file in files for name in file.keys()}  # noqa: SIM118  it is no mapping
        names: dict[int, list[str]] = {}
        trained = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if parameter.requires_grad:
                trained[id(parameter)] = parameter
                # An adapter's name in memory is left out in files.
                names.setdefault(id(parameter), []).extend([name, name.replace(".default.", ".")])
        for key, parameter in trained.items():
            found = next((name for name in names[key] if name in where), None)
            if found is None:
                raise of_another(folder, f"has no {names[key][0]}")
            _set(parameter, where[found].get_tensor(found), folder, found)


def put(weights: Mapping[str, torch.Tensor], model: Any) -> None:
    """Put what `whole_weights` gathered into ``model``, which is not sharded."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])


def load_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Put a checkpoint's moments and learning rate into the optimizer of a sharded model.

    Raises:
        InputError: they are another model's.
    """
    state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True, mmap=True)
    for index, parameter in trained_by_index(optimizer, state, folder).items():
        moments = state["state"].get(index, {})
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                if value.shape != parameter.shape:
                    raise of_another(folder, f"has moments of shape {tuple(value.shape)} for {tuple(parameter.shape)}")
                moments[name] = _like(parameter, value)
    optimizer.load_state_dict(state)
    scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))


def trained_by_index(optimizer: Any, state: Mapping[str, Any], folder: Path) -> dict[int, torch.Tensor]:
    """The parameters of ``optimizer`` by their indices in the ``state`` of a checkpoint's.

    Raises:
        InputError: it has moments of another number of them.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    indices = [each for group in state["param_groups"] for each in group["params"]]
    if len(parameters) != len(indices):
        raise of_another(folder, f"has moments of {len(indices)} parameters where {len(parameters)} are trained")
    return dict(zip(indices, parameters, strict=True))


def _set(parameter: torch.Tensor, value: torch.Tensor, folder: Path, name: str) -> None:
    if value.shape != parameter.shape:
        raise of_another(folder, f"has {name} of shape {tuple(value.shape)} for {tuple(parameter.shape)}")
    with torch.no_grad():
        own_part(parameter).copy_(own_part(_like(parameter, value)))


def _like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value``, the same in all processes, shared out and placed as ``parameter`` is; nothing is sent."""
    if not isinstance(parameter, DTensor):
        return value
    mesh = parameter.device_mesh
    return distribute_tensor(value, mesh, parameter.placements, src_data_rank=None).to(parameter.device)


def of_another(folder: Path, what: str) -> InputError:
    """What to say of a checkpoint that ``what`` is wrong with."""
    return InputError(f"the checkpoint {folder.name} {what}: it is of another training; remove the step's checkpoints")


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Within it torch computes on all of the node's cores: whole weights on the CPU, of which one process has its turn.
    Without GPUs it computes as ever, so that results stay the same."""
    before = torch.get_num_threads()
    if torch.cuda.is_available():
        torch.set_num_threads(max(before, len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(before)
