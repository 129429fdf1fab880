"""One trainer process: how it is started, listened to and signalled, and what is known of its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Protocol

from pydantic import ValidationError

from selfevo.local import warm
from selfevo.text import printable
from selfevo_contract.errors import ExitCode
from selfevo_contract.process import PhaseResult, Progress
from selfevo_core.attempts import TAKEN_DOWN, verdict_of


@dataclass(frozen=True)
class Exited:
    """A process has ended."""

    process: Process


@dataclass(frozen=True)
class Reported:
    """A process reported its progress."""

    child: str
    progress: Progress


@dataclass(frozen=True)
class Signalled:
    """A signal asks us to stop."""

    number: int


@dataclass(frozen=True)
class Warned:
    """Something that a person may want to know, and that changes nothing."""

    message: str


Event = Exited | Reported | Signalled | Warned
"""What whoever drives a run waits for."""


class Handle(Protocol):
    """What is used of a subprocess.Popen."""

    pid: int
    returncode: int | None

    def wait(self) -> int: ...


@dataclass(eq=False)
class Process:
    """One trainer process: the whole of a child, or one of its shards."""

    child: str
    shard: int | None
    log: Path
    termination: Path
    handle: Handle | None = None
    cancelled: signal.Signals | None = None
    """The signal that came before there was a process to send it to."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while ``handle`` is set and while a signal is sent, so that none is lost in between."""
    code: int | None = None
    """As a shell reports it: 128 + n after signal n."""
    start_error: str = ""
    """Why it could not be started."""

    def result(self) -> PhaseResult | None:
        """Its termination message, if it left a whole one."""
        try:
            return PhaseResult.model_validate_json(self.termination.read_bytes())
        except (OSError, ValidationError):
            return None

    def verdict(self) -> int | None:
        """Its exit code, or the one that it had announced when it was taken down before it had left."""
        return verdict_of(self.code, self.result() if self.code in TAKEN_DOWN else None)

    def end(self) -> str:
        """What is known of its end without a termination message."""
        parts = [self.start_error] if self.start_error else []
        if self.code == 128 + signal.SIGKILL:
            parts.append("killed, perhaps because memory ran out")
        elif self.code is not None and self.code > 128 and self.code != ExitCode.TERMINATED:
            with contextlib.suppress(ValueError):
                parts.append(f"killed by {signal.Signals(self.code - 128).name}")
        parts.append(_last_line(self.log))
        return "; ".join(filter(None, parts))


def launch_process(
    process: Process,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes],
    parent: warm.WarmParent | None,
) -> IO[bytes] | None:
    """Start the process, forked by ``parent`` if there is one. In the thread that will wait for its end, since it dies
    with that thread (die_with_parent).

    Returns:
        its standard output; None when it was cancelled before it had begun.

    Raises:
        OSError: it cannot be started.
    """
    forked = None
    if parent is not None and parent.wait(lambda: process.cancelled is not None):
        forked = parent.fork(environment, log.fileno())
    with process.lock:
        if process.cancelled is not None:
            if forked is not None:
                forked.abandon()
            return None
        if forked is not None:
            process.handle = forked
            forked.begin()
            return forked.stdout
        popen = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        process.handle = popen
        return popen.stdout


def attend(
    process: Process, launch: Callable[[], IO[bytes] | None], log: IO[bytes], events: SimpleQueue[Event]
) -> None:
    """Thread: starts the process, passes on what it says, then waits for its end and clears away what it left
    running."""
    stdout = None
    try:
        stdout = launch()
    except OSError as error:
        process.start_error = f"the process could not be started: {error}"
    handle = process.handle
    if stdout is None or handle is None:
        log.close()
        process.code = None if process.cancelled is None else 128 + process.cancelled
        events.put(Exited(process))
        return
    reader = threading.Thread(target=_listen, args=(process, stdout, log, events), daemon=True)
    reader.start()
    # Without reaping it: as long as it is a zombie, no other process group can have its number.
    os.waitid(os.P_PID, handle.pid, os.WEXITED | os.WNOWAIT)
    send(process, signal.SIGKILL, os.killpg)
    code = handle.wait()
    reader.join(timeout=5)  # a helper in yet another session might hold the pipe open
    process.code = code if code >= 0 else 128 - code
    events.put(Exited(process))
    with contextlib.suppress(ChildProcessError):  # beside a warm parent, what it left running is our child by now
        while True:
            os.waitpid(-handle.pid, 0)


def _listen(process: Process, stdout: IO[bytes], log: IO[bytes], events: SimpleQueue[Event]) -> None:
    with contextlib.suppress(OSError, ValueError), log, stdout:
        for line in stdout:
            log.write(line)
            with contextlib.suppress(ValidationError):
                events.put(Reported(process.child, Progress.model_validate_json(line)))


def send(process: Process, number: signal.Signals, by: Callable[[int, int], None]) -> None:
    """Signal it ``by`` os.kill or os.killpg; one that has not been started never will be."""
    with process.lock, contextlib.suppress(ProcessLookupError, PermissionError):
        if process.handle is None:
            process.cancelled = number
        elif process.handle.returncode is None:
            by(process.handle.pid, number)


def _last_line(log: Path) -> str:
    """The last line that a process printed for people."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    spoken = [line.strip() for line in lines if line.strip() and not line.startswith('{"event":')]
    return printable(spoken[-1])[:300] if spoken else ""
