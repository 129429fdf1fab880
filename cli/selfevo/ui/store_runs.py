"""The runs that have left a record in a store: all that the pages say of them is read there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfevo.stored import standing
from selfevo.ui.listed import Found, Listed
from selfevo.ui.runs import Runs, Shown, Unread
from selfevo_contract.errors import SelfevoError, ServiceError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.storage import Storage


class StoreRuns(Runs):
    """Of several stores, a run that an earlier one has by the same name bears its store's number: demo@2.

    A store that fails leaves the others' runs to be shown, by the names that they have beside its own.
    """

    unknown = (
        "The store has what runs have made, and not where they stand: Unknown is a run whose outputs are not all "
        "there, whether or not anybody is at work on it; its record folder or its cluster knows more."
    )

    def __init__(self, stores: Sequence[Storage], workdir: Path) -> None:
        super().__init__(workdir)
        self.stores = [Listed(storage) for storage in stores]

    @property
    def nothing(self) -> str:
        where = " and ".join(store.uri for store in self.stores if store.failure() is None)
        return (
            f"No run has left a record in {where}: `selfevo run MANIFEST` leaves one, also of a run that is done, and "
            "`selfevo ui MANIFEST --storage URI` shows a run without one."
        )

    def refresh(self) -> None:
        """List the records of each store now.

        Raises:
            SelfevoError: one of them cannot be used.
        """
        for store in self.stores:
            store.ask()
        for store in self.stores:
            failed = store.failure(patience=math.inf)
            if failed is not None:
                raise failed

    def all(self) -> list[Shown | Unread]:
        found: list[Shown | Unread] = []
        for (namespace, name), (store, run) in sorted(self._named().items(), key=lambda item: item[0]):
            if store.failure() is not None:
                continue
            try:
                found.append(run if isinstance(run, Unread) else self._shown(run))
            except SelfevoError as error:
                if isinstance(error, ServiceError):
                    store.doubt()
                if store.failure() is None:  # then it is the run's own
                    found.append(Unread(namespace, name, str(error)))
        return found

    def one(self, namespace: str, name: str) -> Shown | None:
        found = self._named().get((namespace, name))
        failed = None if found is None else found[0].failure()
        if failed is not None:
            raise failed
        return super().one(namespace, name)

    @property
    def failing(self) -> list[str]:
        return [_message(store, failed) for store in self.stores if (failed := store.failure()) is not None]

    def _known(self) -> dict[tuple[str, str], Found]:
        return {key: run for key, (_, run) in self._named().items()}

    def _named(self) -> dict[tuple[str, str], tuple[Listed, Found]]:
        """Each run by the name that it is shown by, with its store.

        Raises:
            SelfevoError: no store can be read.
        """
        for store in self.stores:
            store.ask()
        failures = [store.failure() for store in self.stores]
        failed = [failure for failure in failures if failure is not None]
        if len(failed) == len(self.stores):
            raise (
                failed[0]
                if len(failed) == 1
                else ServiceError(f"none of the {len(failed)} stores can be read: {'; '.join(map(str, failed))}")
            )
        named: dict[tuple[str, str], tuple[Listed, Found]] = {}
        for number, store in enumerate(self.stores, 1):
            for (namespace, name), run in store.found.items():
                shown = f"{name}@{number}" if (namespace, name) in named else name
                named[namespace, shown] = store, _named_as(shown, run)
        return named

    def _shown(self, run: SelfEvolutionRun) -> Shown:
        found = standing(run, self._manifests)
        return Shown(run, found.plan, found.store, found.status, found.committed, driven=None)


def _message(store: Listed, failed: SelfevoError) -> str:
    which = "A store" if store.uri in str(failed) else f"Store {store.uri}"
    runs = "its run is" if len(store.found) == 1 else f"its {len(store.found)} runs are"
    return f"{which} cannot be read now{f'; {runs} not shown meanwhile' if store.found else ''}: {failed}"


def _named_as(name: str, found: Found) -> Found:
    if isinstance(found, Unread):
        return replace(found, name=name)
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"name": name})})
