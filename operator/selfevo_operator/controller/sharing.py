"""Steps that several live runs have in common: one of them makes it, the others wait, and find it when it is there.

Two runs of a namespace whose specs agree in all that a step follows from have one key for it, and one place in their
store (docs/design.md, decision 1). Whose Job exists first has the step; of those that are reconciled in the same
moment that is the one that comes first. When its Job ends, however that is, the others are reconciled: what was
committed they find, and what was not, the first of them makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from selfevo_contract.plan import Plan
from selfevo_contract.status import RunStatus
from selfevo_core.attempts import Action, Start
from selfevo_operator.observed.cache import Cache, Key, RunSnapshot

_Place = tuple[str, str, str]
"""Namespace, store and key of a step."""


class Sharing:
    """All of it may be forgotten at any time: at worst, a step is made twice, and committed once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._claims: dict[_Place, tuple[str, str]] = {}
        """Where a Job is being created: UID of the run that has the step, and who that is."""
        self._waiting: dict[_Place, set[Key]] = {}

    def elsewhere(self, snapshot: RunSnapshot, store: str, plan: Plan, before: RunStatus) -> dict[str, str]:
        """Keys of steps that another run has in work, and who that is."""
        done = {step.key for step in before.steps if step.state == "Succeeded"}
        found: dict[str, str] = {}
        for step in plan.steps:
            place = (snapshot.key.namespace, store, step.key)
            if step.key not in done and (who := self._who(place, snapshot.uid)):
                found[step.key] = who
                self._waiting.setdefault(place, set()).add(snapshot.key)
        return found

    @contextmanager
    def claimed(self, snapshot: RunSnapshot, store: str, actions: Iterable[Action]) -> Iterator[None]:
        """While Jobs are being created, the steps are this run's."""
        places = [(snapshot.key.namespace, store, action.step.key) for action in actions if isinstance(action, Start)]
        mine = {place: (snapshot.uid, f"run {snapshot.key.name}") for place in places if place not in self._claims}
        self._claims |= mine
        try:
            yield
        finally:
            for place in mine:
                self._claims.pop(place, None)

    def freed(self) -> set[Key]:
        """Runs that wait for what nobody has in work any more; each is returned once."""
        free = [place for place in self._waiting if not self._who(place, "")]
        return {key for place in free for key in self._waiting.pop(place)}

    def _who(self, place: _Place, but: str) -> str:
        """Who has the step in work, another one than the run with the UID ``but``; empty when nobody has."""
        claim = self._claims.get(place)
        if claim is not None and claim[0] != but:
            return claim[1]
        namespace, store, key = place
        for job in self._cache.jobs_with(namespace, key):
            if job.owner and job.owner != but and not job.finished:
                run = self._cache.runs.get(Key(namespace, job.run))
                if run is not None and run.uid == job.owner and run.store == store:
                    return f"run {job.run} (Job {job.name})"
        return ""
