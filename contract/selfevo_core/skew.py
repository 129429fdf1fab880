"""A run that another version of the artifact schema has begun (docs/cluster.md, «Upgrades»). Pure.

A new version gives every step another key, because it computes something else. So a plan made now names none of the
steps that are recorded: each of its keys is taken from the record, by the step's name, and what runs is recognised,
ends and is recorded under the plan that it was made by. Nothing new is started (policies/plan_version.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.phases import ModelRef, StepModelRef
from selfevo_contract.plan import Plan, Step
from selfevo_contract.status import RunStatus
from selfevo_core.attempts import ObservedAttempt

FIRST_RECORDED = 1
"""Version of a status that does not say one."""


def other_version(status: RunStatus, attempts: Sequence[ObservedAttempt]) -> int | None:
    """Version by which the run was begun; None when that is ours, or nothing of it has begun."""
    version = FIRST_RECORDED if status.schema_version is None else status.schema_version
    if version == SCHEMA_VERSION:
        return None
    keys = {step.key for step in status.steps}
    begun = any(step.attempts or step.state in ("Succeeded", "Failed") for step in status.steps)
    return version if begun or any(attempt.key in keys for attempt in attempts) else None


def as_recorded(plan: Plan, status: RunStatus) -> Plan:
    """``plan`` with the recorded steps' keys, and the models that they make."""
    recorded = {step.name: step.key for step in status.steps}
    planned = (*plan.steps, *plan.unscheduled)
    old_key = {step.key: recorded[step.name] for step in planned if step.name in recorded}

    def model(ref: ModelRef) -> ModelRef:
        if not isinstance(ref, StepModelRef):
            return ref
        return ref.model_copy(update={"key": old_key.get(ref.key, ref.key)})

    def steps(planned: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(replace(step, key=recorded.get(step.name, step.key)) for step in planned)

    return replace(
        plan,
        steps=steps(plan.steps),
        solvers=tuple(map(model, plan.solvers)),
        challengers=tuple(map(model, plan.challengers)),
        unscheduled=steps(plan.unscheduled),
    )
