"""Writing a file so that a reader finds the old one, the new one, or none: never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from selfevo_contract.errors import InputError, ServiceError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_atomically(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` as UTF-8.

    Raises:
        ServiceError: the disk is full.
        InputError: ``path`` cannot be written for any other reason.
    """
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp") if path.name else path
    try:
        try:
            with draft.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            if draft != path:
                with contextlib.suppress(OSError):
                    draft.unlink()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise ServiceError(f"the report cannot be written to {path}: {reason}; free some space") from None
        raise InputError(
            f"the report cannot be written to {path}: {reason}; give -o a file in a folder that you can write to"
        ) from None
