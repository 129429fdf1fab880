"""What the end of an attempt means for its step: done, given up, or tried again, and when (docs/design.md, 7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode
from selfevo_contract.status import AttemptStatus, StepStatus
from selfevo_core.attempts import KILLED, ObservedAttempt, stamp, verdict_of
from selfevo_core.policies.retry import Backoff
from selfevo_core.transitions import Event

ATTEMPTS_SHOWN = 20
UNKNOWN = "it is done, and what it measured is unknown"
"""Of a step whose result was lost as often as it may be tried; its output is in the store, its figures are not."""
SCORE_LOST = (
    "the result of {attempt} did not arrive, and its score decides which Solver is fine-tuned or published; raise "
    "spec.backoffLimit, which is {limit}, or change anything else in the spec: another attempt finds the output"
)
STOPPED = (
    reasons.SUSPENDED,
    reasons.RUN_FAILED,
    reasons.RUN_ENDED,
    reasons.NOT_IN_PLAN,
    reasons.STEP_ENDED,
    reasons.SUPERSEDED,
    reasons.OUTDATED,
)
"""Reasons of attempts that we ended ourselves."""


def record_attempt_end(
    status: StepStatus,
    attempt: ObservedAttempt,
    backoff_limit: int,
    backoff: Backoff,
    now: datetime,
    *,
    score_decides: bool,
) -> tuple[Event, StepStatus]:
    """What the end of ``attempt`` is, and the record with it taken into account, exactly once.

    The state stays as it was: that is the word of `transitions`.
    """
    status = with_(status, ended=attempt.number)
    failures = status.failures + (attempt.failures if attempt.state == "Failed" else 1)
    event = _event(attempt, too_often=failures > backoff_limit, score_decides=score_decides)
    at = attempt.finished_at or now
    result = attempt.result
    reason, message = _cause(attempt)

    match event:
        case Event.COMMITTED | Event.FIGURES_LOST:
            known = event is Event.COMMITTED
            changes: dict[str, Any] = {
                "finished_at": stamp(at),
                "retry_at": None,
                "reason": "",
                "message": "" if known else f"{UNKNOWN}: the result of {attempt.name} did not arrive",
                "reused": result is not None and result.outcome == "found",
                "metrics": dict(result.metrics) if result else {},
                "timings": dict(result.timings) if result else {},
            }
        case Event.RESULT_LOST:
            # Its figures are lost, and a score says which model is best. Another process finds the output and tells.
            message = f"{attempt.name} ended well, but its result did not arrive"
            retry_at = stamp(at + backoff.delay(failures))
            changes = {"failures": failures, "retry_at": retry_at, "reason": reasons.RESULT_LOST, "message": message}
        case Event.SCORE_LOST:
            # Without it another Solver may be the best, and what is published cannot be taken back.
            reason, message = reasons.RESULT_LOST, SCORE_LOST.format(attempt=attempt.name, limit=backoff_limit)
            changes = {"failures": failures, "finished_at": stamp(at), "reason": reason, "message": message}
        case Event.TERMINATED:
            # Not its fault, so not counted; but a process that always ends so must not become a hot loop.
            changes = {"retry_at": stamp(at + backoff.delay(0)), "reason": reason, "message": message}
        case Event.FAILED:
            retry_at = stamp(at + backoff.delay(failures))
            changes = {"failures": failures, "retry_at": retry_at, "reason": reason, "message": message}
        case Event.FAILED_TOO_OFTEN:
            limit = f"spec.backoffLimit is {backoff_limit}"
            message = f"{status.name} failed {failures} times ({limit}), the last time: {message}"
            reason = reasons.BACKOFF_LIMIT_EXCEEDED
            changes = {"failures": failures, "finished_at": stamp(at), "reason": reason, "message": message}
        case _:  # what no other attempt can mend
            changes = {"finished_at": stamp(at), "reason": reason, "message": message}
    return event, with_(status, **changes)


def _event(attempt: ObservedAttempt, *, too_often: bool, score_decides: bool) -> Event:
    """What the end of ``attempt`` means for its step; ``too_often``: counted, it is one too many."""
    if attempt.state == "Succeeded":
        if attempt.result is not None and attempt.result.outcome in ("committed", "found"):
            return Event.COMMITTED
        if too_often:
            return Event.SCORE_LOST if score_decides else Event.FIGURES_LOST
        return Event.RESULT_LOST
    code = None if attempt.culprit else verdict_of(attempt.exit_code, attempt.result)
    if code == ExitCode.INPUT:
        return Event.INVALID_INPUT
    if code == ExitCode.DATA:
        return Event.BAD_DATA
    if attempt.reason == reasons.DEADLINE_EXCEEDED:
        return Event.DEADLINE_EXCEEDED
    if code == ExitCode.TERMINATED or attempt.stopping:
        return Event.TERMINATED
    return Event.FAILED_TOO_OFTEN if too_often else Event.FAILED


def _cause(attempt: ObservedAttempt) -> tuple[str, str]:
    """Why an attempt ended as it did: in the trainer's own words where they arrived."""
    if attempt.state != "Failed":
        return "", ""
    code = verdict_of(attempt.exit_code, attempt.result)
    usual = {
        ExitCode.INPUT: reasons.INVALID_INPUT,
        ExitCode.SERVICE: reasons.SERVICE_FAILED,
        ExitCode.DATA: reasons.BAD_DATA,
        ExitCode.TERMINATED: reasons.TERMINATED,
        KILLED: reasons.KILLED,
    }
    if attempt.culprit:
        return attempt.reason or reasons.CRASHED, attempt.message
    ended = "ended without an exit code" if code is None else f"ended with exit code {code}"
    reason = (
        attempt.reason or (attempt.result.reason if attempt.result else "") or usual.get(code or 0, reasons.CRASHED)
    )
    message = (attempt.result.message if attempt.result else "") or ": ".join(filter(None, (ended, attempt.message)))
    return reason, message


def attempt_history(
    before: Sequence[AttemptStatus], attempts: Sequence[ObservedAttempt], stops: Mapping[str, str]
) -> list[AttemptStatus]:
    """The newest attempts in the order of their starts. Sorting makes a repeated reconcile give the same list.

    ``stops`` says of attempts that are being stopped, why: when they are gone, nobody else will know.
    """
    seen = {attempt.name for attempt in attempts}
    known = {line.name: line if line.name in seen else _lost(line) for line in before}
    for attempt in attempts:
        old = known.get(attempt.name)
        if old is not None and old.state in ("Succeeded", "Failed") and old.reason not in (*STOPPED, reasons.LOST):
            continue  # an end is final: what shows it alive is older
        reason, message = _cause(attempt)
        if attempt.live and attempt.name in stops:
            reason, message = stops[attempt.name], "stopped; it ends at its last checkpoint"
        elif attempt.state == "Failed" and attempt.stopping and old is not None and old.reason in STOPPED:
            reason, message = old.reason, old.message  # whatever its pods came to when they were taken away
        elif attempt.live and attempt.stopping and old is not None and old.reason:
            reason, message = old.reason, old.message
        elif attempt.live and attempt.waiting is not None:
            reason, message = attempt.waiting.reason, attempt.waiting.message
        known[attempt.name] = AttemptStatus(
            name=attempt.name,
            step=attempt.step,
            attempt=attempt.number,
            state="Running" if attempt.live and not attempt.held else attempt.state,
            exit_code=verdict_of(attempt.exit_code, attempt.result),
            reason=reason,
            message=message,
            started_at=stamp(attempt.started_at),
            finished_at=stamp(attempt.finished_at),
            log=attempt.log,
            gpus=attempt.gpus or None,
        )
    return newest(known.values())


def newest(history: Iterable[AttemptStatus]) -> list[AttemptStatus]:
    """As many as a status shows, in the order of their starts."""
    ordered = sorted(history, key=lambda a: (a.started_at or "~", a.step, a.attempt, a.name))
    return ordered[-ATTEMPTS_SHOWN:]


def _lost(attempt: AttemptStatus) -> AttemptStatus:
    if attempt.state in ("Succeeded", "Failed"):
        return attempt
    if attempt.reason in STOPPED:
        return attempt.model_copy(update={"state": "Failed", "gpus": None})
    message = "it is gone, and how it ended was not seen; what it had committed is found by the next attempt"
    return attempt.model_copy(update={"state": "Failed", "reason": reasons.LOST, "message": message, "gpus": None})


def with_(status: StepStatus, **changes: Any) -> StepStatus:
    return status.model_copy(update=changes)
