"""Runs by the records that they have left in a store: which there are, and where one stands by what is committed."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfevo.manifest import store_of
from selfevo.stores import committed_steps, is_there, open_at, open_run_store
from selfevo.verbs.show import as_committed
from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan, is_outdated, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import RunRecord
from selfevo_contract.spec.storage import Storage
from selfevo_contract.status import RunStatus

if TYPE_CHECKING:
    from selfevo_store import ObjectStore

_NAMED = 12
"""Most runs that a message names."""


@dataclass(frozen=True)
class Stored:
    """Where a run stands by its store alone."""

    run: SelfEvolutionRun
    plan: Plan
    store: ObjectStore
    status: RunStatus
    committed: dict[str, Manifest]
    """By the step's name."""


def run_in(storage: Storage, record: RunRecord) -> SelfEvolutionRun:
    """The run of ``record`` in the store where that lies, which may be a copy of the one that its spec names."""
    run = record.run
    return run.model_copy(update={"spec": run.spec.model_copy(update={"storage": storage})})


def standing(run: SelfEvolutionRun, known: MutableMapping[str, Manifest] | None = None) -> Stored:
    """Where ``run`` of a record stands.

    Args:
        known: as of `committed_steps`.

    Raises:
        SelfevoError: its store failed, or what it has is another's.
    """
    store, record = open_run_store(run), run.status or RunStatus()
    plan = plan_of(run.spec, record)
    committed = committed_steps(run, plan, store, record, known)
    status = as_committed(run, record, plan, committed)
    while is_outdated(plan, status):  # what was fine-tuned or published, which the scores say
        plan = plan_of(run.spec, status)
        committed = committed_steps(run, plan, store, record, known)
        status = as_committed(run, status, plan, committed)
    return Stored(run, plan.keeping(committed), store, status, committed)


def stored_run(place: str, name: str | None) -> Stored:
    """The run in the store at ``place`` that is called ``name``, or ``namespace/name``; the only one without a name.

    Raises:
        InputError: there is none of that name, or more than one.
        SelfevoError: the store cannot be used, or the record cannot be read.
    """
    from selfevo_store import known_records, read_record

    storage = store_of(place)
    store = open_at(storage)
    if not is_there(storage):
        raise InputError(f"{store.uri} is no folder; name a store that a run has written to")
    records = known_records(store)
    found = {"/".join(of): key for of, key in records.items() if name in (None, of[1], "/".join(of))}
    if len(found) != 1:
        raise InputError(_which(store.uri, name, sorted(found) or sorted("/".join(of) for of in records), bool(found)))
    [key] = found.values()
    return standing(run_in(storage, read_record(store, key)))


def _which(uri: str, name: str | None, runs: list[str], several: bool) -> str:
    if not runs:
        return f"no run has left a record in {uri}; `selfevo run MANIFEST` leaves one, also of a run that is done"
    listed = ", ".join(runs[:_NAMED]) + (f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else "")
    if several:
        return f"{uri} has {len(runs)} runs{f' called {name}' if name else ''}: {listed}; say which one by name="
    return f"no run called {name!r} has left a record in {uri}; there are {listed}"
