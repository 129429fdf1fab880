"""Whether a watch is dead. Pure but for its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from selfevo_operator.runtime.errors import OperatorError


class WatchJudge:
    """A list may be a little ahead of a watch; twice in a row, with no event in between, the watch is dead."""

    def __init__(self, resync_seconds: float) -> None:
        self._resync_seconds = resync_seconds
        self._events: Counter[str] = Counter()
        """Watch events since the last list, by resource."""
        self._silent: Counter[str] = Counter()
        """Lists in a row that knew more than a watch without an event."""

    def event(self, resource: str) -> None:
        """The watch of the resource has brought an event."""
        self._events[resource] += 1

    def judge(self, changed: Mapping[str, Collection[object]]) -> None:
        """A list has been read, and showed these changes of each resource.

        Raises:
            OperatorError: the watch of a resource is dead.
        """
        for resource, keys in changed.items():
            events = self._events.pop(resource, 0)
            self._silent[resource] = self._silent[resource] + 1 if keys and not events else 0
            if self._silent[resource] > 1:
                raise OperatorError(
                    f"the watch of {resource} has been silent for {2 * self._resync_seconds:.0f} s while they "
                    "changed; starting anew"
                )
