"""Who may write a status now. Pure but for its state.

Under load the API server is the narrow place, and a status is worth less than the next Job. So only a few records are
written at a time. A run that finds no slot is reconciled again when one is free, in the order of asking. Until then
its steps go on, and the record that is written in the end has what has become true meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WriteSlots(Generic[K]):
    """Room for ``places`` records at a time."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._holders: set[K] = set()
        self._waiting: dict[K, None] = {}

    def may_write(self, key: K) -> bool:
        """Whether ``key`` may write its record in this reconcile; if not, `end` names it later."""
        if key in self._holders:
            return True
        if self._free == 0:
            self._waiting[key] = None
            return False
        self._free -= 1
        self._holders.add(key)
        self._waiting.pop(key, None)
        return True

    def wait(self, key: K) -> bool:
        """Have ``key``, which is to be reconciled for its record alone, wait for a slot; False when one is free."""
        if self._free:
            return False
        self._waiting.setdefault(key)
        return True

    def end(self, key: K, may_come: Callable[[K], bool] = lambda key: True) -> K | None:
        """A reconcile of ``key`` has ended. Returns the key that has its slot now and is to be reconciled again.

        One that may not come now would hold the slot and not use it: it asks again when it comes.
        """
        if key not in self._holders:
            return None
        self._holders.discard(key)
        while self._waiting:
            following = next(iter(self._waiting))
            del self._waiting[following]
            if may_come(following):
                self._holders.add(following)
                return following
        self._free += 1
        return None
