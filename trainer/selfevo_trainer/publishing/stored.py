"""A folder of an object store: plain files, which every tool reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from selfevo_contract.artifacts import MANIFEST_NAME
from selfevo_contract.digests import file_digest
from selfevo_contract.spec.storage import Storage
from selfevo_store import ObjectStore, open_store
from selfevo_trainer.context import errors_named_after
from selfevo_trainer.publishing.place import CARD

FIELD = "spec.publish.to"


class StoredFolder:
    """A place in a store that is reached as the run's own is."""

    def __init__(self, to: str, folder: str | None, storage: Storage) -> None:
        self._prefix = folder or ""
        self.address = f"{to}/{folder}" if folder else to
        with errors_named_after(FIELD):
            self._store: ObjectStore = open_store(
                to,
                endpoint=storage.endpoint,
                region=storage.region,
                require_conditional_put=False,
                checksum=storage.checksum,
            )

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        with errors_named_after(FIELD):
            listed = self._store.list(self._prefix)
        below = f"{self._prefix}/" if self._prefix else ""
        return {info.key.removeprefix(below): info.size for info in listed}

    def names(self) -> Collection[str]:
        return self._sizes.keys()

    def holds(self, name: str, path: Path) -> bool:
        if self._sizes[name] != path.stat().st_size:
            return False
        with errors_named_after(FIELD):
            return self._store.digest_of(self._key(name)).sha256 == file_digest(path)

    def put(self, files: Mapping[str, Path], message: str) -> str:
        """Each file appears as a whole; with the card all are there."""
        for name in sorted(files, key=lambda name: (name == CARD, name)):
            with errors_named_after(FIELD):
                self._store.upload_file(files[name], self._key(name))
        return ""

    def _key(self, name: str) -> str:
        assert name != MANIFEST_NAME  # which would make it a step's output
        return f"{self._prefix}/{name}" if self._prefix else name
