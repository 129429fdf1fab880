"""What a process spends its time on."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

from selfevo_trainer.process.traces import Trace


class Clock:
    """Seconds by activity. Nested activities are not counted twice: the inner one's time is taken from the outer's."""

    def __init__(self, trace: Trace | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []
        self._trace = trace or Trace()
        self.tokens = 0
        """Tokens that were generated."""

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count the time inside as ``activity``."""
        begun = time.perf_counter()
        self._inner.append(0.0)
        try:
            with self._trace.part(activity):
                yield
        finally:
            spent = time.perf_counter() - begun
            self.seconds[activity] += spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    def started(self, since: float) -> None:
        """What the phase needs is imported; the process began at ``since``, a Unix time."""
        now = time.time()
        self.seconds["startup"] = now - since
        self._trace.passed("startup", since, now)
