"""How fast a phase generates, from the time at which it began to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from selfevo_trainer.engines.base import Completion


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

    def seconds_left(self, completions: int) -> float | None:
        """How long ``completions`` more take at this pace."""
        return completions * self._spent / self._completions if self._completions else None

    @property
    def _spent(self) -> float:
        return max(self._now() - self._begun, 1e-9)
