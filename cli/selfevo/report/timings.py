"""Where the time went: seconds by activity, as the processes measured themselves. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfevo.report.data import PhaseTime, StepRecord
from selfevo_contract.artifacts import GPU_SECONDS, Manifest
from selfevo_contract.status import RunStatus

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
        if activity not in ("total", GPU_SECONDS):
            seconds[ACTIVITIES.get(activity, OTHER)] += spent
    # The clocks are read one after the other, so that the rest can come out a little under nothing.
    seconds[OTHER] += max(0.0, clock.get("total", 0.0) - sum(seconds.values()))
    return seconds


@dataclass(frozen=True)
class GpuHours:
    """GPUs of a run, times the hours for which it had them."""

    hours: float
    counted: bool
    """By whoever drove the run, all attempts; else by the processes that made its steps, which is less."""
    silent: int = 0
    """Steps that are done, and whose trainers did not say it."""
    found: int = 0
    """Steps that the run did not make: they were in the store already."""

    @property
    def at_least(self) -> bool:
        """It may be more."""
        return not self.counted and self.hours > 0

    def __str__(self) -> str:
        """As a cell has it: what may be more is marked."""
        return f"{'≥ ' if self.at_least else ''}{self._figure}"

    @property
    def _figure(self) -> str:
        return f"{self.hours:.2g}" if 0 < self.hours < 0.01 else f"{self.hours:.2f}"

    @property
    def sentence(self) -> str:
        """Empty without a GPU."""
        if not self.hours:
            return ""
        stored = "a step" if self.found == 1 else f"{self.found} steps"
        found = f" The table leaves out {stored} that the run found in the store already." if self.found else ""
        if self.counted:
            return f"The run has used {self._figure} GPU hours, failed attempts included.{found}"
        steps = "a step whose trainer" if self.silent == 1 else f"{self.silent} steps whose trainers"
        return (
            f"At least {self._figure} GPU hours: those of the processes that made the steps that are done, by the GPUs "
            f"that they saw. Failed attempts are not in them{f', nor {steps} did not say it' if self.silent else ''}."
            f"{found}"
        )


def gpu_hours(status: RunStatus | None, committed: Collection[Manifest], *, counts: bool = False) -> GpuHours | None:
    """As they were counted; else as the manifests of the steps that the run made say. None where nobody knows.

    Args:
        counts: Whoever drives the run knows its GPUs, as a cluster's operator does. Nobody counts those of this
            machine, so that a count of none is not believed where manifests know of some.
    """
    others = found_by(status)
    own = [manifest for manifest in committed if manifest.key not in others]
    measured, found = gpu_hours_of(own), len(committed) - len(own)
    usage = status.usage if status else None
    if usage is not None and (usage.gpu_hours or counts or not measured):
        return GpuHours(usage.gpu_hours, counted=True, found=found)
    if measured is None:
        return GpuHours(0.0, counted=False, found=found) if found and not own else None
    silent = sum(GPU_SECONDS not in manifest.timings for manifest in own)
    return GpuHours(measured, counted=False, silent=silent, found=found)


def found_by(status: RunStatus | None) -> set[str]:
    """Keys of the steps that a run found in the store when it came to them. None of one that nobody has driven here,
    whose status is made up from the store."""
    if status is None or not status.observed_generation:
        return set()
    return {step.key for step in status.steps if step.reused}


def gpu_hours_of(manifests: Iterable[Manifest]) -> float | None:
    """The sum of what they record; None where none records it, as those of earlier trainers."""
    seconds = [manifest.timings[GPU_SECONDS] for manifest in manifests if GPU_SECONDS in manifest.timings]
    return sum(seconds) / 3600 if seconds else None


def by_phase(steps: Iterable[StepRecord]) -> tuple[PhaseTime, ...]:
    """Added up over iterations, phases in the order in which they first ran."""
    phases: dict[str, dict[str, float]] = {}
    gpus: dict[str, float] = {}
    for record in steps:
        phase = record.step.phase
        if record.seconds:
            of = phases.setdefault(phase, dict.fromkeys(NAMES, 0.0))
            for name, spent in record.seconds.items():
                of[name] += spent
        if record.gpu_hours is not None:
            gpus[phase] = gpus.get(phase, 0.0) + record.gpu_hours
    return tuple(PhaseTime(phase, seconds, gpus.get(phase)) for phase, seconds in phases.items())


def overhead(times: Iterable[PhaseTime]) -> float | None:
    """The share of all time that is neither training nor generation."""
    times = list(times)
    total = sum(time.total for time in times)
    productive = sum(time.seconds.get(name, 0.0) for time in times for name in PRODUCTIVE)
    return 1.0 - productive / total if total > 0 else None
