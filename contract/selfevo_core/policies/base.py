"""What a policy is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from selfevo_contract.plan import Plan, Step
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import Fork, GuardStatus, Rollback, RunStatus, StepStatus, Usage
from selfevo_core.attempts import Blocker, ObservedAttempt


@dataclass(frozen=True)
class NotFound:
    """Why a run cannot go on from another one."""

    message: str
    """A clause with the field, its value and the remedy."""
    final: bool = False
    """Waiting does not help."""
    stuck: bool = False
    """Waiting helps only when a person does something."""


@dataclass(frozen=True)
class RunState:
    """Where a run stands, as far as it is observed."""

    spec: RunSpec
    plan: Plan
    recorded: RunStatus
    """As it was written last."""
    steps: Mapping[str, StepStatus]
    """Every step of the plan by its name, in the plan's order, brought up to date."""
    attempts: Sequence[ObservedAttempt] = ()
    """All that exist."""
    earlier: Mapping[str, StepStatus] = field(default_factory=dict)
    """Steps that are done and that the plan has no more, because there is another way now."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Keys of steps that another run has in work, and who that is."""
    other_version: int | None = None
    """Version of the artifact schema by which the run was begun, where that is not ours."""
    usage: Usage | None = None
    """What the run has used until now."""
    guards: Sequence[GuardStatus] = ()
    """What every guard that is not switched off says."""
    beginning: Fork | NotFound | None = None
    """What is found now of the run that this one goes on from; None where nothing is asked."""

    @cached_property
    def live(self) -> list[ObservedAttempt]:
        """The attempts that have not ended."""
        return [attempt for attempt in self.attempts if attempt.live]

    @property
    def complete(self) -> bool:
        """Every step is done, and it is known which there are."""
        return bool(self.steps) and all(step.state == "Succeeded" for step in self.steps.values())

    @cached_property
    def ready(self) -> list[Step]:
        """Steps that are not done and wait for no other step, in the plan's order."""
        pending = [step for step in self.plan.steps if self.steps[step.name].state == "Pending"]
        return [step for step in pending if self.parents_done(step)]

    def parents_done(self, step: Step) -> bool:
        return all(self.steps[parent].state == "Succeeded" for parent in step.parents)


@dataclass(frozen=True)
class Hold:
    """A step's next attempt does not start now."""

    until: datetime | None
    """When to reconcile again, should nothing happen before; None when only a person or another step can change it."""
    keeps_slot: bool = False
    """No other step starts in its place."""


@dataclass(frozen=True)
class Decision:
    """What a policy wants of a run. What is left at its default is left to the others."""

    phase: Literal["Running", "Suspended", "Succeeded", "Failed"] | None = None
    """The run's phase: what runs is stopped at its checkpoint unless it is Running, and nothing starts. No later policy
    is asked."""
    reason: str = ""
    """Why ``phase``: a constant for programs."""
    message: str = ""
    """The same as a sentence for people."""
    starts_nothing: bool = False
    """No step starts; what runs goes on."""
    holds: Mapping[str, Hold] = field(default_factory=dict)
    """Steps, by name, that do not start now. Of several policies, the first decides about a step."""
    rollback: Rollback | None = None
    """The run goes back: it is recorded, and the next reconcile has another plan."""
    fork: Fork | None = None
    """What the run begins with: it is recorded, and the next reconcile has a plan."""
    best: int | None = None
    """The iteration whose Solver is fine-tuned and published: it is recorded, and the next reconcile plans by it."""
    blocker: Blocker | None = None
    """Why nothing goes on; the status shows it when nothing runs and nothing starts."""
    wake_at: datetime | None = None
    """When to ask again although nothing has happened."""


Policy = Callable[[RunState, datetime], Decision | None]
"""``policy(state, now)``: pure, and called in every reconcile; None where it decides nothing."""
