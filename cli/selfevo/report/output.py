"""Writing a report, whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

from selfevo.files import replace_file
from selfevo_contract.errors import InputError, ServiceError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_atomically(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` as UTF-8.

    Raises:
        ServiceError: the disk is full.
        InputError: ``path`` cannot be written for any other reason.
    """
    try:
        replace_file(path, text)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise ServiceError(f"the report cannot be written to {path}: {reason}; free some space") from None
        raise InputError(
            f"the report cannot be written to {path}: {reason}; give -o a file in a folder that you can write to"
        ) from None
