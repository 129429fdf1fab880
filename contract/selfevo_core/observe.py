"""One step: its record, brought up to date with what its attempts show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from selfevo_contract.status import StepStatus
from selfevo_core.attempt_end import record_attempt_end, with_
from selfevo_core.attempts import ObservedAttempt, stamp
from selfevo_core.policies.retry import Backoff
from selfevo_core.transitions import Event, is_final, next_state


def observe(
    record: StepStatus,
    attempts: Sequence[ObservedAttempt],
    spec_changed: bool,
    backoff_limit: int,
    backoff: Backoff,
    now: datetime,
    *,
    score_decides: bool = False,
) -> StepStatus:
    """``record`` after what ``attempts``, the step's own in the order of their numbers, come to.

    ``score_decides``: its score is asked for when it is decided which Solver is fine-tuned or published.
    All of them come to one event: the output's commit where one of them made it, else what the newest shows.
    """
    status = record
    if spec_changed and (state := next_state(record.state, Event.SPEC_CHANGED)) != record.state:
        status = with_(record, state=state, failures=0, finished_at=None, retry_at=None, reason="", message="")
    if is_final(status.state):
        return status

    event, progress = Event.GONE, status.progress
    for attempt in attempts:
        first = status.started_at or stamp(attempt.started_at)
        status = with_(status, attempts=max(status.attempts, attempt.number), started_at=first)
        if not attempt.live and attempt.number > status.ended:
            event, status = record_attempt_end(
                status, attempt, backoff_limit, backoff, now, score_decides=score_decides
            )
            if event in (Event.COMMITTED, Event.FIGURES_LOST):
                break
    else:
        current = current_of(status, attempts)
        if current is not None:  # whatever earlier attempts came to, another one is under way
            event = Event.WAITS if current.held else Event.RUNS
            status = with_(status, retry_at=None, finished_at=None, reason="", message="")
            # What it was heard to say holds until it says more, also when that was heard before we were started anew.
            progress = current.progress or (record.progress if record.attempts == current.number else None)
    state = next_state(status.state, event)
    return with_(status, state=state, progress=progress if state == "Running" else None)


def current_of(status: StepStatus, attempts: Iterable[ObservedAttempt]) -> ObservedAttempt | None:
    """The live attempt that stands for the step. One that is recorded as ended comes from a stale list."""
    mine = [a for a in attempts if a.live and (a.step, a.key) == (status.name, status.key) and a.number > status.ended]
    return max(mine, key=lambda attempt: attempt.number, default=None)
