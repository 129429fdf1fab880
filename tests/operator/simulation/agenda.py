"""Virtual time: things that are due, in the order of their time. Nothing ever sleeps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Agenda:
    """What is due when. ``now`` is in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._count, do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.at(self.now + seconds, do)

    def next(self) -> float | None:
        return self._due[0][0] if self._due else None

    def run_until(self, end: float) -> None:
        """Let everything happen that is due until ``end``, and be there then."""
        while self._due and self._due[0][0] <= end:
            when, _, do = heapq.heappop(self._due)
            self.now = max(self.now, when)
            do()
        self.now = max(self.now, end)

    def clock(self) -> datetime:
        return EPOCH + timedelta(seconds=self.now)

    def stamp(self) -> str:
        """Now, as Kubernetes writes it: whole seconds."""
        return self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
