"""The running operator: what its watches see goes through the cache to the workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from selfevo_contract.status import RunStatus
from selfevo_core.spans import Traced, ended_spans
from selfevo_operator.api.kube import Api
from selfevo_operator.api.progress import ProgressReader
from selfevo_operator.controller import Controller, MetricsHooks
from selfevo_operator.observed.cache import Cache, Key, RunSnapshot
from selfevo_operator.observed.figures import Figure, figures_of
from selfevo_operator.runtime.metrics import ENDED_RUNS_STAY, RUNS_WITH_FIGURES, Metrics
from selfevo_operator.runtime.probes import Probes
from selfevo_operator.runtime.queue import WorkQueue
from selfevo_operator.runtime.resync import Resync
from selfevo_operator.runtime.scopes import Scopes
from selfevo_operator.runtime.settings import Settings
from selfevo_operator.runtime.watch_judge import WatchJudge
from selfevo_operator.runtime.workers import Workers
from selfevo_traces.base import NOWHERE, Sender

log = logging.getLogger("selfevo")


def _now() -> datetime:
    return datetime.now(UTC)


class Operator:
    """Its parts, each of which can be read alone, and the way of a watch event through them."""

    def __init__(self, api: Api, settings: Settings, sender: Sender = NOWHERE) -> None:
        self._sender = sender
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.metrics = Metrics(
            lambda: (run.phase for run in self.cache.runs.values()), lambda: self.cache.job_count(), self._went_on,
            self._figures,
        )  # fmt: skip
        self.metrics.depth.set_function(lambda: self.queue.depth)
        self.metrics.age.set_function(lambda: self.queue.age(time.monotonic()))
        self.scopes = Scopes(settings.namespaces, self.metrics.refused)
        self.probes = Probes(self.queue, self.scopes, settings.patience.stuck)
        self.workers = Workers(self.queue, self.scopes, self.metrics, settings.workers)
        self._watch_judge = WatchJudge(settings.resync_seconds)
        self.resync = Resync(
            self.cache, self.scopes, self.workers, self._watch_judge, self.metrics, settings.resync_seconds
        )
        self._progress = ProgressReader(api, self.cache, _now, settings.progress_seconds)
        self._controller = Controller(
            api, self.cache, settings.pods, _now, progress=self._progress.of,
            hooks=MetricsHooks(
                self._created, lambda reason: self.metrics.transitions.labels(reason).inc(), self.workers.add,
                self._wrote,
            ),
        )  # fmt: skip
        self._reads_progress = settings.progress_seconds > 0
        self._ended_at: dict[Key, float] = {}
        """When the end of a run's Job was seen, until the next Job is created."""

    async def work(self) -> None:
        """Reconcile the keys of the queue, for ever, and read beside it how far steps are."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.workers.work(self._controller.reconcile_run))
            if self._reads_progress:
                group.create_task(self._progress.run(self.workers.add_for_record))

    def saw_run(self, kind: str | None, run: Mapping[str, Any]) -> None:
        """A watch event of a run."""
        self._saw("selfevolutionruns")
        metadata = run["metadata"]
        if kind == "DELETED":
            self.workers.add(self.cache.drop_run(Key(metadata["namespace"], metadata["name"]), metadata["uid"]))
        else:
            self.workers.add(self.cache.put_run(run), pressing=False)

    def saw_job(self, kind: str | None, job: Mapping[str, Any]) -> None:
        """A watch event of a Job."""
        self._saw("jobs")
        if kind == "DELETED":
            self.workers.add(self.cache.drop_job(job))
            return
        change = self.cache.put_job(job)
        if change is None:
            return
        if any(c.get("type") == "Complete" for c in (job.get("status") or {}).get("conditions") or []):
            self._ended_at.setdefault(change.key, time.monotonic())
        if change.succeeding:
            self._controller.prefetch_result(change.succeeding)
        if change.pressing:
            self.workers.add(change.key)
        else:
            self.workers.add_for_record(change.key)

    def _saw(self, resource: str) -> None:
        self.metrics.events.labels(resource).inc()
        self._watch_judge.event(resource)

    def watch_refused(self, namespace: str, words: str) -> None:
        """The API server does not let us watch the namespace, in these words; without words, it does again."""
        self.scopes.say_refused(namespace, "watch", words)

    def called(self, verb: str, resource: str, code: int) -> None:
        """A call to the API server has ended, in whatever way."""
        self.probes.call_ended()
        self.metrics.called(verb, resource, code)

    def _went_on(self) -> Iterator[tuple[str, str, float]]:
        for run in self.cache.runs.values():
            if run.went_on_at:
                yield run.key.namespace, run.key.name, datetime.fromisoformat(run.went_on_at).timestamp()

    def _figures(self) -> Iterator[tuple[str, str, tuple[Figure, ...]]]:
        """Of an ended run for a while yet: the last scores come with its end."""
        since = (_now() - ENDED_RUNS_STAY).isoformat()
        shown = sorted(
            (run for run in self.cache.runs.values() if run.figures or run.finished_at[:19] > since[:19]),
            key=lambda run: run.key,
        )
        for run in shown[:RUNS_WITH_FIGURES]:
            yield run.key.namespace, run.key.name, run.figures or figures_of(run.recorded())

    def _wrote(self, run: RunSnapshot, before: RunStatus, after: RunStatus) -> None:
        """What has ended in the run is a span now. No trace is worth a run."""
        if not self._sender.on:
            return
        try:
            for span in ended_spans(Traced(run.uid, run.key.namespace, run.key.name), before, after, _now()):
                self._sender.send(span)
        except Exception:
            log.exception("no spans of run %s/%s are sent", run.key.namespace, run.key.name)

    def _created(self, key: Key) -> None:
        if (ended := self._ended_at.pop(key, None)) is not None:
            self.metrics.gap.observe(time.monotonic() - ended)
