"""Calls that wait, side by side in threads, for a main thread that can be interrupted at any moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

Made = TypeVar("Made")


def in_parallel(call: Callable[[int], Made], count: int, limit: int) -> list[Made]:
    """``[call(0), ..., call(count - 1)]``, at most ``limit`` at once, begun in this order.

    The threads are daemons: one that waits for an answer keeps no process alive that has been asked to end, as those of
    `concurrent.futures` do.

    Raises:
        ValueError: a limit below 1, by which nothing would ever be called.
        BaseException: the first that a call raised; no further call is begun, and those under way are left alone.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}")
    results: list[Made | None] = [None] * count
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    numbers = iter(range(count))
    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                results[number] = call(number)
            except BaseException as error:
                ended.put(error)
                return
            ended.put(None)

    for _ in range(min(limit, count)):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(count):
            if (error := ended.get()) is not None:
                raise error
    finally:
        stop.set()
    return results  # type: ignore[return-value]
