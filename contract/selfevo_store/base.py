"""The one interface of an object store: whole objects under relative keys, written all or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from selfevo_contract.artifacts import safe_relative
from selfevo_contract.errors import InputError
from selfevo_store.cache import DigestCache, NoCache, Placer
from selfevo_store.digests import Digest, digest_of_chunks

PARALLEL_FILES = 4
"""Files on their way at once. A large file is several requests at once already."""

Checksum = Literal["whenRequired", "whenSupported"]
"""When an upload carries a checksum header: ``storage.checksum``."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    """Relative to the store's URI, as every other method takes it."""
    size: int


class ObjectStore(ABC):
    """A place for objects. Keys are relative paths; a prefix is a folder of them, never a piece of a name.

    Every method raises InputError or ServiceError with one sentence that names the field and the remedy.
    """

    def __init__(
        self,
        uri: str,
        *,
        endpoint: str | None = None,
        require_conditional_put: bool = True,
        cache_dir: Path | None = None,
    ) -> None:
        self.uri = uri
        self.endpoint = endpoint
        self.require_conditional_put = require_conditional_put
        self.cache: Placer = DigestCache(cache_dir) if cache_dir is not None else NoCache()

    def uri_of(self, key: str) -> str:
        """The object's full address, for people and for lineage."""
        return f"{self.uri}/{key}" if key else self.uri

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """The whole object. Raises ObjectNotFound when there is none."""

    @abstractmethod
    def stream(self, key: str) -> Iterator[bytes]:
        """The object in pieces. Raises ObjectNotFound when there is none."""

    def digest_of(self, key: str) -> Digest:
        """Size and sha256 of the stored object, which is read for it but not kept."""
        return digest_of_chunks(self.stream(key))

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether there is an object under exactly this key."""

    @abstractmethod
    def list(self, prefix: str) -> list[ObjectInfo]:
        """The objects below ``prefix/`` (all of the store's with ""), sorted by key."""

    @abstractmethod
    def folders(self) -> tuple[str, ...]:
        """The first parts of all keys that have more than one, sorted: what namespaces there may be."""

    @abstractmethod
    def put_bytes(self, key: str, data: bytes) -> None:
        """Writes or replaces the object."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes the object unless there is one; False when there was.

        False is not yet a defeat: a put whose reply was lost is sent again and meets its own success. Whoever needs to
        know reads the object back and searches it for a mark of its own, as ``commit`` does.
        """

    @abstractmethod
    def upload_file(self, path: Path, key: str) -> Digest:
        """Writes the file's content as an object; the digest is of the bytes that were sent."""

    @abstractmethod
    def download_file(self, key: str, path: Path) -> Digest:
        """Writes the object to ``path``, which appears complete or not at all. Raises ObjectNotFound.

        The digest is of the bytes that were written, taken while they were in memory.
        """

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Removes the objects below ``prefix/``; none there is no error. The store as a whole cannot be named."""


def check_key(key: str) -> str:
    """``key`` itself, if it is one.

    Raises:
        InputError: when it could leave the store's root, or means something to one back end only.
    """
    try:
        return safe_relative(key)
    except ValueError as error:
        raise InputError(f"object key: {error}") from None


def join(prefix: str, name: str) -> str:
    """``prefix/name``, or ``name`` at the store's root."""
    return f"{prefix}/{name}" if prefix else name


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[function(i) for i in items]``, a few at a time; the first failure ends it and is raised."""
    pool = ThreadPoolExecutor(max_workers=PARALLEL_FILES, thread_name_prefix="store")
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
