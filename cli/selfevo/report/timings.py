"""Where the time went: seconds by activity, as the processes measured themselves. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from selfevo.report.data import PhaseTime, StepRecord
from selfevo_contract.artifacts import Manifest

ACTIVITIES = {
    "training": "training",
    "generation": "generation",
    "reward": "rewards and grading",
    "grading": "rewards and grading",
    "load": "loading models",
    "startup": "startup",
    "store": "object store",
    "checkpoint": "checkpoints",
}
"""A clock's activity -> what people read. What no activity covers is OTHER."""
OTHER = "other"
NAMES = (*dict.fromkeys(ACTIVITIES.values()), OTHER)
PRODUCTIVE = ("training", "generation")


def seconds_of(manifest: Manifest | None, chunks: Sequence[Manifest]) -> dict[str, float]:
    """Process seconds of one step, by NAMES.

    A rollout's manifest has those of all processes that made its chunks; without one, ``chunks`` are added up.
    """
    seconds: dict[str, float] = defaultdict(float)
    for clock in [chunk.timings for chunk in chunks] if manifest is None else [manifest.timings]:
        for name, spent in _by_name(clock).items():
            seconds[name] += spent
    return dict(seconds)


def _by_name(clock: Mapping[str, float]) -> dict[str, float]:
    seconds = dict.fromkeys(NAMES, 0.0)
    for activity, spent in clock.items():
        if activity != "total":
            seconds[ACTIVITIES.get(activity, OTHER)] += spent
    # The clocks are read one after the other, so that the rest can come out a little under nothing.
    seconds[OTHER] += max(0.0, clock.get("total", 0.0) - sum(seconds.values()))
    return seconds


def by_phase(steps: Iterable[StepRecord]) -> tuple[PhaseTime, ...]:
    """Added up over iterations, phases in the order in which they first ran."""
    phases: dict[str, dict[str, float]] = {}
    for record in steps:
        if record.seconds:
            of = phases.setdefault(record.step.phase, dict.fromkeys(NAMES, 0.0))
            for name, spent in record.seconds.items():
                of[name] += spent
    return tuple(PhaseTime(phase, seconds) for phase, seconds in phases.items())


def overhead(times: Iterable[PhaseTime]) -> float | None:
    """The share of all time that is neither training nor generation."""
    times = list(times)
    total = sum(time.total for time in times)
    productive = sum(time.seconds.get(name, 0.0) for time in times for name in PRODUCTIVE)
    return 1.0 - productive / total if total > 0 else None
