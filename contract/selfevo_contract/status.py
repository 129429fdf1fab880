"""``status`` of a SelfEvolutionRun: the record of what was done. Written by the reconciler alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

RunPhase = Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"]
StepState = Literal["Pending", "Running", "Succeeded", "Failed"]


class _Status(BaseModel):
    # A status may come from a newer version of ourselves: unknown fields are left alone.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class Condition(_Status):
    """A Kubernetes condition (metav1.Condition)."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str


class AttemptStatus(_Status):
    """What one Job (or local process) of a step did."""

    name: str
    """Name of the Job."""
    step: str
    attempt: int
    state: StepState
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    log: str | None = None
    """Where its log lies."""


class StepStatus(_Status):
    """One step of the plan. ``Succeeded`` and ``Failed`` are final for its key."""

    name: str
    phase: str
    iteration: int
    key: str
    state: StepState = "Pending"
    attempts: int = 0
    """Number of the newest attempt that was seen."""
    ended: int = 0
    """Attempts up to this one are accounted for: an ended Job that is seen again is not counted again, and the next
    attempt is this one's successor."""
    failures: int = 0
    """Attempts that count against backoffLimit."""
    reused: bool = False
    """The output was there already: an earlier run, or an earlier attempt, had committed it."""
    retry_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    reason: str = ""
    message: str = ""
    metrics: dict[str, float] = {}
    timings: dict[str, float] = {}


class IterationStatus(_Status):
    """One iteration in a line."""

    iteration: int
    score: float | None = None
    metrics: dict[str, float] = {}
    model_uri: str | None = None


class RunStatus(_Status):
    """Where a run stands."""

    observed_generation: int = 0
    phase: RunPhase = "Pending"
    iteration: int = 0
    """The iteration being worked on."""
    score: float | None = None
    """Score of the newest evaluated Solver."""
    best: IterationStatus | None = None
    model_uri: str | None = None
    """The best Solver so far."""
    started_at: str | None = None
    finished_at: str | None = None
    iterations: list[IterationStatus] = []
    """The last ten."""
    steps: list[StepStatus] = []
    attempts: list[AttemptStatus] = []
    """The last twenty."""
    conditions: list[Condition] = []
