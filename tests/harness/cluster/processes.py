"""Child processes of the tests. None outlives the test process, however that ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.gotools import ToolUnavailable

# Linux sends the death signal when the thread that started the child ends, not when the process does. So every child is
# started by this one thread, which lives as long as the interpreter; a test may then restart a server from any thread.
_starter = ThreadPoolExecutor(1, thread_name_prefix="starts-children")

GOGC = "400"
"""For programs in Go: by how many per cent the heap grows until garbage is collected. With Go's own 100, an API server
uses half as much CPU again, and half a gigabyte of memory less, which is not what is scarce."""


class Child:
    """One program, its log, and its pid."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None
    ) -> None:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ToolUnavailable("there is no setpriv (util-linux) here to tie a server's life to the test's")
        self.name = name
        self.log = log
        self._command = [setpriv, "--pdeathsig", "KILL", "--", *map(str, command)]
        self._env = {"PATH": os.environ["PATH"], "HOME": str(log.parent), "GOGC": GOGC, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self._process = _starter.submit(self._start).result()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def stop(self, grace_s: float = 10.0) -> None:
        """Asks it to end, and makes it when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """It answers nothing any more; who listens still listens."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def tail(self, characters: int = 2000) -> str:
        """The end of its output, for error messages."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""
