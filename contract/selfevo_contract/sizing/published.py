"""Bytes that spec.publish puts at another place (docs/publish.md): models as others load them, and curricula. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfevo_contract.phases import PublishInputs
from selfevo_contract.plan_steps import Plan, Step
from selfevo_contract.sizing.architecture import Architecture, bytes_in
from selfevo_contract.sizing.memory import PROMPT_TOKENS
from selfevo_contract.sizing.speeds import TEXT
from selfevo_contract.sizing.weights import bytes_of, model_bytes
from selfevo_contract.spec.publish import HUB
from selfevo_contract.spec.run import RunSpec


@dataclass(frozen=True)
class Published:
    """What one step puts there."""

    step: Step
    adapter: bool
    """It is one on a base that the hub has; else whole weights."""
    model: int
    """Bytes of its weights."""
    curricula: int
    """How many."""
    rows: float
    """Bytes of these at most, before they are compressed: every question is kept."""
    read: float
    """Bytes that come from the run's store, and the base where an adapter is merged."""


def published(spec: RunSpec, steps: Plan, model: Architecture) -> list[Published]:
    """What each step of the plan publishes, when nothing is there yet; nothing without spec.publish."""
    return [_of(step, step.inputs, spec, model) for step in steps.steps if isinstance(step.inputs, PublishInputs)]


def _of(step: Step, inputs: PublishInputs, spec: RunSpec, model: Architecture) -> Published:
    grpo = spec.solver.grpo
    adapter = grpo.lora is not None and inputs.base.uri.startswith(HUB)
    whole = bytes_in(inputs.loading.dtype) * model.parameters
    curricula = len(inputs.rollouts) if inputs.curriculum else 0
    kept = spec.rollout.questions * (spec.verifier.curriculum_share if spec.verifier is not None else 1)
    rows = curricula * kept * PROMPT_TOKENS * TEXT.value
    read = model_bytes(grpo, model)
    if grpo.lora is not None and not adapter:
        read += bytes_of(inputs.base, spec, model)
    return Published(step, adapter, model_bytes(grpo, model) if adapter else whole, curricula, rows, read + rows)
