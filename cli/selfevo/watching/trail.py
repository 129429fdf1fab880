"""What a running step's log tells: how far its processes are, its curves by update, and its words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from selfevo_contract.process import Progress

_REPORT = '{"event":"progress"'
_LINE = 4096
"""Characters of the longest line that is read as a report."""
_WORDS, _POINTS = 500, 5000
"""Lines, and points of a curve, that are kept; the newest."""


@dataclass(frozen=True)
class Trail:
    """Of one attempt at a step."""

    step: str = ""
    attempt: int = 0
    reports: Sequence[Progress] = ()
    """The newest one of each of its processes; the last one is the newest of all."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Metric -> its values, in the order in which they were reported."""
    words: Sequence[str] = ()
    """All other lines of its processes' logs, the newest last."""
    why: str = ""
    """Why there is nothing to read."""


def trail_of(lines: Iterable[str], step: str, attempt: int) -> Trail:
    """What ``lines`` tell, of one log or of several one after the other.

    A log holds whatever anybody made the process say: of its JSON nothing counts but reports about this very step.
    """
    reports: dict[int | None, Progress] = {}
    curves: dict[str, list[float]] = {}
    words: list[str] = []
    for line in lines:
        report = _report(line, step)
        if report is None:
            words.append(line.rstrip())
            continue
        reports.pop(report.shard, None)
        reports[report.shard] = report
        points = dict(report.metrics)
        if report.tokens_per_second is not None and report.shard in (None, 0):
            points["tokens/s"] = report.tokens_per_second
        for name, value in points.items():
            curves.setdefault(name, []).append(value)
    kept = {name: values[-_POINTS:] for name, values in curves.items()}
    return Trail(step, attempt, list(reports.values()), kept, words[-_WORDS:])


def _report(line: str, step: str) -> Progress | None:
    if len(line) > _LINE or not line.startswith(_REPORT):
        return None
    try:
        report = Progress.model_validate_json(line)
    except ValidationError:
        return None
    return report if report.step == step else None
