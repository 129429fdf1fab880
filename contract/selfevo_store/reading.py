"""Reading what is committed: only files that a manifest names, and every one against its size and sha256."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.artifacts import MANIFEST_NAME, Manifest, StoredFile
from selfevo_contract.errors import InputError
from selfevo_contract.rows import R, RowFile, read_rows
from selfevo_store.base import ObjectStore, in_parallel, join
from selfevo_store.committed import read_manifest
from selfevo_store.digests import Digest, digest_of_bytes
from selfevo_store.problems import CorruptArtifact, ObjectNotFound


@dataclass(frozen=True)
class Problem:
    """One thing that ``verify`` found wrong."""

    name: str
    """The file's name in the manifest, or MANIFEST.json."""
    message: str
    """One sentence with the object, what was expected, and what is there."""

    def __str__(self) -> str:
        return self.message


def fetch(
    store: ObjectStore,
    prefix: str,
    manifest: Manifest,
    dest: Path,
    names: Iterable[str] | None = None,
    *,
    folder: str | None = None,
) -> Path:
    """Brings files of a committed directory to ``dest/<name>``, through the store's cache if it has one.

    Large files may come as read-only hard links into the cache: to change one, write a new file over its name.

    Args:
        store: Where from.
        prefix: The directory.
        manifest: What ``read_manifest`` gave for it.
        dest: Where to.
        names: The files wanted; all when neither this nor ``folder`` is given.
        folder: Or all files below this one, e.g. ``model``.

    Returns:
        ``dest``, or ``dest/<folder>``.

    Raises:
        InputError: when the manifest has no such file.
        CorruptArtifact: when a stored file is missing or not what the manifest says.
    """
    in_parallel(
        lambda file: _fetch_one(store, prefix, file, dest / file.name), _chosen(manifest, names, folder, store, prefix)
    )
    return dest / folder if folder is not None else dest


def read_file(store: ObjectStore, prefix: str, manifest: Manifest, name: str) -> bytes:
    """The content of one small file, checked.

    Raises:
        InputError: when the manifest has no such file.
        CorruptArtifact: when the stored file is missing or not what the manifest says.
    """
    (file,) = _chosen(manifest, [name], None, store, prefix)
    want = Digest(file.size, file.sha256)
    for last in (False, True):  # twice: the network may have damaged what the store has in good order
        try:
            data = store.read_bytes(join(prefix, file.path))
        except ObjectNotFound as error:
            raise CorruptArtifact(_missing(store, prefix, file)) from error
        found = digest_of_bytes(data)
        if found == want:
            break
        if last:
            raise CorruptArtifact(_damaged(store, prefix, file, found))
    return data


def fetch_rows(store: ObjectStore, prefix: str, manifest: Manifest, file: RowFile[R]) -> list[R]:
    """The rows of ``file``, checked; of its JSON lines where an older version wrote those.

    Raises:
        InputError: as ``read_file``, or a row is damaged.
        CorruptArtifact: as ``read_file``.
    """
    file = file.as_in(manifest) or file
    return read_rows(read_file(store, prefix, manifest, file.name), file, store.uri_of(prefix))


def verify(store: ObjectStore, prefix: str) -> list[Problem]:
    """Reads the whole committed directory from the store, past the cache, and lists what is wrong with it."""
    manifest = read_manifest(store, prefix)
    if manifest is None:
        where = store.uri_of(join(prefix, MANIFEST_NAME))
        return [Problem(MANIFEST_NAME, f"{where}: missing, so nothing is committed here")]

    def check(file: StoredFile) -> Problem | None:
        try:
            found = store.digest_of(join(prefix, file.path))
        except ObjectNotFound:
            return Problem(file.name, _missing(store, prefix, file))
        if found != (file.size, file.sha256):
            return Problem(file.name, _damaged(store, prefix, file, found))
        return None

    return [problem for problem in in_parallel(check, manifest.files) if problem is not None]


def download_tree(
    store: ObjectStore, prefix: str, dest: Path, choose: Callable[[list[str]], list[str]] | None = None
) -> Path:
    """Brings all that lies below ``prefix`` to ``dest``: a model that somebody put there, or a committed directory.

    Without a manifest there are no digests to check: what is there is what one gets.

    Args:
        store: Where from.
        prefix: The directory.
        dest: Where to.
        choose: Of the names relative to ``prefix``, those wanted, where there is no manifest; all when not given.

    Raises:
        InputError: when nothing is there.
    """
    manifest = read_manifest(store, prefix)
    if manifest is not None:
        return fetch(store, prefix, manifest, dest)
    keys = [info.key for info in store.list(prefix)]
    if not keys:
        raise InputError(
            f"{store.uri_of(prefix)}: there is nothing; give the folder that holds the files",
            reason=reasons.OBJECT_NOT_FOUND,
        )
    strip = len(prefix) + 1 if prefix else 0
    names = [key[strip:] for key in keys]
    in_parallel(lambda name: store.download_file(join(prefix, name), dest / name), choose(names) if choose else names)
    return dest


def _chosen(
    manifest: Manifest, names: Iterable[str] | None, folder: str | None, store: ObjectStore, prefix: str
) -> list[StoredFile]:
    if names is not None and folder is not None:
        raise ValueError("give names or folder, not both")
    if names is None:
        files = manifest.files if folder is None else manifest.under(folder)
        if folder is not None and not files:
            raise InputError(_lacks(store, prefix, manifest, f"{folder}/"), reason=reasons.OBJECT_NOT_FOUND)
        return files
    chosen: list[StoredFile] = []
    for name in dict.fromkeys(names):
        file = manifest.file(name)
        if file is None:
            raise InputError(_lacks(store, prefix, manifest, name), reason=reasons.OBJECT_NOT_FOUND)
        chosen.append(file)
    return chosen


def _fetch_one(store: ObjectStore, prefix: str, file: StoredFile, target: Path) -> None:
    want = Digest(file.size, file.sha256)

    def download(path: Path) -> Digest:
        try:
            return store.download_file(join(prefix, file.path), path)
        except ObjectNotFound as error:
            raise CorruptArtifact(_missing(store, prefix, file)) from error

    found = store.cache.place(want, target, download)
    if found != want:
        raise CorruptArtifact(_damaged(store, prefix, file, found))


def _damaged(store: ObjectStore, prefix: str, file: StoredFile, found: Digest) -> str:
    return (
        f"{store.uri_of(join(prefix, file.path))}: file {file.name!r} is damaged: expected "
        f"{Digest(file.size, file.sha256)}, found {found}; {_remedy(store, prefix)}"
    )


def _missing(store: ObjectStore, prefix: str, file: StoredFile) -> str:
    return (
        f"{store.uri_of(join(prefix, file.path))}: file {file.name!r} is missing: expected "
        f"{Digest(file.size, file.sha256)}, found no object; {_remedy(store, prefix)}"
    )


def _remedy(store: ObjectStore, prefix: str) -> str:
    return f"remove {store.uri_of(join(prefix, MANIFEST_NAME))} to have it made again"


def _lacks(store: ObjectStore, prefix: str, manifest: Manifest, name: str) -> str:
    there = ", ".join(sorted(f.name for f in manifest.files)[:8]) or "none"
    return f"{store.uri_of(prefix)}: has no file {name!r} (its files: {there}); give the output of another phase"
