"""What can go wrong with a store or a disk: the reasons in one place, and one sentence for each errno."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError


class ObjectNotFound(InputError):
    """There is no object under this key."""

    reason = reasons.OBJECT_NOT_FOUND


class CorruptArtifact(InputError):
    """A stored file is not what its manifest says. Reading it again does not help; making it again does."""

    reason = reasons.CORRUPT_ARTIFACT


DRAFT_PREFIX = ".tmp-"
"""How the names of unfinished files begin. No key may have such a part, no listing shows one."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_REFUSED = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.ELOOP: "the path has a loop of symbolic links",
}


def disk_error(error: OSError, what: str, remedy: str) -> SelfevoError:
    """The error for a file system call that failed.

    Args:
        error: What the call raised.
        what: The field or the path that a person knows it by, with its value.
        remedy: What to do when the file system refuses to be written or read.
    """
    code = error.errno or 0
    if code in _FULL:
        return ServiceError(f"{what}: {_FULL[code]}; free space there or enlarge the volume", reason=reasons.DISK_FULL)
    if code in _REFUSED:
        return InputError(f"{what}: {_REFUSED[code]}; {remedy}", reason=reasons.STORE_INVALID)
    return ServiceError(
        f"{what}: {error.strerror or error}; see whether the disk is healthy", reason=reasons.STORE_FAILED
    )


def local_error(error: OSError, path: Path) -> SelfevoError:
    """``disk_error`` for a file on this machine's side of a transfer; ``path`` when the error names no other."""
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
    if named.name.startswith(DRAFT_PREFIX):
        named = path
    return disk_error(error, str(named), "give a path that this process may use")
