"""What a run has used so far: hours of work, GPU hours, tokens, by phase. Pure.

The record says until when it is counted (`Usage.counted_at`). From there to now, the times in which attempts were at
work are added; the sum and its new end are written in one write. So a repeated reconcile, a lost write and an operator
that was away count nothing twice. What is seen late is counted by its own times: those of the pods where they are
known, else those of the Job. Between two reconciles, an attempt holds the GPUs that it held at the first of them, since
whatever changes that (a pod ends, a queue takes its place away) makes another reconcile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from selfevo_contract.spec.budget import Budget
from selfevo_contract.spec.names import seconds_of
from selfevo_contract.status import AttemptStatus, PhaseUsage, RunStatus, Usage
from selfevo_core.attempts import ObservedAttempt, parse_stamp, stamp

COUNTED_EVERY = timedelta(minutes=5)
"""Where there is a budget, and something runs."""
UNSEEN = timedelta(minutes=10)
"""An attempt that is gone, and whose end nobody saw, counts for so long at most since it was counted last."""
LOW = 0.8
"""Share of an amount from which on there is little left."""
_DIGITS = 6
"""Of hours: a few milliseconds."""
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Stretch:
    """A time in which an attempt was at work."""

    begin: datetime
    end: datetime
    phase: str
    gpus: int

    @property
    def hours(self) -> float:
        return (self.end - self.begin).total_seconds() / 3600


def usage_of(
    before: RunStatus, attempts: Sequence[ObservedAttempt], budget: Budget | None, now: datetime
) -> Usage | None:
    """What is used at ``now``, from what was at the last record and what is seen; None before anything ran."""
    known = before.usage
    now = parse_stamp(stamp(now)) or now  # as it is written: what is counted once must not be counted again
    since = (parse_stamp(known.counted_at) if known else None) or _BEGINNING
    stretches = sorted(_stretches(before, attempts, since, now))
    tokens = _new_tokens(before, attempts)
    if known is None and not stretches and not tokens and not attempts:
        return None
    phases = dict(known.phases) if known else {}
    for stretch in stretches:
        of = phases.get(stretch.phase, PhaseUsage())
        phases[stretch.phase] = of.model_copy(
            update={
                "hours": round(of.hours + stretch.hours, _DIGITS),
                "gpu_hours": round(of.gpu_hours + stretch.gpus * stretch.hours, _DIGITS),
            }
        )
    for phase, count in tokens.items():
        of = phases.get(phase, PhaseUsage())
        phases[phase] = of.model_copy(update={"tokens": of.tokens + count})
    wall = (known.wall_hours if known else 0.0) + _covered(stretches)
    gpu_hours = (known.gpu_hours if known else 0.0) + sum(s.gpus * s.hours for s in stretches)
    used = Usage(
        counted_at=stamp(max(now, since)) or "",
        wall_hours=round(wall, _DIGITS),
        gpu_hours=round(gpu_hours, _DIGITS),
        tokens=(known.tokens if known else 0) + sum(tokens.values()),
        phases=dict(sorted(phases.items())),
    )
    price = budget.dollars_per_gpu_hour if budget else None
    if price is not None:
        used = used.model_copy(update={"dollars": round(used.gpu_hours * price, 2)})
    return used.model_copy(update={"low": [of.field for of in amounts(budget, used) if of.share >= LOW]})


@dataclass(frozen=True)
class Amount:
    """One amount of a budget, in the unit of its limit."""

    field: str
    """Of spec.budget."""
    limit: float
    used: float
    unit: str
    rate: float = 0.0
    """Used in an hour in which a step is at work; with GPUs, in an hour of one GPU."""
    by_gpus: bool = False
    written: str = ""
    """The limit, as the manifest has it; the limit and its unit when not given."""

    @property
    def as_written(self) -> str:
        return self.written or f"{_plain(self.limit)} {self.unit}"

    @property
    def share(self) -> float:
        return self.used / self.limit

    def __str__(self) -> str:
        return f"{_plain(self.used)} of {_plain(self.limit)} {self.unit}"


def _plain(number: float) -> str:
    """Without an exponent.

    >>> _plain(0.25), _plain(300), _plain(1_234_567_890)
    ('0.25', '300', '1,234,567,890')
    """
    return f"{number:.7g}" if number < 1e7 else f"{number:,.0f}"


def amounts(budget: Budget | None, used: Usage | None) -> list[Amount]:
    """The amounts that the budget names, and what is used of each."""
    if budget is None:
        return []
    used = used or Usage(counted_at="")
    found = []
    if budget.wall_time is not None:
        hours = seconds_of(budget.wall_time) / 3600
        found.append(Amount("wallTime", hours, used.wall_hours, "hours", 1.0, written=budget.wall_time))
    if budget.gpu_hours is not None:
        found.append(Amount("gpuHours", budget.gpu_hours, used.gpu_hours, "GPU hours", 1.0, by_gpus=True))
    if budget.tokens is not None:
        found.append(Amount("tokens", budget.tokens, used.tokens, "tokens"))
    if budget.dollars is not None and budget.dollars_per_gpu_hour is not None:
        price = budget.dollars_per_gpu_hour
        found.append(Amount("dollars", budget.dollars, used.gpu_hours * price, "dollars", price, by_gpus=True))
    return found


def newly_low(budget: Budget | None, before: Usage | None, after: Usage | None) -> list[str]:
    """Of each amount of which 80 % are used, and were not before: a sentence."""
    known, low = (usage.low if usage else [] for usage in (before, after))
    found = [of for of in amounts(budget, after) if of.field in low and of.field not in known]
    return [f"{of.share:.0%} of budget.{of.field} is used: {of}" for of in found]


def is_due(before: Usage | None, after: Usage | None, live: bool, budget: Budget | None) -> bool:
    """Whether what is used is worth a write of its own: little is left of an amount, or it was long ago."""
    if after is None or budget is None:
        return False
    if before is None or before.low != after.low:
        return True
    counted, now = parse_stamp(before.counted_at), parse_stamp(after.counted_at)
    return live and counted is not None and now is not None and now - counted >= COUNTED_EVERY


def _stretches(
    before: RunStatus, attempts: Sequence[ObservedAttempt], since: datetime, now: datetime
) -> Iterable[Stretch]:
    """When attempts were at work from ``since`` to ``now``."""
    lines = {line.name: line for line in before.attempts}

    def stretch(step: str, begin: datetime | None, end: datetime, gpus: int) -> Iterable[Stretch]:
        begin, end = max(begin or since, since), min(end, now)
        if begin < end:
            yield Stretch(begin, end, _phase(before, step), gpus)

    for attempt in attempts:
        line = lines.pop(attempt.name, None)
        worked = line is not None and line.state == "Running"
        gpus = (line.gpus or 0) if line is not None and worked else attempt.gpus
        if attempt.live:
            if worked or (not attempt.held and (line is None or line.state != "Pending")):
                yield from stretch(attempt.step, attempt.started_at, now, gpus)
        elif line is None or line.state in ("Pending", "Running") or not _is_end(line):
            for begin, end in attempt.spans:
                yield from stretch(attempt.step, begin, end, attempt.gpus_each)
            if worked or not attempt.spans:
                # Without the pods' times; and what had worked before the first of those that are left, and is gone.
                until = min((begin for begin, _ in attempt.spans), default=attempt.finished_at or now)
                yield from stretch(attempt.step, attempt.started_at, until, gpus)
    for line in lines.values():  # gone
        if line.state == "Running":
            begin = max(since, parse_stamp(line.started_at) or since)
            yield from stretch(line.step, begin, min(now, begin + UNSEEN), line.gpus or 0)


def _is_end(line: AttemptStatus) -> bool:
    """Its end was seen, and not only that it was gone."""
    return line.state in ("Succeeded", "Failed") and line.finished_at is not None


def _covered(stretches: Iterable[Stretch]) -> float:
    """Hours in which at least one of ``stretches``, sorted by their beginning, goes on."""
    hours, until = 0.0, _BEGINNING
    for stretch in stretches:
        begin = max(stretch.begin, until)
        if stretch.end > begin:
            hours += (stretch.end - begin).total_seconds() / 3600
            until = stretch.end
    return hours


def _new_tokens(before: RunStatus, attempts: Sequence[ObservedAttempt]) -> dict[str, int]:
    """Tokens by phase, of the attempts whose end is not recorded."""
    lines = {line.name: line for line in before.attempts}
    ended = {(step.name, step.key): step.ended for step in before.steps}
    abandoned = {key for rollback in before.rollbacks for key in rollback.abandoned.values()}  # were counted then
    found: dict[str, int] = {}
    for attempt in attempts:
        if attempt.key in abandoned:
            continue
        line = lines.get(attempt.name)
        new = attempt.number > ended.get((attempt.step, attempt.key), 0) and (line is None or not _is_end(line))
        if new and not attempt.live and attempt.tokens:
            phase = _phase(before, attempt.step)
            found[phase] = found.get(phase, 0) + attempt.tokens
    return found


def _phase(before: RunStatus, step: str) -> str:
    known = next((known.phase for known in before.steps if known.name == step), "")
    return known or step.rpartition("-")[0] or step
