"""What an iteration's steps have in the store, and about how much their checkpoints moved there. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfevo.report.data import Report, StepRecord
from selfevo.report.timings import found_by
from selfevo_contract.artifacts import Manifest
from selfevo_contract.phases import PHASES, GrpoInputs
from selfevo_contract.sizing.fit import BYTES_OF_STATE
from selfevo_contract.sizing.traffic import checkpoints
from selfevo_contract.spec.run import RunSpec

_BYTES_OF_WEIGHT = 4
"""Of a number in a model's files: training saves float32."""


@dataclass(frozen=True)
class Moved:
    """Bytes of one iteration's steps that are done."""

    iteration: int
    models: float = 0
    """As their manifests list them."""
    rows: float = 0
    """Questions, answers, metrics: all other files."""
    checkpoints: float = 0
    """Written on the way and cleared since: as many as the times that were measured leave room for."""

    @property
    def total(self) -> float:
        return self.models + self.rows + self.checkpoints


def moved(report: Report) -> tuple[Moved, ...]:
    """By iteration; those without a step that is done are left out."""
    found = found_by(report.run.status)
    rows: dict[int, list[Moved]] = {}
    for record in report.steps:
        if record.manifest is not None:
            own = record.manifest.key not in found
            rows.setdefault(record.step.iteration, []).append(_of_step(report.run.spec, record, record.manifest, own))
    return tuple(_sum(number, steps) for number, steps in sorted(rows.items()))


def _of_step(spec: RunSpec, record: StepRecord, manifest: Manifest, own: bool) -> Moved:
    model = sum(file.size for file in manifest.under("model"))
    other = sum(file.size for file in manifest.files) - model
    inputs, written = record.step.inputs, 0.0
    if isinstance(inputs, GrpoInputs) and own:
        hours = [manifest.timings.get(name, 0.0) / 3600 for name in ("generation", "training")]
        every = getattr(spec, PHASES[record.step.phase].part).checkpoint_every
        weights = sum(file.size for file in manifest.under("model") if file.name.endswith(".safetensors"))
        written = checkpoints(inputs.grpo, every, *hours) * weights * BYTES_OF_STATE / _BYTES_OF_WEIGHT
    return Moved(record.step.iteration, model, other, written)


def _sum(iteration: int, steps: Iterable[Moved]) -> Moved:
    all_of_it = list(steps)
    return Moved(
        iteration,
        sum(step.models for step in all_of_it),
        sum(step.rows for step in all_of_it),
        sum(step.checkpoints for step in all_of_it),
    )
