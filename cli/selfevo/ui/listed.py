"""The runs that one store has records of, listed beside the requests: a store that hangs holds up none for long."""

from __future__ import annotations

import threading
import time

from selfevo.stored import run_in
from selfevo.stores import is_there, open_at
from selfevo.ui.runs import Unread
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import parsed
from selfevo_contract.spec.storage import Storage
from selfevo_store import known_records

LISTED_S = 2.0
"""For so long a list of records is taken as it is."""
FAILED_S = 30.0
"""For so long a store that failed is not asked again."""
PATIENCE_S = 5.0
"""For so long a request waits for a store, or three times as long as its last answer took."""
AGAIN_S = 0.5
"""For so long where the store failed before."""

Found = SelfEvolutionRun | Unread


class Listed:
    """One store. Everything here may be called from any thread."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.store = storage, open_at(storage)
        self.found: dict[tuple[str, str], Found] = {}
        """By namespace and name, as it was when the store answered last."""
        self._read: dict[str, Found] = {}
        """By the record's key. A record is final, damaged or not."""
        self._failed: Exception | None = None
        self._listing: threading.Thread | None = None
        self._begun = self._took = self._until = 0.0
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return self.store.uri

    def ask(self) -> None:
        """Have a thread list the records, unless one does, or the last list is new enough."""
        with self._lock:
            if self._listing is None and time.monotonic() >= self._until:
                self._begun = time.monotonic()
                self._listing = threading.Thread(target=self._list, daemon=True)  # it does not hold up the end either
                self._listing.start()

    def doubt(self) -> None:
        """Something else than a list failed: whether the store still answers is asked anew."""
        with self._lock:
            self._until = 0.0

    def failure(self, patience: float | None = None) -> SelfevoError | None:
        """Why the store cannot be read now; None when it can. Waits for the answer, if it was asked.

        Args:
            patience: Seconds since it was asked; as the store deserves it, when not given.
        """
        self.ask()
        listing = self._listing
        if listing is not None:
            deserved = AGAIN_S if self._failed else max(PATIENCE_S, 3 * self._took)
            patience = deserved if patience is None else patience
            left = self._begun + patience - time.monotonic()
            listing.join(min(max(0.0, left), threading.TIMEOUT_MAX))
        failed = self._failed
        if failed is None and listing is not None and listing.is_alive():
            failed = ServiceError(f"{self.uri} does not answer; check the network and the store's endpoint")
        if failed is not None and not isinstance(failed, SelfevoError):
            raise failed
        return failed

    def _list(self) -> None:
        failed: Exception | None = None
        found: dict[tuple[str, str], Found] = {}
        try:
            if not is_there(self.storage):
                raise InputError(f"{self.uri} is no folder any more; put it back, or start `selfevo ui` without it")
            found = {of: self._at(key, *of) for of, key in known_records(self.store).items()}
        except Exception as error:
            failed = error
        with self._lock:
            now = time.monotonic()
            self._until = now + (LISTED_S if failed is None else FAILED_S)
            self._failed, self._listing = failed, None
            if failed is None:
                self.found, self._took = found, now - self._begun

    def _at(self, key: str, namespace: str, name: str) -> Found:
        found = self._read.get(key)
        if found is not None:
            return found
        try:
            data = self.store.read_bytes(key)
        except SelfevoError as error:  # another time it may be read
            return Unread(namespace, name, str(error))
        try:
            found = run_in(self.storage, parsed(data, key, self.store.uri_of(key)))
        except SelfevoError as error:
            found = Unread(namespace, name, str(error))
        self._read[key] = found
        return found
