"""Trackio: a group a run, a run a step, and one run of points by iteration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import trackio

from selfevo_contract.spec.tracking import TrackioTracker
from selfevo_contract.spec.tracking.base import PROJECT
from selfevo_trainer.tracking.base import ITERATIONS, Figures, Job, Sink

TRIES, TIMEOUT_S = 30, 10.0
"""At reaching a server, and how long one of them waits."""


def reach(address: str) -> None:
    """Wait until a server answers at ``address``. Trackio itself would go on without it, and keep in a folder that is
    removed with the phase what it has not sent.

    Raises:
        OSError: none has in so many tries.
    """
    for left in reversed(range(TRIES)):
        try:
            urlopen(address, timeout=TIMEOUT_S).close()  # an http or https address, as the spec has it
            return
        except HTTPError:  # it has answered
            return
        except OSError:
            if not left:
                raise
            time.sleep(1)


class TrackioSink:
    """A Trackio run of the step; the run of points by iteration is opened when there is a point."""

    def __init__(self, tracker: TrackioTracker, job: Job) -> None:
        if tracker.endpoint:
            reach(tracker.endpoint)
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
        self._run: Any = trackio.init(**self._shared, name=f"{job.run} {job.step}", config=dict(job.settings))

    def update(self, number: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=number)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self._run.log({name: trackio.Table(columns=list(columns), data=[list(row) for row in rows])})

    def result(self, iteration: int, figures: Figures) -> None:
        self._run.finish()
        self._run = trackio.init(**self._shared, name=f"{self._job.run} {ITERATIONS}")
        self._run.log({f"{self._job.phase}/{name}": value for name, value in figures.items()}, step=iteration)

    def close(self, *, ended: bool) -> None:
        self._run.finish()


def open_sink(tracker: TrackioTracker, job: Job) -> Sink:
    """The sink of kind trackio."""
    return TrackioSink(tracker, job)
