"""The warm parent of a run's processes: it has imported torch once, and a process that it forks starts at once.

It is `selfevo_trainer.warm`, started for the environment of the first process that wants one. Whatever goes wrong with
it costs time only: the processes that it has forked are our own children and go on, and the next ones are started as if
there had been none.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from selfevo_contract.process import (
    CACHE_ENV,
    CONFIG_FILE_ENV,
    NODES_ENV,
    PREFLIGHT_FILE_ENV,
    PROCESSES_ENV,
    SHARD_ENV,
    TERMINATION_LOG_ENV,
    WORKDIR_ENV,
)
from selfevo_contract.traces import TRACEPARENT_ENV

COMMAND: tuple[str, ...] = (sys.executable, "-m", "selfevo_trainer.warm")
OWN = (CONFIG_FILE_ENV, PREFLIGHT_FILE_ENV, TERMINATION_LOG_ENV, WORKDIR_ENV, CACHE_ENV, SHARD_ENV, TRACEPARENT_ENV)
"""Variables that a process has of its own. No import reads them; any other may be read by one."""
ANSWER_S = 60.0
"""A fork takes milliseconds."""


class Forked:
    """A process that the warm parent has forked and that has not begun, with what is used of a subprocess.Popen."""

    def __init__(self, pid: int, stdout: IO[bytes], gate: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._gate = gate

    def begin(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # killed already: its end will say so
            os.write(self._gate, b"1")
        os.close(self._gate)

    def abandon(self) -> None:
        """End it before it has begun."""
        os.close(self._gate)
        self.stdout.close()
        self.wait()

    def wait(self) -> int:
        """Its exit code, or -n after signal n. Reaps it."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class WarmParent:
    """Forks processes for the environments that differ from ``environment`` in OWN only. Threads may share it."""

    def __init__(self, environment: Mapping[str, str], log: Path, failed: Callable[[str], None]) -> None:
        self._environment = dict(environment)
        self._log = log
        self._failed = failed
        self._state = threading.Condition()
        self._ready = self._gone = self._closing = False
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        ours, theirs = socket.socketpair()
        self._connection = ours
        with theirs:
            try:
                _adopt_orphans()
                with log.open("ab", buffering=0) as file:
                    self._process = subprocess.Popen(
                        COMMAND,
                        env=self._environment,
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                        stderr=file,
                        start_new_session=True,
                    )
            except OSError as error:
                self._fail(f"it could not be started: {error}")
                return
        threading.Thread(target=self._await_imports, daemon=True).start()

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process with ``environment`` may be forked: what its imports would read is what they have read."""
        return not self._gone and _shared(environment) == _shared(self._environment)

    def wait(self, cancelled: Callable[[], bool]) -> bool:
        """Wait for the imports, or until ``cancelled`` (call ``wake`` after a change). Returns whether it can fork."""
        with self._state:
            self._state.wait_for(lambda: self._ready or self._gone or cancelled())
            return self._ready and not self._gone

    def wake(self) -> None:
        with self._state:
            self._state.notify_all()

    def fork(self, environment: Mapping[str, str], stderr: int) -> Forked | None:
        """A process that waits to begin; None when none is to be had."""
        message = json.dumps({name: environment.get(name) for name in OWN}).encode()
        with self._asking, contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            if self._gone:
                return None
            try:
                out, write_out = os.pipe()
                stdout = ours.enter_context(os.fdopen(out, "rb"))
                theirs.callback(os.close, write_out)
                read_gate, gate = os.pipe()
                ours.callback(os.close, gate)
                theirs.callback(os.close, read_gate)
                socket.send_fds(self._connection, [len(message).to_bytes(8, "big")], [write_out, stderr, read_gate])
                self._connection.sendall(message)
                forked = Forked(int(str(self._answer()["pid"])), stdout, gate)
            except TimeoutError:
                self._fail(f"it has not answered for {ANSWER_S:.0f} s")
                return None
            except (OSError, ValueError, EOFError):
                self._fail(f"it is gone; its log is {self._log}")
                return None
            ours.pop_all()
            return forked

    def close(self) -> None:
        """End it. What it has forked goes on."""
        self._closing = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection.close()

    def _await_imports(self) -> None:
        try:
            answer = self._answer()
        except (OSError, ValueError, EOFError):
            self._fail(f"it ended while it imported; its log is {self._log}")
            return
        if not answer["ready"]:
            self._fail(str(answer["why"]))
            return
        self._connection.settimeout(ANSWER_S)
        with self._state:
            self._ready = True
            self._state.notify_all()

    def _answer(self) -> dict[str, object]:
        line = b""
        while not line.endswith(b"\n"):
            piece = self._connection.recv(4096)
            if not piece:
                raise EOFError
            line += piece
        answer: dict[str, object] = json.loads(line)
        return answer

    def _fail(self, why: str) -> None:
        with self._state:
            first, self._gone = not self._gone, True
            self._state.notify_all()
        if self._process is not None:
            self._process.kill()
        if first and not self._closing:
            self._failed(f"processes start without the warm parent from here on, which is slower: {why}")


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether there is a warm parent for such a process: not where it starts others, nor beside Linux."""
    several = any(environment.get(name, "1") != "1" for name in (PROCESSES_ENV, NODES_ENV))
    return sys.platform == "linux" and not several


def _shared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OWN}


def _adopt_orphans() -> None:
    """Make us the parent of what our children leave behind. Raises OSError."""
    pr_set_child_subreaper = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
