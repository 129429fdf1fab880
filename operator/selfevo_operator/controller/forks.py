"""Runs that go on from another one (spec.forkFrom), and wait for it until their record says what they begin with."""

from __future__ import annotations

from pydantic import ValidationError

from selfevo_contract.errors import InputError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.layout import laid_out
from selfevo_contract.status import Fork
from selfevo_core.policies import NotFound
from selfevo_core.policies.forking import beginning_of
from selfevo_operator.observed.cache import Cache, Key


class Forks:
    """All of it may be forgotten at any time: a run that waits is reconciled again after a while."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._waiting: dict[Key, dict[Key, int]] = {}
        """By the run that is waited for: who waits, and the version that it has seen; 0 where there was none."""

    def beginning(self, run: SelfEvolutionRun) -> Fork | NotFound | None:
        """What ``run`` begins with, by what is known of the other run; None when it is recorded, or it forks none."""
        asked = run.spec.fork_from
        if asked is None or (run.status is not None and run.status.fork is not None):
            return None
        namespace = run.metadata.namespace
        source = Key(namespace, asked.run)
        self._waiting.setdefault(source, {})[Key(namespace, run.metadata.name)] = self._version(source)
        found = self._cache.runs.get(source)
        if found is None:
            return beginning_of(run, None)
        try:
            other = laid_out(SelfEvolutionRun.model_validate({**found.document(), "status": found.recorded()}))
        except (ValidationError, InputError):
            return NotFound(f"spec.forkFrom.run is {asked.run!r}, which makes no sense; correct that run", stuck=True)
        return beginning_of(run, other)

    def changed(self) -> list[Key]:
        """Who waits for a run that is not as it was; each is returned once."""
        return [waiter for source in list(self._waiting) for waiter in self._woken(source)]

    def _woken(self, source: Key) -> list[Key]:
        waiting, version = self._waiting[source], self._version(source)
        woken = [waiter for waiter, seen in waiting.items() if seen != version]
        for waiter in woken:
            del waiting[waiter]
        if not waiting:
            del self._waiting[source]
        return woken

    def _version(self, source: Key) -> int:
        known = self._cache.runs.get(source)
        return known.version if known else 0
