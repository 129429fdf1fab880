"""The work queue: which key is reconciled next. Pure but for its state: time is handed in.

As client-go's: a key waits once however often it is added; a key that is added while it is being worked on comes again
afterwards, never beside itself; a key that failed comes back after a delay that grows with each failure in a row, and
not before. Keys that something hangs on come first, but not always, so that the others come too.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_PREFERRED = 3
"""Pressing keys before a calm one that waits."""
_CALM_AT_ONCE = 8
"""Calm keys that are worked on at a time: what is pressing finds a free worker, and a server with less to do."""


@dataclass(frozen=True)
class Backoff:
    """0.1 s, 0.2 s, 0.4 s, ... 30 s after failures in a row."""

    base: float = 0.1
    cap: float = 30.0

    def delay(self, failures: int) -> float:
        return min(self.cap, self.base * (1 << min(failures - 1, 30)))


@dataclass
class WorkQueue(Generic[K]):
    """Keys to reconcile. Times are seconds of one clock."""

    backoff: Backoff = Backoff()
    _pressing: dict[K, float] = field(default_factory=dict)
    """Ready keys that come first, and since when they are ready."""
    _calm: dict[K, float] = field(default_factory=dict)
    """The other ready keys."""
    _preferred: int = 0
    """Keys that were taken in a row while a calm one waited."""
    _working: dict[K, float] = field(default_factory=dict)
    _working_calmly: set[K] = field(default_factory=set)
    """Those of them that were calm."""
    _again: dict[K, bool] = field(default_factory=dict)
    """Keys added while they were worked on, and whether that was pressing."""
    _later: list[tuple[float, int, K]] = field(default_factory=list)
    _due: dict[K, float] = field(default_factory=dict)
    """When a key of ``_later`` really comes; entries of the heap with another time are out of date."""
    _failures: dict[K, int] = field(default_factory=dict)
    _backing_off: set[K] = field(default_factory=set)
    """Keys whose wait after a failure is not over."""
    _count: int = 0

    def add(self, key: K, now: float, *, pressing: bool = True) -> None:
        """Reconcile ``key`` as soon as possible; after a failure, when its wait is over."""
        if self.backs_off(key):
            return  # it comes, with all that happens until then
        self._due.pop(key, None)
        if key in self._working:
            self._again[key] = pressing or self._again.get(key, False)
        elif key in self._pressing:
            return
        elif pressing:
            self._pressing[key] = self._calm.pop(key, now)
        else:
            self._calm.setdefault(key, now)

    def add_at(self, key: K, at: float) -> None:
        """Reconcile ``key`` at ``at``, or earlier if something else asks for it."""
        ready = key in self._pressing or key in self._calm or key in self._again
        if ready or self.backs_off(key) or self._due.get(key, at + 1) <= at:
            return
        self._wait_until(key, at)

    def backs_off(self, key: K) -> bool:
        """Whether ``key`` failed and its wait is not over: until then nothing makes it come."""
        return key in self._backing_off

    def _wait_until(self, key: K, at: float) -> None:
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._later, (at, self._count, key))

    def take(self, now: float) -> K | None:
        """The next key, now being worked on; None when there is none. Of each kind, first come, first served."""
        self._wake(now)
        room = self._calm and len(self._working_calmly) < _CALM_AT_ONCE
        calm = room and (not self._pressing or self._preferred >= _PREFERRED)
        ready = self._calm if calm else self._pressing
        if not ready:
            return None
        self._preferred = self._preferred + 1 if self._calm and not calm else 0
        key = next(iter(ready))
        del ready[key]
        self._working[key] = now
        if calm:
            self._working_calmly.add(key)
        return key

    def done(self, key: K, now: float, *, failed: bool = False, delay: float = 0.0, postponed: bool = False) -> float:
        """Work on ``key`` has ended. After a failure it comes again by itself, after ``delay`` seconds at least.

        Args:
            postponed: it did not fail, and what may fail was left for later; so its failures in a row go on.

        Returns:
            the seconds until it comes again by itself; 0 after a success.
        """
        self._working.pop(key, None)
        self._working_calmly.discard(key)
        if key in self._again and not failed:
            self.add(key, now, pressing=self._again.pop(key))
        if not failed:
            if not postponed:
                self._failures.pop(key, None)
            return 0.0
        # Also when something has happened meanwhile: an API server that refuses is not to be hammered by events.
        self._again.pop(key, None)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = max(delay, self.backoff.delay(failures))
        self._backing_off.add(key)
        self._wait_until(key, now + wait)
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
            self._backing_off.discard(key)
            self.add(key, now, pressing=False)

    @property
    def depth(self) -> int:
        """Keys that are ready."""
        return len(self._pressing) + len(self._calm)

    def age(self, now: float) -> float:
        """Seconds that the oldest ready key has waited."""
        first = [next(iter(ready.values())) for ready in (self._pressing, self._calm) if ready]
        return now - min(first) if first else 0.0

    def longest_work(self, now: float) -> float:
        """Seconds since the work that has taken longest so far began."""
        return now - min(self._working.values()) if self._working else 0.0
