"""MLflow: an experiment a project, a run a step, and one run of points by iteration."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from itertools import islice

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from selfevo_contract.spec.tracking import MlflowTracker
from selfevo_contract.spec.tracking.base import PROJECT
from selfevo_trainer.tracking.base import ITERATIONS, Figures, Job, Sink

_METRICS = 1000
"""Most metrics of one request, by MLflow's REST interface."""
_TAGS, _TAG = 100, 5000
"""Most tags of one request, and most characters of a tag."""
_ID = "selfevo.id"


class MlflowSink:
    """An MLflow run of the step; its curves are by update, and a summary's points by iteration."""

    def __init__(self, tracker: MlflowTracker, job: Job) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        self._job = job
        self._client = MlflowClient(tracking_uri=tracker.place)
        name = tracker.project or PROJECT
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._run = self._find(job.step_id, job.step, job.phase)
        self._describe(job.settings)

    def _find(self, identity: str, name: str, kind: str) -> str:
        """The run of that identity, of this attempt or of one before."""
        found = self._client.search_runs([self._experiment], f"tags.`{_ID}` = '{identity}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        tags = {_ID: identity, "selfevo.run": self._job.group, "selfevo.phase": kind}
        return str(self._client.create_run(self._experiment, run_name=f"{self._job.run} {name}", tags=tags).info.run_id)

    def _describe(self, settings: Mapping[str, str]) -> None:
        tags = iter([RunTag(allowed(path), value[:_TAG]) for path, value in settings.items()])
        while some := list(islice(tags, _TAGS)):
            self._client.log_batch(self._run, tags=some)

    def _log(self, run: str, figures: Figures, step: int) -> None:
        now = int(time.time() * 1000)
        metrics = iter([Metric(allowed(name), value, now, step) for name, value in figures.items()])
        while some := list(islice(metrics, _METRICS)):
            self._client.log_batch(run, metrics=some)

    def update(self, number: int, figures: Figures) -> None:
        self._log(self._run, figures, number)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        data = {column: [row[index] for row in rows] for index, column in enumerate(columns)}
        self._client.log_table(self._run, data, f"{name}.json")

    def result(self, iteration: int, figures: Figures) -> None:
        # Apart from the curves by update, which have names in common with it.
        self._log(self._run, {f"result/{name}": value for name, value in figures.items()}, iteration)
        shared = self._find(self._job.iterations_id, ITERATIONS, ITERATIONS)
        self._log(shared, {f"{self._job.phase}/{name}": value for name, value in figures.items()}, iteration)
        self._client.set_terminated(shared)

    def close(self, *, ended: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if ended else "KILLED")


def allowed(name: str) -> str:
    """``name`` in characters that MLflow takes: ``mean@4`` is ``mean_at_4``."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"), flags=re.ASCII)


def open_sink(tracker: MlflowTracker, job: Job) -> Sink:
    """The sink of kind mlflow."""
    return MlflowSink(tracker, job)
