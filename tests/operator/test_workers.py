"""The workers: what a reconcile came to, as the queue is given it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from selfevo_operator.api.kube import ApiError
from selfevo_operator.observed.cache import Key
from selfevo_operator.runtime.metrics import Metrics
from selfevo_operator.runtime.queue import Backoff, WorkQueue
from selfevo_operator.runtime.scopes import Scopes
from selfevo_operator.runtime.workers import Workers

DEMO, ONE, TWO = (Key("lab", name) for name in ("demo", "one", "two"))


class Waits(WorkQueue[Key]):
    """A queue that remembers how long each reconcile made its key wait."""

    def __init__(self, base: float = 0.001) -> None:
        super().__init__(Backoff(base=base, cap=base * 100))
        self.of_demo: list[float] = []
        self.ended: set[Key] = set()

    def done(self, key: Key, now: float, **outcome: object) -> float:
        wait = super().done(key, now, **outcome)  # type: ignore[arg-type]
        self.ended.add(key)
        if key == DEMO:
            self.of_demo.append(wait)
        return wait


def test_a_reconcile_that_found_no_write_slot_does_not_end_a_row_of_failures() -> None:
    metrics, queue = Metrics(list, lambda: 0), Waits()
    scopes = Scopes([], metrics.refused)
    scopes.listed = True
    workers = Workers(queue, scopes, metrics, count=3)

    async def run() -> None:
        one_writes, never = asyncio.Event(), asyncio.Event()

        async def reconcile(key: Key, may_write: Callable[[], bool]) -> float | None:
            if key != DEMO:
                assert may_write()
                await (one_writes if key == ONE else never).wait()
            elif not may_write():
                one_writes.set()  # and the slot is free
                return 60.0
            elif len(queue.of_demo) < 6:
                one_writes.clear()
                assert workers.write_slots.wait(ONE)
                raise ApiError(500, "InternalError", "etcdserver: request timed out")
            return None

        for key in (TWO, ONE, DEMO):
            workers.add(key)
        working = asyncio.create_task(workers.work(reconcile))
        async with asyncio.timeout(60):
            while len(queue.of_demo) < 8:
                await asyncio.sleep(0.001)
        working.cancel()

    asyncio.run(run())
    assert queue.of_demo == pytest.approx([0, 0.001, 0, 0.002, 0, 0.004, 0, 0])


def test_a_slot_is_not_kept_for_a_run_that_waits_after_a_failure() -> None:
    metrics, queue = Metrics(list, lambda: 0), Waits(base=3600.0)
    scopes = Scopes([], metrics.refused)
    scopes.listed = True
    workers = Workers(queue, scopes, metrics, count=2)

    async def run() -> None:
        failed = asyncio.Event()

        async def reconcile(key: Key, may_write: Callable[[], bool]) -> float | None:
            if key == ONE:
                assert may_write() and workers.write_slots.may_write(TWO)
                workers.add(DEMO)
                await failed.wait()
                return None
            assert not may_write()
            failed.set()
            raise ApiError(500, "InternalError", "etcdserver: request timed out")

        workers.add(ONE)
        working = asyncio.create_task(workers.work(reconcile))
        async with asyncio.timeout(60):
            while ONE not in queue.ended:
                await asyncio.sleep(0.001)
        working.cancel()

    asyncio.run(run())
    assert queue.backs_off(DEMO)
    assert workers.write_slots.may_write(Key("lab", "another"))
