"""Whether the phase fits on the GPU that it was given, and with `grpo.cpuOffload` into the pod's CPU memory: asked
before anything is computed, by the formula of docs/sizing.md.

    check(context, inputs, folder)      of the process's own GPU; nothing is asked of a machine without
    need_of(inputs, engine, model, n)   pure: what the phase takes
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_contract.phases import (
    BuiltInputs,
    ChallengerTrainInputs,
    FinetuneInputs,
    SolverTrainInputs,
    VerifierTrainInputs,
)
from selfevo_contract.sizing.architecture import Architecture, bytes_in
from selfevo_contract.sizing.fit import cpu_memory_too_small, least_gib, too_small
from selfevo_contract.sizing.memory import GIB, Need, generation, judge_model, judge_training, training
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.rewards import SELF_CERTAINTY
from selfevo_trainer.context import Context
from selfevo_trainer.models.architecture import architecture
from selfevo_trainer.models.loading import device

log = logging.getLogger("selfevo")


def check(context: Context, inputs: BuiltInputs, folder: Path) -> None:
    """Ask it of this process's GPU and the model in ``folder``, whatever it is called.

    Raises:
        InputError: the phase takes more memory than the GPU has, or the pod.
    """
    found = card()
    if found is None:
        return
    try:
        model = architecture(folder, inputs.loading)
    except InputError as error:
        log.warning("whether the GPU's memory suffices is not checked, for the model's sizes are not known: %s", error)
        return
    name, memory = found
    need = need_of(
        inputs, context.config.engine, model, context.rank.size, apart=context.config.judge_server is not None
    )
    if need is not None and least_gib(need) > memory:
        raise too_small(need, memory, f"the GPU of this process ({name}) has {memory:.1f} GiB")
    if need is not None and need.in_cpu:
        size, there_is = need.in_cpu * int(os.environ.get("LOCAL_WORLD_SIZE", "1")), cpu_memory()
        if size > there_is:
            raise cpu_memory_too_small(f"this pod has {there_is / GIB:.1f} GiB of CPU memory", inputs.phase, size)


def cpu_memory(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of CPU memory of this machine, or of this container where it has a limit (cgroup v2)."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = cgroup.read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdecimal() else whole


def card() -> tuple[str, float] | None:
    """Name and GiB of this process's GPU; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(device())
    return found.name, found.total_memory / GIB


def need_of(
    inputs: BuiltInputs, engine: Engine, model: Architecture, processes: int, *, apart: bool = False
) -> Need | None:
    """What ``inputs`` takes of a GPU; None of an engine that splits its models by itself.

    Args:
        apart: the judge, if there is one, has GPUs of its own. Else it is taken for as large as ``model``, which the
            inputs that ask it do not tell.
    """
    dtype_bytes = bytes_in(inputs.loading.dtype)
    match inputs:
        case ChallengerTrainInputs():
            judge = model if inputs.judge is not None and not apart else None
            return training(inputs.phase, model, inputs.grpo, dtype_bytes, processes, engine, judge=judge)
        case SolverTrainInputs():
            judge = model if inputs.judge is not None and not apart else None
            certain = inputs.reward.mode == SELF_CERTAINTY
            return training(inputs.phase, model, inputs.grpo, dtype_bytes, processes, judge=judge, certain=certain)
        case FinetuneInputs():
            return training(inputs.phase, model, inputs.grpo, dtype_bytes, processes)
        case VerifierTrainInputs():
            longest = inputs.answer_sampling.max_completion_length
            judge = judge_model(inputs.settings, model)
            return judge_training(model, judge, inputs.settings, longest, dtype_bytes)
    # Keys and values are no reason to refuse, so that the longest answer does not matter.
    return generation(inputs.phase, model, engine, 1, dtype_bytes) if isinstance(engine, TransformersEngine) else None
