"""Bytes of the models that a step starts from and leaves, as files (docs/sizing.md, Traffic to the store). Pure."""

from __future__ import annotations

from selfevo_contract.phases import CHALLENGER_TRAIN, VERIFIER_TRAIN, BaseModelRef, ModelRef
from selfevo_contract.plan_steps import Step
from selfevo_contract.sizing.architecture import Architecture, bytes_in
from selfevo_contract.sizing.fit import checkpoint_bytes
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.run import RunSpec


def read_by(step: Step) -> list[ModelRef]:
    """The models that each pod of ``step`` reads."""
    refs = (getattr(step.inputs, field) for field in step.type.models)
    return [ref for ref in refs if ref is not None]


def model_bytes(grpo: Grpo, model: Architecture) -> int:
    """Of what a training commits: all weights or an adapter, in float32."""
    return checkpoint_bytes(grpo, model) // 3


def bytes_of(ref: ModelRef, spec: RunSpec, model: Architecture) -> int:
    """Of a model that a step starts from: the base in `model.dtype`; else as its step saved it, in float32."""
    base = bytes_in(spec.model.dtype) * model.parameters
    if isinstance(ref, BaseModelRef):
        return base
    if ref.phase == VERIFIER_TRAIN.name:  # taken for as large as the base
        return 4 * model.parameters
    role = spec.challenger if ref.phase == CHALLENGER_TRAIN.name else spec.solver
    return model_bytes(role.grpo, model) + (0 if role.grpo.lora is None else base)
