"""Whether a phase fits on its GPU: what the operator refuses before anything is queued, and the trainer at its start.

What is refused is what does not fit without the reserve either: a formula that was held against no GPU is to stop
nobody who is close. Of the batches of the engine transformers beside a training half counts, for it halves them once
when memory runs out. A rollout's and an evaluation's keys and values are no reason: what ends early takes less, and a
step that fails has kept its chunks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.phases import CHALLENGER_TRAIN, FINETUNE, PHASES, SOLVER_TRAIN, VERIFIER_TRAIN
from selfevo_contract.pods import limit_written_in, pods_of, written_in
from selfevo_contract.process import part_of
from selfevo_contract.sizing.architecture import Architecture, known
from selfevo_contract.sizing.memory import GIB, Need, gpus_of_pod, judge_model, needs
from selfevo_contract.sizing.servers import served
from selfevo_contract.spec.engines import TransformersEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.names import Quantity
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.verifier import Verifier

BYTES_OF_STATE = 12
"""Of a number that is trained: itself and AdamW's two moments, in float32."""
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def least_gib(need: Need) -> float:
    """GiB on one GPU that the phase cannot do without."""
    return (need.held + (max(need.backward, need.policy, need.half_batch) if need.backward else 0)) / GIB


def in_cpu_of_pod(spec: RunSpec, need: Need) -> int:
    """Bytes of CPU memory that the phase keeps in each of its pods, with `grpo.cpuOffload`."""
    return need.in_cpu * gpus_of_pod(spec, pods_of(spec, need.phase))


@dataclass(frozen=True)
class Training:
    """A phase that writes checkpoints."""

    size: int
    """Bytes of one."""
    updates: int
    """Optimizer updates of the phase."""
    sharded: bool = False


def trainings(spec: RunSpec, model: Architecture) -> dict[str, Training]:
    """Each phase that writes checkpoints, by its name."""
    found = {CHALLENGER_TRAIN.name: spec.challenger.grpo, SOLVER_TRAIN.name: spec.solver.grpo}
    if spec.finetune is not None:
        found[FINETUNE.name] = spec.finetune.training(spec.solver.grpo)
    trained = {name: Training(checkpoint_bytes(of, model), of.updates, of.sharded) for name, of in found.items()}
    judge = spec.verifier
    if judge is not None and judge.is_trained:
        begin = judge.head.max_steps if judge.model is None else 0
        size = judge_checkpoint_bytes(judge, model)
        trained[VERIFIER_TRAIN.name] = Training(size, max(begin, judge.max_steps))
    return trained


def refuse_what_does_not_fit(spec: RunSpec) -> None:
    """A run whose pods say how much memory their GPUs have, and whose model's sizes are known by its name.

    The same of pods.scratch, into which a training writes its checkpoints, and of a limit of the pod's CPU memory, in
    which `grpo.cpuOffload` keeps what is trained.

    Raises:
        InputError: a phase takes more; one sentence that names the field.
    """
    model = known(spec.model.uri)
    if model is None:
        return
    for phase, training in trainings(spec, model).items():
        scratch, size = pods_of(spec, phase).scratch, training.size
        if scratch is not None and training.updates > 0 and size > gib(scratch) * GIB:
            raise disk_too_small(f"{written_in(spec, phase, 'scratch')}.scratch is {scratch}", phase, size)
    for need in needs(spec, model):
        engine = getattr(part_of(spec, need.phase), "engine", None)
        if not need.backward and not isinstance(engine, TransformersEngine):
            continue  # may be split over several GPUs, or be elsewhere
        pods = pods_of(spec, need.phase)
        memory = pods.gpu_memory
        if memory is not None and least_gib(need) > gib(memory):
            raise too_small(need, gib(memory), f"{written_in(spec, need.phase, 'gpu_memory')}.gpuMemory is {memory}")
        limit, size = pods.resources.limits.get("memory"), in_cpu_of_pod(spec, need)
        if limit is not None and size > gib(limit) * GIB:
            where = f"{limit_written_in(spec, need.phase, 'memory')}.resources.limits.memory is {limit}"
            raise cpu_memory_too_small(where, need.phase, size)

    for server in served(spec, model):
        memory = pods_of(spec, server.phase).gpu_memory
        if memory is not None and not server.fits(gib(memory)):
            raise InputError(
                f"{written_in(spec, server.phase, 'gpu_memory')}.gpuMemory is {memory}, of which the {server.whose}'s "
                f"server takes {server.share:.0%}, and {server.phase} needs {server.gib:.1f} GiB on each of its "
                f"{server.gpus} GPUs; take larger GPUs, or raise spec.{server.field}",
                reason=reasons.GPU_TOO_SMALL,
            )


def too_small(need: Need, room: float, what_there_is: str) -> InputError:
    """What to say of a phase that does not fit on a GPU of ``room`` GiB, as ``what_there_is`` tells."""
    return InputError(
        f"{what_there_is}, and {need.phase} takes at least {least_gib(need):.1f} GiB on each of its {need.gpus} GPUs; "
        f"take larger GPUs, or {_remedy(need, room)} (`selfevo size` says what would fit)",
        reason=reasons.GPU_TOO_SMALL,
    )


def _remedy(need: Need, room: float) -> str:
    """By what takes the most of the GPU: an engine's batches, or what is trained."""
    if not need.backward:
        return "take a smaller model"
    part = f"spec.{PHASES[need.phase].part}"
    trained = f"set {part}{'.grpo' if need.phase in (CHALLENGER_TRAIN.name, SOLVER_TRAIN.name) else ''} smaller"
    rest = max(need.backward, need.policy)
    if need.half_batch <= rest:
        return trained
    batches = f"lower {part}.engine.batchSize"
    return batches if (need.held + rest) / GIB <= room else f"{batches} and {trained}"


def cpu_memory_too_small(what_there_is: str, phase: str, size: int) -> InputError:
    """What to say of a pod of which ``what_there_is`` tells the CPU memory, and which `grpo.cpuOffload` needs ``size``
    bytes of."""
    return InputError(
        f"{what_there_is}, and {phase} with grpo.cpuOffload keeps {size / GIB:.1f} GiB in each pod's CPU memory; raise "
        "pods.resources.limits.memory, take larger nodes, or remove grpo.cpuOffload",
        reason=reasons.CPU_MEMORY_TOO_SMALL,
    )


def checkpoint_bytes(grpo: Grpo, model: Architecture) -> int:
    """Of what is trained."""
    return BYTES_OF_STATE * (model.parameters if grpo.lora is None else model.adapter(grpo.lora))


def judge_checkpoint_bytes(verifier: Verifier, model: Architecture) -> int:
    """Of the judge of a run whose base is ``model``."""
    judge = judge_model(verifier, model)
    return BYTES_OF_STATE * (judge.parameters if verifier.lora is None else judge.adapter(verifier.lora))


def disk_too_small(what_there_is: str, phase: str, size: int) -> InputError:
    """What to say of a disk of which ``what_there_is`` tells the size, and no checkpoint of ``size`` bytes fits on."""
    return InputError(
        f"{what_there_is}, and a checkpoint of {phase} takes {size / 1e9:.3g} GB; raise pods.scratch or take a larger "
        "disk (docs/sizing.md says how much)",
        reason=reasons.DISK_TOO_SMALL,
    )


def gib(quantity: Quantity) -> float:
    """A quantity of memory in GiB.

    >>> gib("80Gi"), round(gib("80G"), 1), gib(2**30)
    (80.0, 74.5, 1.0)
    """
    found = re.fullmatch(r"([0-9.]+)([KMGTPE]?)(i?)", str(quantity))
    if found is None:  # 1e11, 80000000000000m: nobody's way to write it, and no reason to refuse
        return float("inf")
    number, power, binary = found.groups()
    return float(number) * float((1024 if binary else 1000) ** _POWERS[power]) / GIB
