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


def seconds_of(manifest: Manifest | None, shards: Sequence[Manifest]) -> dict[str, float]:
    """Process seconds of one step, by NAMES. Shards run in processes of their own, whose times are added up.

    The process that saw all shards wrote the step's manifest. Its clock went on since it committed its own shard, which
    is then not counted a second time. It is recognised by its generation time, which did not change in between.
    """
    clocks = [shard.timings for shard in shards]
    if manifest is not None:
        same = [clock for clock in clocks if _is_continuation(clock, manifest.timings)]
        if same:
            clocks.remove(same[0])
        clocks.append(manifest.timings)
    seconds: dict[str, float] = defaultdict(float)
    for clock in clocks:
        for name, spent in _by_name(clock).items():
            seconds[name] += spent
    return dict(seconds)


def _is_continuation(shard: Mapping[str, float], step: Mapping[str, float]) -> bool:
    return shard.get("generation", 0.0) > 0 and shard.get("generation") == step.get("generation")


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
