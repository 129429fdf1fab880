"""The workers: the keys of the queue are reconciled, several runs at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from selfevo_operator.api.kube import ApiError
from selfevo_operator.observed.cache import Key
from selfevo_operator.runtime.metrics import Metrics
from selfevo_operator.runtime.queue import WorkQueue
from selfevo_operator.runtime.scopes import Scopes
from selfevo_operator.runtime.write_slots import WriteSlots

log = logging.getLogger("selfevo")

_WRITERS = 2
"""Records that are written at a time: whatever more the API server has to do then, the next Jobs wait for."""
_CALM_S = 1.0
"""A pod that has begun or ended well changes the record only, and much may follow it at once."""

Reconcile = Callable[[Key, Callable[[], bool]], Awaitable[float | None]]
"""`Controller.reconcile_run`."""


class Workers:
    """A pool of them, and whatever adds keys to their queue."""

    def __init__(self, queue: WorkQueue[Key], scopes: Scopes, metrics: Metrics, count: int) -> None:
        self._queue, self._scopes, self._metrics, self._count = queue, scopes, metrics, count
        self.write_slots: WriteSlots[Key] = WriteSlots(_WRITERS)
        self._wake = asyncio.Event()

    def add(self, key: Key | None, *, pressing: bool = True) -> None:
        """Have the run reconciled soon; of one whose scope was never listed nothing is decided."""
        if key is not None and self._scopes.may_decide(key):
            self._queue.add(key, time.monotonic(), pressing=pressing)
            self._wake.set()

    def add_for_record(self, key: Key) -> None:
        """Have the run reconciled for its record alone: when there is room to write it, and not at once."""
        if self._scopes.may_decide(key) and not self.write_slots.wait(key):
            self._queue.add_at(key, time.monotonic() + _CALM_S)
            self._wake.set()

    async def work(self, reconcile: Reconcile) -> None:
        """Reconcile the keys of the queue, for ever."""
        async with asyncio.TaskGroup() as group:
            free = asyncio.Semaphore(self._count)
            while True:
                await free.acquire()
                key = await self._next()
                group.create_task(self._reconcile(reconcile, key, free))

    async def _next(self) -> Key:
        while True:
            now = time.monotonic()
            if self._scopes.listed and (key := self._queue.take(now)) is not None:
                return key
            self._wake.clear()
            due = self._queue.next_due() if self._scopes.listed else None
            try:
                await asyncio.wait_for(self._wake.wait(), None if due is None else max(0.0, due - now))
            except TimeoutError:
                continue

    async def _reconcile(self, reconcile: Reconcile, key: Key, free: asyncio.Semaphore) -> None:
        began, postponed = time.monotonic(), False

        def may_write() -> bool:
            nonlocal postponed
            may = self.write_slots.may_write(key)
            postponed = not may
            return may

        try:
            again = await reconcile(key, may_write)
        except Exception as error:
            delay = error.retry_after if isinstance(error, ApiError) else 0.0
            wait = self._queue.done(key, time.monotonic(), failed=True, delay=delay)
            self._metrics.errors.inc()
            if isinstance(error, ApiError):
                log.warning("%s: %s; reconciled again in %.1f s", key, error, wait)
            else:
                log.exception("%s: a defect; reconciled again in %.1f s", key, wait)
        else:
            self._queue.done(key, time.monotonic(), postponed=postponed)
            if again is not None:
                self._queue.add_at(key, time.monotonic() + again)
        finally:
            self._metrics.reconcile.observe(time.monotonic() - began)
            self.add(self.write_slots.end(key, lambda other: not self._queue.backs_off(other)), pressing=False)
            free.release()
            self._wake.set()
