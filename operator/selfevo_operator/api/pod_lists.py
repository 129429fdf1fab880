"""Pods of many Jobs in one LIST, where many ask at the same time.

For each LIST the API server walks through all pods of the namespace, however few it finds: 7 ms of its time with 3,000
of them. So there is one at a time in a namespace and a pause after it, a quarter as long as it took, and whoever comes
meanwhile shares the next one. A server that has time answers at once, and then there is nothing to wait for.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
Pod = dict[str, Any]
_PAUSE, _LONGEST_PAUSE_S = 0.25, 1.0
"""As many times as long as a LIST took."""
_MOST = 50
"""Jobs in one LIST: one of a sharded rollout may have some dozens of pods."""


class _Place(NamedTuple):
    namespace: str
    cached: bool


class PodLists:
    """Asks for the pods of Jobs.

    Args:
        ask: namespace, UIDs of Jobs, whether the API server's cache will do -> their pods, in any order.
    """

    def __init__(self, ask: Callable[[str, Sequence[str], bool], Awaitable[list[Pod]]]) -> None:
        self._ask = ask
        self._waiting: dict[_Place, dict[str, asyncio.Future[list[Pod]]]] = {}
        self._serving: dict[_Place, asyncio.Task[None]] = {}

    async def of(self, namespace: str, job_uid: str, *, cached: bool) -> list[Pod]:
        """The pods of one Job; what ``ask`` raises is raised to all who share it."""
        place = _Place(namespace, cached)
        waiting = self._waiting.setdefault(place, {})
        future = waiting.get(job_uid)
        if future is None:
            future = waiting[job_uid] = asyncio.get_running_loop().create_future()
        if place not in self._serving:
            self._serving[place] = asyncio.create_task(self._serve(place))
        return await asyncio.shield(future)

    async def _serve(self, place: _Place) -> None:
        waiting = self._waiting[place]
        while waiting:
            served = {uid: waiting.pop(uid) for uid in list(waiting)[:_MOST]}
            began = time.monotonic()
            try:
                pods = await self._ask(place.namespace, list(served), place.cached)
            except Exception as error:
                for future in served.values():
                    future.set_exception(error)
                    future.exception()  # whoever asked may have gone
            else:
                found: defaultdict[str, list[Pod]] = defaultdict(list)
                for pod in pods:
                    found[pod["metadata"]["labels"][CONTROLLER_UID]].append(pod)
                for uid, future in served.items():
                    future.set_result(found[uid])
            await asyncio.sleep(min(_LONGEST_PAUSE_S, _PAUSE * (time.monotonic() - began)))
        del self._serving[place]
