"""What has ended between two records of a run, as spans. Pure.

A span is sent once its end is recorded, in the moment in which that is written: whoever reads the record later, an
operator that was started anew for one, finds the end in it and sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from selfevo_contract.status import AttemptStatus, RunStatus, StepStatus
from selfevo_contract.traces import Span, SpanId, Value, attempt_span, nanoseconds, run_span, step_span
from selfevo_core.attempt_end import STOPPED
from selfevo_core.attempts import parse_stamp

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Traced:
    """Whose spans they are."""

    uid: str
    namespace: str
    name: str

    @property
    def attributes(self) -> dict[str, Value]:
        """What every one of its spans bears."""
        return {"selfevo.namespace": self.namespace, "selfevo.run": self.name}


def ended_spans(run: Traced, before: RunStatus, after: RunStatus, now: datetime) -> list[Span]:
    """The attempts, the steps and the run that are at their end in ``after`` and were not in ``before``.

    Args:
        now: the end of what has none in the record.
    """
    gone = {attempt.name for attempt in before.attempts if attempt.state in _ENDED}
    done = {(step.name, step.key) for step in before.steps if step.state in _ENDED}
    steps = {step.name: step for step in (*before.steps, *after.steps)}
    return [
        *(
            _of_attempt(run, attempt, steps.get(attempt.step), now)
            for attempt in after.attempts
            if attempt.state in _ENDED and attempt.name not in gone
        ),
        *(
            _of_step(run, step, now)
            for step in after.steps
            if step.state in _ENDED and (step.name, step.key) not in done
        ),
        *([_of_run(run, after, now)] if after.phase in _ENDED and before.phase not in _ENDED else []),
    ]


def _of_attempt(run: Traced, attempt: AttemptStatus, step: StepStatus | None, now: datetime) -> Span:
    parent = run_span(run.uid) if step is None else step_span(run.uid, step.name, step.key)
    code = {} if attempt.exit_code is None else {"process.exit.code": attempt.exit_code}
    failed = attempt.state == "Failed" and attempt.reason not in STOPPED
    return _span(
        attempt_span(run.uid, attempt.name),
        parent,
        f"attempt {attempt.attempt}",
        (attempt.started_at, attempt.finished_at),
        now,
        {
            **run.attributes,
            **(_place(step) if step is not None else {"selfevo.step": attempt.step}),
            "selfevo.attempt": attempt.attempt,
            "selfevo.attempt.name": attempt.name,
            "selfevo.state": attempt.state,
            **code,
            **_nonempty(reason=attempt.reason, log=attempt.log or ""),
        },
        attempt.message or attempt.reason if failed else None,
    )


def _of_step(run: Traced, step: StepStatus, now: datetime) -> Span:
    return _span(
        step_span(run.uid, step.name, step.key),
        run_span(run.uid),
        step.name,
        (step.started_at, step.finished_at),
        now,
        {
            **run.attributes,
            **_place(step),
            "selfevo.key": step.key,
            "selfevo.state": step.state,
            "selfevo.attempts": step.attempts,
            "selfevo.failures": step.failures,
            "selfevo.reused": step.reused,
            **_nonempty(reason=step.reason),
            **{f"selfevo.metrics.{name}": value for name, value in step.metrics.items()},
            **{f"selfevo.seconds.{name}": value for name, value in step.timings.items()},
        },
        step.message or step.reason if step.state == "Failed" else None,
    )


def _of_run(run: Traced, status: RunStatus, now: datetime) -> Span:
    failed = next((c for c in status.conditions if c.type == "Failed" and c.status == "True"), None)
    used: dict[str, Value] = {}
    if status.usage is not None:
        used = {"selfevo.gpu_hours": status.usage.gpu_hours, "selfevo.tokens": status.usage.tokens}
    return _span(
        run_span(run.uid),
        None,
        run.name,
        (status.started_at, status.finished_at),
        now,
        {
            **run.attributes,
            "selfevo.run.uid": run.uid,
            "selfevo.state": status.phase,
            "selfevo.iteration": status.iteration,
            **({} if status.score is None else {"selfevo.score": status.score}),
            **used,
            **_nonempty(reason=failed.reason if failed else ""),
        },
        (failed.message or failed.reason if failed else "failed") if status.phase == "Failed" else None,
    )


def _span(
    identity: SpanId,
    parent: SpanId | None,
    name: str,
    times: tuple[str | None, str | None],
    now: datetime,
    attributes: Mapping[str, Value],
    error: str | None,
) -> Span:
    """``times`` are the record's; what never started begins where it ends."""
    end = parse_stamp(times[1]) or now
    start = min(parse_stamp(times[0]) or end, end)
    return Span(identity, parent, name, nanoseconds(start.timestamp()), nanoseconds(end.timestamp()), attributes, error)


def _place(step: StepStatus) -> dict[str, Value]:
    return {"selfevo.step": step.name, "selfevo.phase": step.phase, "selfevo.iteration": step.iteration}


def _nonempty(**texts: str) -> dict[str, Value]:
    return {f"selfevo.{name}": text for name, text in texts.items() if text}
