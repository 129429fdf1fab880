"""Changes, sent to open pages as server-sent events: the state that a page should have, whenever it is another."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

EVERY_S = 2.0
"""Between two polls of one run, however many pages wait for it; longer where a poll takes long."""
SHARE = 0.1
"""Of the time that is spent polling, at most."""
BEAT_S = 15.0
"""Without anything new, a comment goes out so often: what lies between would take silence for an end."""
MOST = 100
"""Pages that are served at the same time."""


def digest_of(*content: Any) -> str:
    """A short name of what a page says."""
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()[:16]


class Live:
    """Polls for all pages that are open, and ends with the server."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.every_s = every_s
        self.closing = False
        self.open = 0
        self._seen: dict[str, tuple[float, str]] = {}
        """Until when a state is taken as it is, by its name."""
        self._lock = threading.Lock()

    def state(self, name: str, read: Callable[[], str]) -> str:
        """What ``read`` returns, or returned a moment ago."""
        with self._lock:
            begun = time.monotonic()
            until, state = self._seen.get(name, (0.0, ""))
            if begun >= until:
                state = read()
                took = time.monotonic() - begun
                self._seen[name] = (begun + took + max(0.9 * self.every_s, took / SHARE), state)
            return state

    async def events(self, name: str, read: Callable[[], str]) -> AsyncIterator[str]:
        """The state now, and each other one that follows it, as the lines of an event stream."""
        last, quiet = None, 0.0
        self.open += 1
        try:
            while not self.closing:
                state = await run_in_threadpool(self.state, name, read)
                if state != last:
                    yield f"event: state\ndata: {state}\n\n"
                    last, quiet = state, 0.0
                elif quiet >= BEAT_S:
                    yield ": nothing new\n\n"
                    quiet = 0.0
                await asyncio.sleep(self.every_s)
                quiet += self.every_s
        finally:
            self.open -= 1
