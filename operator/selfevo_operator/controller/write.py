"""The status of a run is written where it differs, and an Event is created of what has changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus
from selfevo_core.attempts import stamp
from selfevo_operator.api.kube import Api, ApiError
from selfevo_operator.controller.memory import AT_ONCE, Memories
from selfevo_operator.observed.cache import Cache, RunSnapshot
from selfevo_operator.writes.events import event
from selfevo_operator.writes.status_patch import status_patch

_QUIET_S = 2.0
"""Changes that no decision hangs on (a pod runs now) are written at most this often for one run."""

Wrote = Callable[[RunSnapshot, RunStatus, RunStatus], None]
"""The status of a run is recorded: what it was, and what it is."""


class StatusWriter:
    """Writes statuses, each against the version that it was decided by."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        clock: Callable[[], datetime],
        memories: Memories,
        fact: Callable[[str], None],
        wrote: Wrote = lambda run, before, after: None,
    ) -> None:
        self._api, self._cache, self._clock, self._memories, self._fact = api, cache, clock, memories, fact
        self._wrote = wrote

    async def write(
        self,
        snapshot: RunSnapshot,
        run: SelfEvolutionRun | None,
        recorded: dict[str, Any],
        before: RunStatus,
        status: RunStatus,
    ) -> float | None:
        """Write the status where it differs, and create an Event of it; AT_ONCE when somebody else was faster."""
        patch = status_patch(recorded, status, snapshot.version)
        if not patch:
            return None
        key, memory = snapshot.key, self._memories[snapshot.uid]
        try:
            written = await self._api.patch_status(key.namespace, key.name, patch)
        except ApiError as error:
            if error.status == 404:
                self._cache.drop_run(key, snapshot.uid)
                return None
            if error.status not in (409, 422):
                if error.status == 0 or error.status >= 500:
                    memory.doubted = snapshot.version
                raise
            memory.doubted = snapshot.version
            current = await self._api.get_run(key.namespace, key.name)
            memory.doubted = None
            if self._cache.put_run(current) is None and int(current["metadata"]["resourceVersion"]) <= snapshot.version:
                raise  # not a conflict: the server does not like what we write
            return AT_ONCE
        self._cache.put_run(written)
        memory.wrote_at = self._clock()
        self._wrote(snapshot, before, status)
        if run is not None:
            await self._create_event(run, before, status)
        return None

    async def _create_event(self, run: SelfEvolutionRun, before: RunStatus, status: RunStatus) -> None:
        made = event(run, before, status, stamp(self._clock()) or "")
        if made is None:
            return
        self._fact(made["reason"])
        with contextlib.suppress(ApiError):  # created before, or refused: the status is the record
            await self._api.create_event(run.metadata.namespace, made)

    def quiet_for(self, uid: str, before: RunStatus, after: RunStatus) -> float:
        """Seconds for which a change that decides nothing is kept back."""
        wrote_at = self._memories[uid].wrote_at
        if wrote_at is None or before == after or _weight(before) != _weight(after):
            return 0.0
        return _QUIET_S - (self._clock() - wrote_at).total_seconds()


def _weight(status: RunStatus) -> tuple[object, ...]:
    """What of a status decisions hang on."""
    steps = [
        (s.name, s.key, s.attempts, s.ended, s.failures, s.retry_at, s.state in ("Succeeded", "Failed"))
        for s in status.steps
    ]
    conditions = [(c.type, c.status, c.reason) for c in status.conditions if c.status == "True"]
    return status.phase, status.observed_generation, steps, conditions
