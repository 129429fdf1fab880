"""Weights & Biases: a group a run, a run a step, and one run of points by iteration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import wandb

from selfevo_contract.spec.tracking import WandbTracker
from selfevo_contract.spec.tracking.base import PROJECT
from selfevo_trainer.tracking.base import ITERATIONS, Figures, Job, Sink


class WandbSink:
    """Two W&B runs at once: the step's, and the one that all steps of the run write a point of."""

    def __init__(self, tracker: WandbTracker, job: Job) -> None:
        os.environ |= {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DISABLE_CODE": "true"}
        os.environ["WANDB_BASE_URL"] = tracker.place
        self._job = job
        self._shared: dict[str, Any] = {
            "project": tracker.project or PROJECT,
            "entity": tracker.entity,
            "group": job.group,
            "resume": "allow",
            "reinit": "create_new",
        }
        self._run = wandb.init(
            **self._shared, id=job.step_id, name=job.step, job_type=job.phase, config=dict(job.settings)
        )
        self._run.define_metric("*", step_metric="update")

    def update(self, number: int, figures: Figures) -> None:
        self._run.log({**figures, "update": number})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def result(self, iteration: int, figures: Figures) -> None:
        self._run.summary.update(dict(figures))
        shared = wandb.init(**self._shared, id=self._job.iterations_id, name=ITERATIONS, job_type=ITERATIONS)
        shared.define_metric("*", step_metric="iteration")
        shared.log({**{f"{self._job.phase}/{name}": value for name, value in figures.items()}, "iteration": iteration})
        shared.finish()

    def close(self, *, ended: bool) -> None:
        self._run.finish(exit_code=0 if ended else 1)


def open_sink(tracker: WandbTracker, job: Job) -> Sink:
    """The sink of kind wandb."""
    return WandbSink(tracker, job)
