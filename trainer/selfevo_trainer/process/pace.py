"""How fast a phase generates, from the time at which it began to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from selfevo_trainer.engines.base import Completion


class Speed(Protocol):
    """What a line of progress says of how fast it goes on."""

    @property
    def tokens_per_second(self) -> float | None: ...

    @property
    def truncated_share(self) -> float | None: ...

    def seconds_left(self, count: int) -> float | None: ...


class Pace:
    """Counts what was generated since it was made."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun = now()
        self._completions = self._tokens = self._truncated = 0

    def add(self, completions: Iterable[Completion]) -> None:
        """``completions`` were generated."""
        for completion in completions:
            self._completions += 1
            self._tokens += completion.tokens
            self._truncated += completion.truncated

    @property
    def tokens_per_second(self) -> float | None:
        """None before the first completion, as all else here."""
        return self._tokens / self._spent if self._completions else None

    @property
    def truncated_share(self) -> float | None:
        """Of the completions, those that were cut at maxCompletionLength."""
        return self._truncated / self._completions if self._completions else None

    def seconds_left(self, count: int) -> float | None:
        """How long ``count`` more completions take at this pace."""
        return count * self._spent / self._completions if self._completions else None

    @property
    def _spent(self) -> float:
        return max(self._now() - self._begun, 1e-9)


class UpdatePace:
    """How fast a training goes on, from its first update here: what it generates in all of its time, learning too."""

    truncated_share: float | None = None
    """TRL counts it: a figure among others."""

    def __init__(self, tokens: Callable[[], int], now: Callable[[], float] = time.monotonic) -> None:
        """``tokens``: how many were generated since the process began."""
        self._count, self._now = tokens, now
        self._begun, self._before, self._tokens_before = now(), 0, tokens()
        self._done = self._total = 0

    def begins(self, updates: int) -> None:
        """Training begins after ``updates``, those of earlier attempts."""
        self._begun, self._before, self._tokens_before = self._now(), updates, self._count()
        self._done = updates

    def did(self, updates: int, total: int) -> None:
        """So many updates of ``total`` are done."""
        self._done, self._total = updates, total

    @property
    def tokens_per_second(self) -> float | None:
        """None where nothing was generated, as in training on given answers."""
        made = self._count() - self._tokens_before
        return made / self._spent if made > 0 else None

    def seconds_left(self, _: int) -> float | None:
        """Until the last update, at the pace of those that were done here; None before the first."""
        here = self._done - self._before
        return (self._total - self._done) * self._spent / here if here > 0 else None

    @property
    def _spent(self) -> float:
        return max(self._now() - self._begun, 1e-9)
