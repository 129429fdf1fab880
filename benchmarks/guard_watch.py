"""A run's figures, iteration by iteration, through the real reconcile: what its guards say, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseResult
from selfevo_contract.run import SelfEvolutionRun
from selfevo_core.reconcile import ObservedAttempt, attempt_name, reconcile

Rows = Mapping[str, float]
"""What an iteration's steps measured, by ``phase/metric``, as learning.py writes it."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Watch:
    """One run under its guards."""

    run: SelfEvolutionRun
    alarms: dict[str, int] = field(default_factory=dict)
    """Guard -> the first iteration in which it warned or tripped."""
    acted: dict[str, int] = field(default_factory=dict)
    """Guard -> the first iteration of which it tripped: a stop, a rollback, a promotion."""

    @property
    def rollbacks(self) -> list[int]:
        """The iterations that the run had to compute anew, one for each rollback."""
        return [rollback.iteration for rollback in self.run.status.rollbacks] if self.run.status else []

    @property
    def phase(self) -> str:
        """As recorded."""
        return (self.run.status.phase or "") if self.run.status else ""

    def measured(self, iteration: int, rows: Rows) -> None:
        """Every step of ``iteration`` that is not done succeeds with its figures, and the run is reconciled."""
        the_plan = plan(self.run.spec, self.run.status.rollbacks if self.run.status else ())
        attempts = []
        for step in the_plan.steps:
            if step.iteration != iteration:
                continue
            own = {n.removeprefix(f"{step.phase}/"): v for n, v in rows.items() if n.startswith(f"{step.phase}/")}
            result = PhaseResult(phase=step.phase, key=step.key, outcome="committed", metrics=own)
            made = ObservedAttempt(
                name=attempt_name(self.run.metadata.name, step, 1),
                step=step.name,
                key=step.key,
                number=1,
                state="Succeeded",
                started_at=NOW,
                finished_at=NOW,
            )
            attempts.append(replace(made, exit_code=0, result=result))
        before = len(self.rollbacks)
        outcome = reconcile(self.run, the_plan, attempts, NOW)
        self.run = self.run.model_copy(update={"status": outcome.status})
        for guard in outcome.status.guards:
            if guard.state in ("Warned", "Tripped") and guard.iteration == iteration:
                self.alarms.setdefault(guard.name, iteration)
            if guard.state == "Tripped":
                self.acted.setdefault(guard.name, iteration)
        if len(self.rollbacks) > before:  # the next reconcile has the other plan
            again = plan(self.run.spec, outcome.status.rollbacks)
            self.run = self.run.model_copy(update={"status": reconcile(self.run, again, [], NOW).status})
