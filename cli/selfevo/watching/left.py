"""How long a step and a run still take, by what they took so far. Pure; nothing but what is shown hangs on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from selfevo.views import narrate
from selfevo.views.steps import begun, until
from selfevo_contract.plan import Plan
from selfevo_contract.process import Progress
from selfevo_contract.status import RunStatus, StepStatus


def step_left(step: StepStatus, status: RunStatus, reports: Sequence[Progress], now: datetime) -> float | None:
    """Seconds until a running step is done: by its own word, or else by its pace since the attempt began.

    None where nobody can say.
    """
    estimates = [report.seconds_left for report in reports if report.seconds_left is not None]
    if estimates:
        return max(estimates)
    if step.progress is not None and step.progress.ends_at:
        return max(0.0, until(step.progress.ends_at, now))
    done, total = sum(report.done for report in reports), sum(report.total for report in reports)
    before = sum(report.resumed_from or 0 for report in reports)
    start = begun(status, step)
    if start is None or done <= before or total < done:
        return None
    return max(0.0, -until(start, now)) * (total - done) / (done - before)


def run_left(plan: Plan | None, status: RunStatus, running: dict[str, float | None]) -> float | None:
    """Seconds until the last step of ``plan`` is done, one after the other: what beside each other runs ends sooner.

    A step takes as long as those of its phase did. None while a phase that is still to come has never been done here.

    Args:
        running: Of each step that runs, what it still takes.
    """
    if plan is None:
        return None
    records = {step.name: step for step in status.steps}
    took: dict[str, list[float]] = {}
    for step in status.steps:
        spent = narrate.duration(step, status.attempts) if step.state == "Succeeded" and not step.reused else None
        if spent is not None:
            took.setdefault(step.phase, []).append(spent)
    left = 0.0
    for planned in plan.steps:
        record = records.get(planned.name)
        if record is not None and record.state == "Succeeded":
            continue
        known = running.get(planned.name)
        if known is None:
            spent_by_phase = took.get(planned.phase)
            if not spent_by_phase:
                return None
            known = sum(spent_by_phase) / len(spent_by_phase)
        left += known
    return left
