"""The runs that have left a record in a store: all that the pages say of them is read there."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from selfevo.stores import committed_steps, open_at, open_run_store
from selfevo.ui.runs import Runs, Shown, Unread
from selfevo.verbs.show import as_committed
from selfevo_contract.errors import SelfevoError
from selfevo_contract.plan import is_outdated, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import parsed
from selfevo_contract.spec.storage import Storage
from selfevo_contract.status import RunStatus
from selfevo_store import ObjectStore, known_records

LISTED_S = 2.0
"""For so long a list of records is taken as it is."""

Found = SelfEvolutionRun | Unread


class StoreRuns(Runs):
    """Of several stores, a run that an earlier one has by the same name bears its store's number: demo@2."""

    unknown = (
        "The store has what runs have made, and not where they stand: Unknown is a run whose outputs are not all "
        "there, whether or not anybody is at work on it; its record folder or its cluster knows more."
    )

    def __init__(self, stores: Sequence[Storage], workdir: Path) -> None:
        super().__init__(workdir)
        self.stores = [(storage, open_at(storage)) for storage in stores]
        self._read: dict[tuple[str, str], Found] = {}
        """By the record's address and the name that is shown. A record is final, damaged or not."""
        self._listed: dict[tuple[str, str], Found] = {}
        self._until = 0.0
        self._listing = threading.Lock()

    @property
    def nothing(self) -> str:
        where = " and ".join(store.uri for _, store in self.stores)
        return (
            f"No run has left a record in {where}: `selfevo run MANIFEST` leaves one, also of a run that is done, and "
            "`selfevo ui MANIFEST --storage URI` shows a run without one."
        )

    def look(self) -> None:
        """Look for records now.

        Raises:
            SelfevoError: a store cannot be used.
        """
        self._known()

    def _known(self) -> dict[tuple[str, str], Found]:
        with self._listing:
            if time.monotonic() >= self._until:
                listed: dict[tuple[str, str], Found] = {}
                for number, (storage, store) in enumerate(self.stores, 1):
                    for (namespace, name), key in known_records(store).items():
                        shown = f"{name}@{number}" if (namespace, name) in listed else name
                        listed[namespace, shown] = self._at(key, storage, store, namespace, shown)
                self._listed, self._until = listed, time.monotonic() + LISTED_S
            return self._listed

    def _at(self, key: str, storage: Storage, store: ObjectStore, namespace: str, name: str) -> Found:
        place = store.uri_of(key), name
        found = self._read.get(place)
        if found is not None:
            return found
        try:
            data = store.read_bytes(key)
        except SelfevoError as error:  # another time it may be read
            return Unread(namespace, name, str(error))
        try:
            run = parsed(data, key, store.uri_of(key)).run
        except SelfevoError as error:
            found = Unread(namespace, name, str(error))
        else:  # as it lies there, which may be a copy of the store that the run was told
            metadata = run.metadata.model_copy(update={"name": name})
            spec = run.spec.model_copy(update={"storage": storage})
            found = run.model_copy(update={"metadata": metadata, "spec": spec})
        self._read[place] = found
        return found

    def _shown(self, run: SelfEvolutionRun) -> Shown:
        store, record = open_run_store(run), run.status or RunStatus()
        plan = plan_of(run.spec, record)
        committed = committed_steps(run, plan, store, self._manifests)
        status = as_committed(run, record, plan, committed)
        while is_outdated(plan, status):  # what was fine-tuned or published, which the scores say
            plan = plan_of(run.spec, status)
            committed = committed_steps(run, plan, store, self._manifests)
            status = as_committed(run, status, plan, committed)
        return Shown(run, plan, store, status, committed, driven=None)
