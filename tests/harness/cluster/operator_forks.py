"""Operators by the dozen: forked from one warm process, so that starting one costs a tenth of a second.

Python and the imports take two seconds of a core each time, and a crash matrix starts a hundred operators. What is
forked has imported everything and done nothing: no loop, no thread, no connection.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.cluster.operator_process import IMAGE, RESYNC_S

_WARM = """
import ctypes, json, os, signal, sys
import selfevo_operator.main
parent = os.getpid()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("warm", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os._exit(selfevo_operator.main.main(order["arguments"]))
    print(child, flush=True)
"""


class Fork:
    """One of them. It is held by a file descriptor, so that nobody else of its pid is ever met."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        self._fd = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        return not select.select([self._fd], [], [], 0)[0]

    def kill(self) -> None:
        """By SIGKILL; returns when it is dead."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        assert select.select([self._fd], [], [], 120)[0], "a killed process does not end"

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Nursery:
    """Where they are forked. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._forks: list[Fork] = []
        self._warm = subprocess.Popen(
            [sys.executable, "-c", _WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._read() == "warm"

    def start(self, kubeconfig: Path, namespaces: Sequence[str], flags: Sequence[str] = ()) -> Fork:
        """An operator of these namespaces, that has just begun."""
        arguments = ["--kubeconfig", str(kubeconfig), "--image", IMAGE, "--listen", "127.0.0.1:0"]
        arguments += ["--resync-seconds", str(RESYNC_S), *flags]
        for namespace in namespaces:
            arguments += ["--namespace", namespace]
        with self._lock:
            log = self._folder / f"fork-{len(self._forks)}.log"
            assert self._warm.stdin is not None
            self._warm.stdin.write(json.dumps({"arguments": arguments, "log": str(log)}) + "\n")
            self._warm.stdin.flush()
            fork = Fork(int(self._read()), log)
            self._forks.append(fork)
        return fork

    def _read(self) -> str:
        assert self._warm.stdout is not None
        return self._warm.stdout.readline().strip()

    def close(self) -> None:
        for fork in self._forks:
            fork.kill()
        self._warm.kill()
        self._warm.wait()


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    """One, until the block ends; its operators end with it."""
    place = Nursery(folder)
    try:
        yield place
    finally:
        place.close()
