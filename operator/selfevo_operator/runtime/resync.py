"""The regular lists: what the watches did not bring comes so, and is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from selfevo_operator.api.kube import ApiError, Kube, Page
from selfevo_operator.observed.cache import Cache, Key, Listing
from selfevo_operator.runtime.errors import OperatorError
from selfevo_operator.runtime.metrics import Metrics
from selfevo_operator.runtime.scopes import Scope, Scopes
from selfevo_operator.runtime.watch_judge import WatchJudge
from selfevo_operator.runtime.workers import Workers

log = logging.getLogger("selfevo")

_SETTLE_S = 0.5
"""When one watch begins, others do so too."""


class Resync:
    """Lists now and then, and when a watch has begun."""

    def __init__(
        self,
        cache: Cache,
        scopes: Scopes,
        workers: Workers,
        judge: WatchJudge,
        metrics: Metrics,
        seconds: float,
    ) -> None:
        self._cache, self._scopes, self._workers, self._judge = cache, scopes, workers, judge
        self._metrics, self._seconds = metrics, seconds
        self._watch_began = asyncio.Event()

    def watch_began(self) -> None:
        """A watch shows what is deleted from now on, and not what was since the last list: list again."""
        self._watch_began.set()

    async def run(self, kube: Kube) -> None:
        """List for ever. After a regular list every run is reconciled, also without a change.

        So whatever was forgotten anywhere is made good.

        Raises:
            OperatorError: a watch is dead, or we may not list at all.
        """
        judge, all_due = False, 0.0
        while True:
            started = time.monotonic()
            try:
                await self.list_all(kube, judge=judge)
            except ApiError as error:
                if not self._scopes.listed:
                    raise OperatorError(_cannot_list(error)) from None
                log.warning("listing failed: %s; tried again in %.0f s", error, self._seconds)
            else:
                if not self._scopes.listed:
                    self._scopes.listed = True
                    log.info(
                        "listed %d runs and %d Jobs in %.1f s",
                        len(self._cache.runs), self._cache.job_count(), time.monotonic() - started,
                    )  # fmt: skip
                if started >= all_due:
                    all_due = started + self._seconds
                    for key in self._cache.runs:
                        self._workers.add(key, pressing=False)
            judge = await self._until_next_list(time.monotonic() - started)

    async def _until_next_list(self, took: float) -> bool:
        """Wait; returns whether that was for the regular time, so that the watches had time to show the same."""
        try:
            await asyncio.wait_for(self._watch_began.wait(), self._seconds)
        except TimeoutError:
            return True
        await asyncio.sleep(max(_SETTLE_S, 10 * took))  # watches that break all the time cost a tenth of our time
        self._watch_began.clear()
        return False

    async def list_all(self, kube: Kube, *, judge: bool = True) -> None:
        """List every scope, each for itself.

        Raises:
            ApiError: none of them could be listed.
            OperatorError: a watch is dead.
        """
        changed: dict[str, set[Key]] = {"selfevolutionruns": set(), "jobs": set()}
        errors = []
        for scope in self._scopes.all:
            self._scopes.list_begins(scope)
            try:
                runs = await self._read(kube.list_runs(scope), self._cache.listing_runs(scope))
                jobs = await self._read(kube.list_jobs(scope), self._cache.listing_jobs(scope))
            except ApiError as error:
                errors.append((scope, error))
                continue
            self._list_ended(scope)
            for resource, keys in (("selfevolutionruns", runs), ("jobs", jobs)):
                changed[resource] |= keys
                if self._scopes.listed and keys:
                    self._metrics.missed.labels(resource).inc(len(keys))
        if len(errors) == len(self._scopes.all):
            raise errors[0][1]
        for scope, refusal in errors:
            self._scopes.say_refused(scope, "list", refusal.message)
        if judge:
            self._judge.judge(changed)

    def _list_ended(self, scope: Scope) -> None:
        if self._scopes.list_ended(scope):  # what was seen before is reconciled from now on
            for key in self._cache.runs:
                if self._scopes.of(key) == scope:
                    self._workers.add(key)

    async def _read(self, pages: AsyncIterator[Page], listing: Listing[Any]) -> set[Key]:
        """Take a list in, page by page; returns the runs that it changes, all of which are reconciled."""
        changed: set[Key] = set()
        async for page in pages:
            changed |= self._add_all(listing.take(page.items, page.version, first=page.first))
        return changed | self._add_all(listing.end())

    def _add_all(self, keys: set[Key]) -> set[Key]:
        for key in keys:
            self._workers.add(key)
        return keys


def _cannot_list(error: ApiError) -> str:
    if error.status == 404:
        return "the API server knows no SelfEvolutionRun; apply crds/ (or install the chart), then start again"
    if error.status in (401, 403):
        return f"the API server refuses us: {error.message}; grant the rights that the chart's Role lists"
    return f"runs and Jobs cannot be listed: {error}"
