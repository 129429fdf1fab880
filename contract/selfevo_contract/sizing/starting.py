"""Seconds of an attempt before its first token or update: the process, its models, its engines. Pure.

Not in it: queues, the pull of the image, what a resumed training reads of its checkpoint. An attempt that follows
another takes all of it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfevo_contract.phases import PHASES, FinetuneInputs, ModelRef
from selfevo_contract.plan_steps import Step
from selfevo_contract.process import judge_server_of
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.speeds import GROWTH, LOADING, START, STORE, VLLM_AGAIN, VLLM_EAGER, VLLM_START
from selfevo_contract.sizing.weights import bytes_of, read_by
from selfevo_contract.spec.engines import Engine, ServerEngine, TransformersEngine, VllmEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.run import RunSpec


def starting_seconds(step: Step, spec: RunSpec, model: Architecture) -> float:
    """Of one attempt of ``step``, whose pods start at the same time."""
    engine: Engine = getattr(getattr(spec, PHASES[step.phase].part), "engine", TransformersEngine())
    grpo: Grpo | None = getattr(step.inputs, "grpo", None)
    frozen = [ref for field, _ in step.type.generates if (ref := getattr(step.inputs, field)) is not None]

    def size(refs: Sequence[ModelRef]) -> int:
        return sum(bytes_of(ref, spec, model) for ref in refs)

    read = read_by(step)
    loaded = size(read)
    if isinstance(engine, ServerEngine) and engine.endpoint is not None:  # which has them already
        loaded -= size(frozen)
    if grpo is not None and grpo.beta > 0:  # the reference
        loaded += size(read[:1])
    return (
        START.value
        + size(read) / (STORE.value * 1e9)
        + loaded / (LOADING.value * 1e9)
        + _engines(engine, len(frozen))
        + (_vllm(1) if grpo is not None and _writes_by_vllm(step, grpo) else 0)
        + (_vllm(1) if judge_server_of(spec, step) is not None else 0)
    )


def _writes_by_vllm(step: Step, grpo: Grpo) -> bool:
    supervised = isinstance(step.inputs, FinetuneInputs) and step.inputs.kind == "sft"
    return grpo.generation == "vllm" and not supervised


def _engines(engine: Engine, models: int) -> float:
    """Of what answers for ``models`` frozen ones, which come one after another."""
    if not models:
        return 0.0
    match engine:
        case TransformersEngine():
            return GROWTH.value
        case VllmEngine():
            return models * VLLM_EAGER.value if engine.enforce_eager else _vllm(models)
        case ServerEngine():  # the servers are beside the trainer, and begin when the models are there
            return 0.0 if engine.endpoint is not None else _vllm(models)


def _vllm(models: int) -> float:
    return VLLM_START.value + (models - 1) * VLLM_AGAIN.value
