"""Whether the phase fits on the GPU that it was given: asked before anything is computed, by the formula of
docs/sizing.md.

    check(context, inputs, folder)      of the process's own GPU; nothing is asked of a CPU
    need_of(inputs, engine, model, n)   pure: what the phase takes
"""

from __future__ import annotations

from pathlib import Path

from selfevo_contract.phases import (
    BuiltInputs,
    ChallengerTrainInputs,
    FinetuneInputs,
    SolverTrainInputs,
    VerifierTrainInputs,
)
from selfevo_contract.sizing.architecture import Architecture, bytes_in
from selfevo_contract.sizing.fit import least_gib, too_small
from selfevo_contract.sizing.memory import GIB, Need, generation, judge_training, training
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_trainer.context import Context
from selfevo_trainer.models.architecture import architecture
from selfevo_trainer.models.loading import device


def check(context: Context, inputs: BuiltInputs, folder: Path) -> None:
    """Ask it of this process's GPU and the model in ``folder``, whatever it is called.

    Raises:
        InputError: the phase takes more memory than the GPU has.
    """
    found = card()
    model = None if found is None else architecture(folder)
    if found is None or model is None:
        return
    name, memory = found
    need = need_of(inputs, context.config.engine, model, context.rank.size)
    if need is not None and least_gib(need) > memory:
        raise too_small(need, f"the GPU of this process ({name}) has {memory:.1f} GiB")


def card() -> tuple[str, float] | None:
    """Name and GiB of this process's GPU; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(device())
    return found.name, found.total_memory / GIB


def need_of(inputs: BuiltInputs, engine: Engine, model: Architecture, processes: int) -> Need | None:
    """What ``inputs`` takes of a GPU; None of an engine that splits its models by itself."""
    dtype_bytes = bytes_in(inputs.loading.dtype)
    match inputs:
        case ChallengerTrainInputs():
            judged = inputs.judge is not None
            return training(inputs.phase, model, inputs.grpo, dtype_bytes, processes, engine, judged=judged)
        case SolverTrainInputs():
            return training(inputs.phase, model, inputs.grpo, dtype_bytes, processes, judged=inputs.judge is not None)
        case FinetuneInputs():
            return training(inputs.phase, model, inputs.grpo, dtype_bytes, processes)
        case VerifierTrainInputs():
            longest = inputs.answer_sampling.max_completion_length
            return judge_training(model, inputs.settings, longest, dtype_bytes)
    # Keys and values are no reason to refuse, so that the longest answer does not matter.
    return generation(inputs.phase, model, engine, 1, dtype_bytes) if isinstance(engine, TransformersEngine) else None
