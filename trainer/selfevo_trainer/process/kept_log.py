"""The log of a process in a pod, kept in the store: a pod goes, and its log with it.

Only what Python writes to standard output and error is kept; what a library's own code writes there is in the pod's
log alone. The pod's log is as it was: nothing is held back. While the process runs, its log is written every
`EVERY_S`, so that of one that SIGKILL ends (out of memory, a lost node) the store has all but the last of it.

The server beside a trainer has no credentials for the store. It leaves its log, vLLM's own lines in it, as a file in
the pod's working volume, and the trainer keeps that beside its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from selfevo_contract.artifacts import kept_log
from selfevo_contract.errors import SelfevoError
from selfevo_contract.process import GRACE_SECONDS_ENV, SERVER_MODELS_ENV, SHARD_ENV, PhaseConfig
from selfevo_store import ObjectStore, open_storage

HEAD, TAIL = 256 << 10, 768 << 10
"""Bytes of the beginning and of the end that are kept of a longer log."""
LINE = 16 << 10
"""Characters of a line."""
EVERY_S = 60.0
"""So often the log is written while the process runs."""
UPLOAD_S = 10.0
"""So long the process waits for the upload at its end."""
_SHARE_OF_GRACE = 0.95
_OF_SERVER = ".server.log"

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE)
_NO_SECRET = ("_FILE", "_URI", "_PATH", "_PARALLELISM")
_SHORTEST = 8
_SHAPES = re.compile(
    r"(?P<user>(?<=://)[^/\s:@]*:[^/\s@]+(?=@))"
    r"|(?P<header>(?<=\bBearer )[^\s\"',]{8,})"
    r"|(?P<signed>(?<=\bX-Amz-Signature=)[^&\s]+|(?<=\bX-Amz-Security-Token=)[^&\s]+)"
    r"|(?P<hub>\bhf_[A-Za-z0-9]{16,})"
    r"|(?P<aws>\b(?:AKIA|ASIA)[0-9A-Z]{16}\b)"
)


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Value -> name, of the variables that hold a secret by their names. The longest value first."""
    found = {
        value: name
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and not name.endswith(_NO_SECRET) and len(value) >= _SHORTEST
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def redacted(text: str, secrets: Mapping[str, str]) -> str:
    """``text`` without ``secrets`` and without what has the shape of one. Pure.

    >>> redacted("key 12345678 of https://me:word@host/", {"12345678": "MY_TOKEN"})
    'key [MY_TOKEN] of https://[redacted]@host/'
    """
    for value, name in secrets.items():
        text = text.replace(value, f"[{name}]")
    return _SHAPES.sub("[redacted]", text)


class KeptLog:
    """The lines so far, in bounded memory. Threads may write at once."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = secrets
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = self._left_out = 0
        self._begun: dict[str, str] = {}
        """Stream -> the line that it has not ended yet. Only a whole line is searched for secrets."""
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        """A fork may have been made while another thread held the lock."""
        self._lock = threading.Lock()

    def add(self, stream: str, text: str) -> None:
        """``text`` was written to ``stream``."""
        with self._lock:
            *lines, rest = (self._begun.get(stream, "") + text).split("\n")
            for line in lines:
                self._keep(line)
            if len(rest) > 4 * LINE:  # of a line without an end the beginning is enough
                rest = rest[: 4 * LINE]
            self._begun[stream] = rest

    def _keep(self, line: str) -> None:
        line = redacted(line, self._secrets)
        data = (line if len(line) <= LINE else f"{line[:LINE]} [...]").encode("utf-8", "replace") + b"\n"
        if not self._tail and len(self._head) + len(data) <= HEAD:
            self._head += data
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size > TAIL:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._left_out += gone

    def end(self) -> None:
        """A line that was begun is over."""
        with self._lock:
            for stream, rest in self._begun.items():
                if rest:
                    self._keep(rest)
                self._begun[stream] = ""

    def content(self) -> bytes:
        """The lines so far, those in the middle left out where there are many."""
        with self._lock:
            gap = b"[... %d bytes left out ...]\n" % self._left_out if self._left_out else b""
            return bytes(self._head) + gap + b"".join(self._tail)


class _Tee:
    """A stream whose words are kept, too."""

    def __init__(self, stream: TextIO, name: str, log: KeptLog) -> None:
        self._stream, self._name, self._log = stream, name, log

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._log.add(self._name, text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def in_pod(environ: Mapping[str, str]) -> Iterator[KeptLog | None]:
    """Keep what is logged inside; None outside of a pod, where logs are files that stay."""
    if GRACE_SECONDS_ENV not in environ:
        yield None
        return
    with listening(environ) as log:
        yield log


@contextlib.contextmanager
def listening(environ: Mapping[str, str]) -> Iterator[KeptLog]:
    """Keep what is logged inside."""
    log = KeptLog(secrets_of(environ))
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    tees: tuple[Any, Any] = _Tee(sys.stdout, "out", log), _Tee(sys.stderr, "err", log)
    sys.stdout, sys.stderr = tees
    try:
        yield log
    finally:
        sys.stdout, sys.stderr = before


def patience(environ: Mapping[str, str], stop_requested_at: float | None) -> float:
    """Seconds for the upload: of a process that was asked to stop, what SIGKILL leaves it."""
    grace = environ.get(GRACE_SECONDS_ENV, "")
    if stop_requested_at is None or not grace.isdecimal():
        return UPLOAD_S
    return max(0.0, min(UPLOAD_S, _SHARE_OF_GRACE * int(grace) - (time.monotonic() - stop_requested_at)))


class LogFile:
    """A log as a file in ``folder``, for whoever may write to the store. A full disk changes nothing else."""

    def __init__(self, log: KeptLog, folder: Path, started: float) -> None:
        self._log, self._path = log, folder / f"{_stamp(started)}{_OF_SERVER}"
        self._written = b""

    def write(self) -> None:
        """As it is now."""
        content = self._log.content()
        if content == self._written:
            return
        draft = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            draft.write_bytes(content)
            draft.replace(self._path)
            self._written = content


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


class Upload:
    """Puts a log into the store, again and again until `close`. A store that fails or hangs changes nothing.

    Args:
        rank: of the process; the only one of a pod, and the one that starts the others, keep the server's logs too.
    """

    def __init__(self, log: KeptLog, config: PhaseConfig, rank: int | None, started: float) -> None:
        self._place = partial(kept_log, config.prefix, config.attempt, os.environ.get(SHARD_ENV, "0"))
        self._key = self._place(_stamp(started), "" if rank is None else f"rank-{rank}")
        served = os.environ.get(SERVER_MODELS_ENV)
        self._served = Path(served) if served and rank is None else None
        self._log, self._storage = log, config.storage
        self._store: ObjectStore | None = None
        self._written: dict[str, bytes] = {}
        self._failed = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kept log", daemon=True)
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Put all of it there, within ``seconds``."""
        self._log.end()
        self._over.set()
        if seconds <= 0:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._failed = f"the store did not take it within {seconds:.0f} s"
        if self._failed:
            print(f"this log is not kept in the store: {self._failed}", file=sys.stderr)

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self._put()
        self._put()

    def _put(self) -> None:
        try:
            for key, content in {self._key: self._log.content(), **self._of_server()}.items():
                if content != self._written.get(key):
                    self._store = self._store or open_storage(self._storage)
                    self._store.put_bytes(key, content)
                    self._written[key], self._failed = content, ""
        except SelfevoError as error:
            self._failed = str(error)
        except Exception as error:  # what has been computed must not fail by it
            self._failed = f"{type(error).__name__}: {error}"

    def _of_server(self) -> dict[str, bytes]:
        """By their places in the store: one for each start of the server."""
        files = [] if self._served is None else sorted(self._served.glob(f"*{_OF_SERVER}"))
        return {self._place(file.name.removesuffix(_OF_SERVER), "server"): file.read_bytes() for file in files}
