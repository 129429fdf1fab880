"""Commit by manifest: a directory of the store exists when its MANIFEST.json does (docs/design.md, decision 2).

Two attempts may commit the same step at the same time: a pod that was thought dead, a Job that was started twice. Each
uploads below a name of its own, then all put the manifest on the condition that there is none. The store lets one of
them through. The others find a manifest with another write id, and that step done.

What the network can do to a put, and what becomes of it:

- The request is lost: botocore sends it again.
- The reply is lost: botocore sends it again and meets its own success as 412. The write id tells that it won.
- Every reply is lost: an error. Whether the manifest is there is unknown, so nothing is cleaned up; the next attempt
  finds the manifest, or makes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.artifacts import MANIFEST_NAME, SCHEMA_VERSION, Manifest, ManifestDraft, StoredFile
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_store.base import ObjectStore, check_key, in_parallel, join
from selfevo_store.probe import probe_conditional_put
from selfevo_store.problems import (
    CorruptArtifact,
    ObjectNotFound,
)

_log = logging.getLogger(__name__)
_TRIES = 3


@dataclass(frozen=True)
class CommitResult:
    """What is committed now, and by whom."""

    manifest: Manifest
    """The one that is in the store."""
    won: bool
    """Whether it is this process's own. False is as good: the step's output is there."""


def read_manifest(store: ObjectStore, prefix: str) -> Manifest | None:
    """The manifest of the directory at ``prefix``; None when nothing is committed there.

    Raises:
        CorruptArtifact: when the object there is no manifest.
        InputError: when it is one of a newer selfevo.
    """
    name = join(prefix, MANIFEST_NAME)
    try:
        data = store.read_bytes(name)
    except ObjectNotFound:
        return None
    return _parse(data, store.uri_of(name))


def read_own_manifest(store: ObjectStore, prefix: str, phase: str, key: str, step: str = "") -> Manifest | None:
    """As ``read_manifest``, of a directory that only this step may have committed.

    Args:
        store: Where.
        prefix: The directory.
        phase: The step's phase.
        key: The step's key.
        step: Its name, for the message; its phase when empty.

    Raises:
        InputError: the manifest is another step's, or as ``read_manifest``.
        CorruptArtifact: as ``read_manifest``.
    """
    found = read_manifest(store, prefix)
    if found is not None and (found.phase, found.key) != (phase, key):
        raise InputError(
            f"{store.uri_of(join(prefix, MANIFEST_NAME))} belongs to {found.phase} {found.key[:12]}, not to "
            f"{step or phase} {key[:12]}; remove it or choose another storage.uri",
            reason=reasons.FOREIGN_MANIFEST,
        )
    return found


def commit(store: ObjectStore, prefix: str, files: Mapping[str, Path], draft: ManifestDraft) -> CommitResult:
    """Makes ``files`` the output at ``prefix``, unless there is one already.

    Args:
        store: Where to.
        prefix: The directory, relative to the store; ``artifacts.step_prefix`` and its like.
        files: Name in the directory, e.g. ``model/config.json``, -> file on this machine.
        draft: The rest of the manifest.

    Returns:
        The manifest in the store. It is complete and of the same phase and key, whoever wrote it.

    Raises:
        InputError: when the store cannot keep two attempts apart, when something else lies under the manifest's name,
            or for what the store itself finds wrong.
        ServiceError: when the store failed. The commit may or may not have happened; trying again is right.
    """
    probe_conditional_put(store)
    standing = _standing(store, prefix, draft)
    if standing is not None:
        return CommitResult(standing, won=False)  # spares a slow ghost its upload
    write_id = new_write_id()
    try:
        uploaded = upload_part(store, prefix, files, write_id)
    except BaseException as error:
        if getattr(error, "reason", "") != reasons.STORE_UNREACHABLE:  # else it would only be waited for once more
            remove_parts(store, prefix, write_id)
        raise
    return commit_parts(store, prefix, uploaded, draft, write_id)


def new_write_id() -> str:
    """A name of its own for a commit; several processes that commit together share one."""
    return secrets.token_hex(8)


def upload_part(store: ObjectStore, prefix: str, files: Mapping[str, Path], write_id: str) -> list[StoredFile]:
    """Upload this process's files of the commit ``write_id``. Nobody sees them until it is made by `commit_parts`.

    Raises:
        InputError, ServiceError: as ``commit``.
    """

    def upload(item: tuple[str, Path]) -> StoredFile:
        name, path = item
        stored = f"attempts/{write_id}/{check_key(name)}"
        digest = store.upload_file(path, join(prefix, stored))
        return StoredFile(name=name, path=stored, size=digest.size, sha256=digest.sha256)

    return in_parallel(upload, sorted(files.items()))


def commit_parts(
    store: ObjectStore, prefix: str, files: Sequence[StoredFile], draft: ManifestDraft, write_id: str
) -> CommitResult:
    """Makes what `upload_part` has uploaded in all processes the output at ``prefix``, unless there is one already.

    Called by one of them, once all are done, with what all of them were given back.

    Raises:
        InputError, ServiceError: as ``commit``.
    """
    probe_conditional_put(store)
    manifest = Manifest(
        **draft.model_dump(),
        write_id=write_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        files=sorted(files, key=lambda file: file.name),
    )
    in_store = _put(store, prefix, manifest)
    won = in_store.write_id == write_id
    if not won and store.require_conditional_put:
        # Without the condition a delayed put of ours might still replace the winner's manifest: then the files stay.
        remove_parts(store, prefix, write_id)
    return CommitResult(in_store, won)


def remove_parts(store: ObjectStore, prefix: str, write_id: str) -> None:
    """Remove what was uploaded for a commit that is not made; no manifest names it."""
    attempt = join(prefix, f"attempts/{write_id}")
    try:
        store.delete_prefix(attempt)
    except SelfevoError as error:  # nobody refers to them: litter, not damage
        _log.warning("files of an attempt that was not needed stay in the store: %s", error)


def _put(store: ObjectStore, prefix: str, manifest: Manifest) -> Manifest:
    """Puts the manifest if there is none, and returns the one that is there then."""
    name = join(prefix, MANIFEST_NAME)
    data = manifest.model_dump_json(by_alias=True, indent=2).encode()
    _parse(data, store.uri_of(name))  # what cannot be read back would block this key for good
    for _ in range(_TRIES):
        try:
            # A store that may ignore the condition is read first: a check that can be raced is better than none.
            if store.require_conditional_put or _standing(store, prefix, manifest) is None:
                store.put_if_absent(name, data)
        except ServiceError:
            # The last reply may have been lost like the ones before it.
            with contextlib.suppress(ServiceError):
                in_store = _standing(store, prefix, manifest)
                if in_store is not None:
                    return in_store
            raise
        # Also after a success: a store that broke its promise shows here.
        in_store = _standing(store, prefix, manifest)
        if in_store is not None:
            return in_store
        if not store.require_conditional_put:
            store.put_bytes(name, data)  # the store refuses a conditional put, and its owner allows others
    raise ServiceError(f"{store.uri_of(name)}: the store says that it exists, and that it does not; try again later")


def _standing(store: ObjectStore, prefix: str, ours: ManifestDraft) -> Manifest | None:
    """What is committed there already, which must be of the same step."""
    return read_own_manifest(store, prefix, ours.phase, ours.key)


def _parse(data: bytes, uri: str) -> Manifest:
    try:
        content = json.loads(data)
        version = content.get("schemaVersion") if isinstance(content, dict) else None
        # First the version: a newer manifest may have fields that the model below refuses.
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise InputError(
                f"{uri}: has schemaVersion {version}, and this selfevo reads up to {SCHEMA_VERSION}; upgrade selfevo "
                "(spec.pods.image and the operator)",
                reason=reasons.MANIFEST_TOO_NEW,
            )
        return Manifest.model_validate(content)
    except (ValidationError, ValueError, RecursionError) as error:
        why = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
        raise CorruptArtifact(
            f"{uri}: is not a manifest of selfevo ({why}); move it away or choose another storage.uri",
            reason=reasons.FOREIGN_MANIFEST,
        ) from error
