"""The work queue: which key is looked at next. Pure but for its state: time is handed in.

As client-go's: a key waits once however often it is added; a key that is added while it is being worked on comes again
afterwards, never beside itself; a key that failed comes back after a delay that grows with each failure in a row.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Backoff:
    """0.1 s, 0.2 s, 0.4 s, ... 30 s after failures in a row."""

    base: float = 0.1
    cap: float = 30.0

    def delay(self, failures: int) -> float:
        return min(self.cap, self.base * (1 << min(failures - 1, 30)))


@dataclass
class WorkQueue(Generic[K]):
    """Keys to look at. Times are seconds of one clock."""

    backoff: Backoff = Backoff()
    _ready: deque[K] = field(default_factory=deque)
    _since: dict[K, float] = field(default_factory=dict)
    """Ready keys, and since when."""
    _working: dict[K, float] = field(default_factory=dict)
    _again: set[K] = field(default_factory=set)
    """Keys added while they were worked on."""
    _later: list[tuple[float, int, K]] = field(default_factory=list)
    _due: dict[K, float] = field(default_factory=dict)
    """When a key of ``_later`` really comes; entries of the heap that say otherwise are out of date."""
    _failures: dict[K, int] = field(default_factory=dict)
    _count: int = 0

    def add(self, key: K, now: float) -> None:
        """Look at ``key`` as soon as possible; after a failure, when its wait is over."""
        if key in self._failures and key in self._due:
            return  # it comes, with all that happens until then
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = now
            self._ready.append(key)

    def add_at(self, key: K, at: float) -> None:
        """Look at ``key`` at ``at``, or earlier if something else asks for it."""
        if key in self._since or key in self._again or self._due.get(key, at + 1) <= at:
            return
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._later, (at, self._count, key))

    def take(self, now: float) -> K | None:
        """The key that has waited longest, now being worked on; None when there is none."""
        self._wake(now)
        if not self._ready:
            return None
        key = self._ready.popleft()
        del self._since[key]
        self._working[key] = now
        return key

    def done(self, key: K, now: float, *, failed: bool = False, delay: float = 0.0) -> float:
        """Work on ``key`` has ended. After a failure it comes again by itself, after ``delay`` seconds at least.

        Returns:
            the seconds until it comes again by itself; 0 after a success.
        """
        self._working.pop(key, None)
        if key in self._again and not failed:
            self._again.discard(key)
            self.add(key, now)
        if not failed:
            self._failures.pop(key, None)
            return 0.0
        # Also when something has happened meanwhile: an API server that refuses is not to be hammered by events.
        self._again.discard(key)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = max(delay, self.backoff.delay(failures))
        self.add_at(key, now + wait)
        return wait

    def next_due(self) -> float | None:
        """When the next key of those that wait for a time comes."""
        while self._later and self._due.get(self._later[0][2]) != self._later[0][0]:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def _wake(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            _, _, key = heapq.heappop(self._later)
            del self._due[key]
            self.add(key, now)

    @property
    def depth(self) -> int:
        """Keys that are ready."""
        return len(self._ready)

    def age(self, now: float) -> float:
        """Seconds that the oldest ready key has waited."""
        return now - self._since[self._ready[0]] if self._ready else 0.0

    def longest_work(self, now: float) -> float:
        """Seconds since the work that has taken longest so far began."""
        return now - min(self._working.values()) if self._working else 0.0

    def pending(self) -> bool:
        """Whether any key is ready or worked on."""
        return bool(self._ready or self._working or self._again)
