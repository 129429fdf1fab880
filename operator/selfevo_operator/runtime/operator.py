"""The running operator: the queue's workers, the regular lists, and what the probes are told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from selfevo_operator.api.kube import Api, ApiError, Kube, Page
from selfevo_operator.controller import Controller, MetricsHooks
from selfevo_operator.observed.cache import Cache, Key, Listing
from selfevo_operator.runtime.metrics import Metrics
from selfevo_operator.runtime.queue import WorkQueue
from selfevo_operator.runtime.settings import Settings
from selfevo_operator.runtime.write_slots import WriteSlots

log = logging.getLogger("selfevo")

_ONE_LOOK = 10
"""Times as long as what counts as stuck: no look takes that, however slow its few calls are."""
_WRITERS = 2
"""Records that are written at a time: whatever more the API server has to do then, the next Jobs wait for."""
_CALM_S = 1.0
"""A pod that has begun or ended well changes the record only, and much may follow it at once."""
_SETTLE_S = 0.5
"""When one watch begins, others do so too."""


class OperatorError(Exception):
    """The operator cannot go on; the message is one sentence."""


class Operator:
    """Feeds what is seen through the queue to the controller."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.settings, self.cache = settings, Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.metrics = Metrics(
            lambda: (run.phase for run in self.cache.runs.values()), lambda: self.cache.job_count(), self._went_on
        )
        self.metrics.depth.set_function(lambda: self.queue.depth)
        self.metrics.age.set_function(lambda: self.queue.age(time.monotonic()))
        self.listed = False
        """Whether everything has been listed once: until then nothing is decided."""
        self._api = api
        self._controller = Controller(
            api, self.cache, settings.pods, lambda: datetime.now(UTC),
            hooks=MetricsHooks(self._created, lambda reason: self.metrics.transitions.labels(reason).inc(), self._add),
        )  # fmt: skip
        self._wake = asyncio.Event()
        self._write_slots: WriteSlots[Key] = WriteSlots(_WRITERS)
        self._ended_at: dict[Key, float] = {}
        self._watch_began = asyncio.Event()
        self._heard: dict[str, int] = {}
        """Watch events since the last list, by resource."""
        self._silent: dict[str, int] = {}
        """Lists in a row that knew more than a watch that said nothing."""
        self._went_on_at = float("-inf")
        """When a call to the API server was answered last, or given up."""
        self._unlisted: set[str | None] = set()
        """Scopes that could never be listed yet: of their runs nothing is decided."""
        self._refused: set[tuple[str | None, str]] = set()
        """Scopes that the API server refuses to us, and whether that was a list or a watch."""

    # --- what is seen

    def watch_began(self) -> None:
        """A watch tells what is deleted from now on. What was deleted since the last list, nobody tells: list again."""
        self._watch_began.set()

    def saw_run(self, kind: str | None, run: Mapping[str, Any]) -> None:
        """A watch event of a run."""
        self._hear("selfevolutionruns")
        metadata = run["metadata"]
        if kind == "DELETED":
            self._add(self.cache.drop_run(Key(metadata["namespace"], metadata["name"]), metadata["uid"]))
        else:
            self._add(self.cache.put_run(run), pressing=False)

    def saw_job(self, kind: str | None, job: Mapping[str, Any]) -> None:
        """A watch event of a Job."""
        self._hear("jobs")
        if kind == "DELETED":
            self._add(self.cache.drop_job(job))
            return
        change = self.cache.put_job(job)
        if change is None:
            return
        if any(c.get("type") == "Complete" for c in (job.get("status") or {}).get("conditions") or []):
            self._ended_at.setdefault(change.key, time.monotonic())
        if change.succeeding:
            self._controller.prefetch_result(change.succeeding)
        if change.pressing:
            self._add(change.key)
        elif self._scope_of(change.key) not in self._unlisted and not self._write_slots.wait(change.key):
            self.queue.add_at(change.key, time.monotonic() + _CALM_S)
            self._wake.set()

    def _hear(self, resource: str) -> None:
        self.metrics.events.labels(resource).inc()
        self._heard[resource] = self._heard.get(resource, 0) + 1

    def _add(self, key: Key | None, *, pressing: bool = True) -> None:
        if key is not None and self._scope_of(key) not in self._unlisted:
            self.queue.add(key, time.monotonic(), pressing=pressing)
            self._wake.set()

    def _scope_of(self, key: Key) -> str | None:
        return key.namespace if self.settings.namespaces else None

    def watch_refused(self, namespace: str, words: str) -> None:
        """The API server does not let us watch the namespace, in these words; without words, it does again."""
        self._say_refused(namespace, "watch", words)

    def _say_refused(self, scope: str | None, what: str, words: str) -> None:
        """That one namespace cannot be served is said once, and the others go on."""
        where = f"namespace {scope}" if scope else "the cluster"
        if words and (scope, what) not in self._refused:
            self._refused.add((scope, what))
            log.warning("%s cannot be served: %s; it is tried again, and the others go on", where, words)
        elif not words and (scope, what) in self._refused:
            self._refused.discard((scope, what))
            log.info("%s: the %s is let through again", where, what)
        else:
            return
        self.metrics.refused.labels(scope or "").set(any(refused == scope for refused, _ in self._refused))

    def _listed_now(self, scope: str | None) -> None:
        self._say_refused(scope, "list", "")
        if scope in self._unlisted:  # what was seen before is looked at from now on
            self._unlisted.discard(scope)
            for key in self.cache.runs:
                if self._scope_of(key) == scope:
                    self._add(key)

    def _went_on(self) -> Iterator[tuple[str, str, float]]:
        for run in self.cache.runs.values():
            if run.went_on_at:
                yield run.key.namespace, run.key.name, datetime.fromisoformat(run.went_on_at).timestamp()

    def _created(self, key: Key) -> None:
        if (ended := self._ended_at.pop(key, None)) is not None:
            self.metrics.gap.observe(time.monotonic() - ended)

    # --- the workers

    async def work(self) -> None:
        """Look at what the queue says, with a pool of workers, for ever."""
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(self.settings.workers)
            while True:
                await slots.acquire()
                key = await self._next()
                group.create_task(self._look(key, slots))

    async def _next(self) -> Key:
        while True:
            now = time.monotonic()
            if self.listed and (key := self.queue.take(now)) is not None:
                return key
            self._wake.clear()
            due = self.queue.next_due() if self.listed else None
            try:
                await asyncio.wait_for(self._wake.wait(), None if due is None else max(0.0, due - now))
            except TimeoutError:
                continue

    async def _look(self, key: Key, slots: asyncio.Semaphore) -> None:
        began = time.monotonic()
        try:
            again = await self._controller.reconcile_run(key, lambda: self._write_slots.may_write(key))
        except Exception as error:
            delay = error.retry_after if isinstance(error, ApiError) else 0.0
            wait = self.queue.done(key, time.monotonic(), failed=True, delay=delay)
            self.metrics.errors.inc()
            if isinstance(error, ApiError):
                log.warning("%s: %s; looked at again in %.1f s", key, error, wait)
            else:
                log.exception("%s: a defect; looked at again in %.1f s", key, wait)
        else:
            self.queue.done(key, time.monotonic())
            if again is not None:
                self.queue.add_at(key, time.monotonic() + again)
        finally:
            self.metrics.reconcile.observe(time.monotonic() - began)
            self._add(self._write_slots.end(key), pressing=False)
            slots.release()
            self._wake.set()

    # --- the lists

    async def resync(self, kube: Kube) -> None:
        """List everything now and then, and when a watch has begun: what it did not bring comes so, and is counted.

        Now and then, every run is looked at, also without a change: whatever was forgotten anywhere is made good.

        Raises:
            OperatorError: the watch is silent, or we may not list at all.
        """
        judge, all_due = False, 0.0
        while True:
            started = time.monotonic()
            try:
                await self._list(kube, judge=judge)
            except ApiError as error:
                if not self.listed:
                    raise OperatorError(_cannot_list(error)) from None
                log.warning("listing failed: %s; tried again in %.0f s", error, self.settings.resync_seconds)
            else:
                if not self.listed:
                    self.listed = True
                    log.info(
                        "listed %d runs and %d Jobs in %.1f s",
                        len(self.cache.runs), self.cache.job_count(), time.monotonic() - started,
                    )  # fmt: skip
                if started >= all_due:
                    all_due = started + self.settings.resync_seconds
                    for key in self.cache.runs:
                        self._add(key, pressing=False)
            judge = await self._until_next_list(time.monotonic() - started)

    async def _until_next_list(self, took: float) -> bool:
        """Wait; returns whether that was for the regular time, so that the watches had theirs to tell the same."""
        try:
            await asyncio.wait_for(self._watch_began.wait(), self.settings.resync_seconds)
        except TimeoutError:
            return True
        await asyncio.sleep(max(_SETTLE_S, 10 * took))  # watches that break all the time cost a tenth of our time
        self._watch_began.clear()
        return False

    async def _list(self, kube: Kube, *, judge: bool = True) -> None:
        """All of them, each for itself.

        Raises:
            ApiError: none of them could be listed.
            OperatorError: a watch is silent.
        """
        changed: dict[str, set[Key]] = {"selfevolutionruns": set(), "jobs": set()}
        errors = []
        for scope in self.settings.scopes:
            if not self.listed:  # of runs without their Jobs nothing may be decided
                self._unlisted.add(scope)
            try:
                runs = await self._read(kube.list_runs(scope), self.cache.listing_runs(scope))
                jobs = await self._read(kube.list_jobs(scope), self.cache.listing_jobs(scope))
            except ApiError as error:
                errors.append((scope, error))
                continue
            self._listed_now(scope)
            for resource, keys in (("selfevolutionruns", runs), ("jobs", jobs)):
                changed[resource] |= keys
                if self.listed and keys:
                    self.metrics.missed.labels(resource).inc(len(keys))
        if len(errors) == len(self.settings.scopes):
            raise errors[0][1]
        for scope, refusal in errors:
            self._say_refused(scope, "list", refusal.message)
        if judge:
            self._judge(changed)

    async def _read(self, pages: AsyncIterator[Page], listing: Listing[Any]) -> set[Key]:
        """Take a list in, page by page; returns the runs that it changes, all of which are looked at."""
        changed: set[Key] = set()
        async for page in pages:
            changed |= self._add_all(listing.take(page.items, page.version, first=page.first))
        return changed | self._add_all(listing.end())

    def _add_all(self, keys: set[Key]) -> set[Key]:
        for key in keys:
            self._add(key)
        return keys

    def _judge(self, changed: Mapping[str, set[Key]]) -> None:
        """A list may be a little ahead of the watch; twice in a row, with nothing heard in between, the watch is dead.

        Raises:
            OperatorError: so it is.
        """
        for resource, keys in changed.items():
            heard, self._heard[resource] = self._heard.get(resource, 0), 0
            self._silent[resource] = self._silent.get(resource, 0) + 1 if keys and not heard else 0
            if self._silent[resource] > 1:
                raise OperatorError(
                    f"the watch of {resource} has been silent for {2 * self.settings.resync_seconds:.0f} s while they "
                    "changed; starting anew"
                )

    # --- the probes

    def called(self, verb: str, resource: str, code: int) -> None:
        """A call to the API server has ended, in whatever way."""
        self._went_on_at = time.monotonic()
        self.metrics.called(verb, resource, code)

    def unhealthy(self) -> str:
        """Why the process should be started anew; empty when it should not.

        An API server that is slow or refuses is no reason: every call ends in its time, and a process that is started
        anew asks it for more. Only where looks wait and no call has ended for long, something hangs in here.
        """
        now, stuck = time.monotonic(), self.settings.patience.stuck
        worked, waited = self.queue.longest_work(now), self.queue.age(now) if self.listed else 0.0
        hangs = now - self._went_on_at > stuck
        if worked > stuck and (hangs or worked > _ONE_LOOK * stuck):
            return f"a look has taken {worked:.0f} s"
        if waited > stuck and hangs:
            return f"a run has waited {waited:.0f} s to be looked at"
        return ""

    def unready(self) -> str:
        """Why it is not ready; empty when it is."""
        return "" if self.listed else "runs and Jobs are not listed yet"


def _cannot_list(error: ApiError) -> str:
    if error.status == 404:
        return "the API server knows no SelfEvolutionRun; apply crds/ (or install the chart), then start again"
    if error.status in (401, 403):
        return f"the API server refuses us: {error.message}; grant the rights that the chart's Role lists"
    return f"runs and Jobs cannot be listed: {error}"
