"""Trackio: a group a run, a run a step, and one run of points by iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfevo_contract.spec.tracking import TrackioTracker
from selfevo_contract.spec.tracking.base import PROJECT
from selfevo_trainer.tracking.base import ITERATIONS, Figures, Job, Sink


class TrackioSink:
    """A Trackio run of the step; the run of points by iteration is opened when there is a point."""

    def __init__(self, tracker: TrackioTracker, job: Job) -> None:
        import trackio

        self._trackio: Any = trackio
        self._job = job
        self._shared: dict[str, Any] = {
            "project": tracker.project or PROJECT,
            "group": job.group,
            "space_id": tracker.space,
            "server_url": tracker.endpoint,
            "private": True,
            "resume": "allow",
            "embed": False,
            "auto_log_gpu": False,
            "auto_log_cpu": False,
        }
        self._run = self._trackio.init(**self._shared, name=f"{job.run} {job.step}", config=dict(job.settings))

    def update(self, number: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=number)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self._run.log({name: self._trackio.Table(columns=list(columns), data=[list(row) for row in rows])})

    def result(self, iteration: int, figures: Figures) -> None:
        self._run.finish()
        self._run = self._trackio.init(**self._shared, name=f"{self._job.run} {ITERATIONS}")
        self._run.log({f"{self._job.phase}/{name}": value for name, value in figures.items()}, step=iteration)

    def close(self, *, ended: bool) -> None:
        self._run.finish()


def open_sink(tracker: TrackioTracker, job: Job) -> Sink:
    """The sink of kind trackio."""
    return TrackioSink(tracker, job)
