"""Size and sha256 of what is read, taken while it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20


class Digest(NamedTuple):
    """What identifies the bytes of a file."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.size} bytes with sha256 {self.sha256}"


class HashingReader:
    """A file that remembers the digest of what was read from it.

    It has no ``seek`` on purpose: whoever uploads from it has to read every byte once and in order, so that the digest
    is that of the bytes which were sent, also when somebody changes the file meanwhile.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, all of the rest when it is negative."""
        data = self._file.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    @property
    def digest(self) -> Digest:
        """Of the bytes read so far."""
        return Digest(self._size, self._hash.hexdigest())


def digest_of_bytes(data: bytes) -> Digest:
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def digest_of_chunks(chunks: Iterable[bytes]) -> Digest:
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size += len(chunk)
    return Digest(size, sha256.hexdigest())


def digest_of_file(path: Path) -> Digest:
    with path.open("rb") as file:
        return digest_of_chunks(iter(lambda: file.read(CHUNK), b""))


def write_hashing(chunks: Iterable[bytes], target: BinaryIO) -> Digest:
    """Writes ``chunks`` into the open ``target``; the digest is of the bytes that were written."""

    def written() -> Iterator[bytes]:
        for chunk in chunks:
            target.write(chunk)
            yield chunk

    return digest_of_chunks(written())


def copy_hashing(source: BinaryIO, target: BinaryIO) -> Digest:
    """Copies the open ``source`` into the open ``target``; the digest is of the bytes that were written."""
    return write_hashing(iter(lambda: source.read(CHUNK), b""), target)
