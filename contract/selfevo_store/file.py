"""The object store in a folder: ``file:///data/selfevo``. What it promises, it promises among all processes that see
the folder through a file system with atomic rename and link (any local one, NFS, CephFS)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_store.base import ObjectInfo, ObjectStore, check_key
from selfevo_store.digests import CHUNK, Digest, copy_hashing
from selfevo_store.problems import (
    DRAFT_PREFIX,
    ObjectNotFound,
    disk_error,
    local_error,
)

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class FileStore(ObjectStore):
    """Objects are files; a key is a path below the root."""

    def __init__(self, uri: str, *, require_conditional_put: bool = True, cache_dir: Path | None = None) -> None:
        path = unquote(uri.removeprefix("file://"))
        if not uri.startswith("file:///") or "\x00" in path or ".." in path.split("/"):
            raise InputError(f"storage.uri {uri!r} is not of the form file:///absolute/path without '..'")
        self.root = Path(path)
        super().__init__(
            f"file://{str(self.root).rstrip('/')}",
            require_conditional_put=require_conditional_put,
            cache_dir=cache_dir,
        )

    def read_bytes(self, key: str) -> bytes:
        with self._explained(key):
            return self._path(key).read_bytes()

    def stream(self, key: str) -> Iterator[bytes]:
        with self._explained(key), self._path(key).open("rb") as file:
            while data := file.read(CHUNK):
                yield data

    def exists(self, key: str) -> bool:
        with self._explained(key):
            return self._path(key).is_file()

    def list(self, prefix: str) -> list[ObjectInfo]:
        top = self._path(prefix) if prefix else self.root
        found: list[ObjectInfo] = []
        with self._explained(prefix):
            # Without onerror, os.walk would show an unreadable folder as an empty one.
            for folder, _, names in os.walk(top, onerror=_unless_absent):
                for name in names:
                    if name.startswith(DRAFT_PREFIX):
                        continue
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                        found.append(ObjectInfo(path.relative_to(self.root).as_posix(), path.stat().st_size))
        return sorted(found, key=lambda info: info.key)

    def folders(self) -> tuple[str, ...]:
        try:
            with self._explained(""):
                return tuple(sorted(each.name for each in os.scandir(str(self.root)) if each.is_dir()))
        except ObjectNotFound:
            return ()

    def put_bytes(self, key: str, data: bytes) -> None:
        with self._explained(key), self._draft(key) as (draft, file):
            file.write(data)
            _sync(file)
            self._place(draft, key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with self._explained(key), self._draft(key) as (draft, file):
            file.write(data)
            _sync(file)
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise InputError(
                    f"storage.uri {self.uri}: the file system has no hard links ({error.strerror}), which keep two "
                    "attempts from overwriting each other's commit; use another file system or an s3:// store",
                    reason=reasons.CONDITIONAL_PUT_UNSUPPORTED,
                ) from error
            _sync_folder(target.parent)
        return True

    def upload_file(self, path: Path, key: str) -> Digest:
        try:
            source = path.open("rb")
        except OSError as error:
            raise local_error(error, path) from error
        with source, self._explained(key), self._draft(key) as (draft, file):
            digest = copy_hashing(source, file)
            _sync(file)
            self._place(draft, key)
        return digest

    def download_file(self, key: str, path: Path) -> Digest:
        source = self._path(key)
        with self._explained(key):
            stored = source.open("rb")
        draft = path.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with stored, draft.open("xb") as file:
                digest = copy_hashing(stored, file)
            draft.replace(path)
            return digest
        except OSError as error:
            raise local_error(error, path) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def delete_prefix(self, prefix: str) -> None:
        folder = self._path(prefix)
        with self._explained(prefix), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(folder)

    def _path(self, key: str) -> Path:
        if any(part.startswith(DRAFT_PREFIX) for part in check_key(key).split("/")):
            raise InputError(f"object key {key!r}: no part of it may begin with {DRAFT_PREFIX!r}")
        return self.root / key

    @contextmanager
    def _draft(self, key: str) -> Iterator[tuple[Path, BinaryIO]]:
        folder = self._path(key).parent
        _make_folders(folder)
        draft = folder / f"{DRAFT_PREFIX}{secrets.token_hex(8)}"
        try:
            with draft.open("xb") as file:
                yield draft, file
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    def _place(self, draft: Path, key: str) -> None:
        target = self._path(key)
        draft.replace(target)
        _sync_folder(target.parent)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # By errno, not by class: a key below a file (ENOTDIR) is as absent here as it is on S3.
            if error.errno in _ABSENT and error.filename == str(self.root / key):
                raise ObjectNotFound(f"{self.uri_of(key)}: there is no such object") from error
            remedy = f"give uid {os.getuid()} a folder that it may write and read"
            raise disk_error(error, f"storage.uri {self.uri}", remedy) from error


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A new name survives a power cut only when its folder was synced too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot sync a folder say so
            raise
    finally:
        os.close(descriptor)


def _make_folders(folder: Path) -> None:
    missing = [folder, *folder.parents]
    missing = [path for path in missing if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def _unless_absent(error: OSError) -> None:
    if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
        raise error
