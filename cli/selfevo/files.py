"""Replacing a file so that a reader finds the old one, the new one, or none: never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp") if path.name else path
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
