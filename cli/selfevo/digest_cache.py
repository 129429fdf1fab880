"""Digests of large files, remembered: hashing 16 GB of weights at every `selfevo status` would take half a minute."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from selfevo_contract.digests import file_digest

_LARGE = 16 << 20
_NAME = "digests.json"


class DigestCache:
    """Known by path, size, time of change and inode, as git does it. Losing it costs time only."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / _NAME if folder is not None else None
        self._known: dict[str, list[object]] = {}
        self._changed = False
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(self._path.read_text())
                self._known = known if isinstance(known, dict) else {}

    def of(self, path: Path) -> str:
        """sha256 of the file's bytes."""
        stat = path.stat()
        if stat.st_size < _LARGE:
            return file_digest(path)
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._known.get(str(path))
        if isinstance(known, list) and known[:3] == mark and isinstance(known[-1], str):
            return known[-1]
        digest = file_digest(path)
        self._known[str(path)] = [*mark, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Keep what was computed, if there is a place for it."""
        if self._path is None or not self._changed or not self._path.parent.is_dir():
            return
        draft = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(self._known))
            draft.replace(self._path)
