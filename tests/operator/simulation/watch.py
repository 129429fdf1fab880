"""A watch stream: events of one kind in their order, but late, merged, twice, or not at all.

A stream that breaks loses what happens meanwhile, and shows what exists when it comes back: of what was deleted in
between it says nothing. Streams of different kinds know nothing of each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.apiserver import MANAGED_BY, Kind, Object

if TYPE_CHECKING:
    from simulation.world import World


class Stream:
    """What one operator process sees of one kind, until it is closed."""

    def __init__(
        self, world: World, kind: Kind, saw: Callable[[str | None, Object], None], began: Callable[[], None]
    ) -> None:
        self._world, self._kind, self._saw, self._began = world, kind, saw, began
        self._pending: deque[tuple[float, str | None, Object]] = deque()
        self._last = 0.0
        self._broken = False
        self.closed = False
        self._shown: set[str] = set()
        """UIDs of what the selector lets through."""
        self._relist()

    @property
    def blind(self) -> bool:
        """What has happened a second ago is not sent yet."""
        return self._broken or self._last > self._world.agenda.now + 1

    def notice(self, how: str, obj: Object) -> None:
        """Something happened at the API server."""
        world = self._world
        if self._broken:
            return
        uid = obj["metadata"]["uid"]
        if how != "DELETED" and not selected(self._kind, obj):
            if uid not in self._shown:
                return
            how = "DELETED"  # so a watch tells that the selector does not fit any more
        elif how == "MODIFIED" and uid not in self._shown:
            how = "ADDED"
        if how == "DELETED":
            if uid not in self._shown:
                return
            self._shown.discard(uid)
        else:
            self._shown.add(uid)
        if world.chance(world.faults.breaks):
            self._broken = True
            self._pending.clear()
            world.agenda.after(world.rng.uniform(0.1, 40), self._repair)
            return
        if self._pending and world.chance(0.3):  # both have happened before anybody read it
            _, before, older = self._pending[-1]
            if how == "MODIFIED" and before != "DELETED" and older["metadata"]["uid"] == obj["metadata"]["uid"]:
                self._pending.pop()
        self._plan(how, obj)
        if world.chance(0.05):
            self._plan(how, obj)

    def stall(self, seconds: float) -> None:
        """What comes from now on comes late."""
        self._last = max(self._last, self._world.agenda.now + seconds)

    def _plan(self, how: str | None, obj: Object) -> None:
        world = self._world
        delay = 0.005
        if world.faulty:
            delay = world.rng.uniform(1, 20) if world.chance(world.faults.stalls) else world.rng.uniform(0.001, 0.2)
        self._last = max(self._last, world.agenda.now + delay)
        self._pending.append((self._last, how, obj))
        world.agenda.at(self._last, self._deliver)

    def _deliver(self) -> None:
        while self._pending and self._pending[0][0] <= self._world.agenda.now:
            _, how, obj = self._pending.popleft()
            if not self.closed:
                self._saw(how, obj)
                if self._world.chance(0.03):  # an old one again, after newer ones
                    self._plan(how, obj)

    def _repair(self) -> None:
        self._broken = False
        self._relist()
        self._began()

    def _relist(self) -> None:
        there = [obj for obj in self._world.api.snapshot(self._kind)[0] if selected(self._kind, obj)]
        self._shown = {obj["metadata"]["uid"] for obj in there}
        for obj in there:
            self._plan(None, obj)


def selected(kind: Kind, obj: Object) -> bool:
    """Whether lists and watches find the object: Jobs by the operator's label."""
    return kind != "jobs" or (obj["metadata"].get("labels") or {}).get(MANAGED_BY) == "selfevo-operator"
