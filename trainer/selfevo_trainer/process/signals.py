"""SIGTERM: a phase that changes its state is notified and ends where that is whole; elsewhere it ends at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from selfevo_contract.errors import Terminated
from selfevo_contract.process import PARENT_ENV

_STOPPED = "stopped on request; the next attempt goes on where this one's last commit ends"


class Interrupted(BaseException):
    """SIGTERM arrived where nothing can be saved.

    Like KeyboardInterrupt it is no Exception: a library's `except Exception` around what it loads or computes must not
    turn it into a broken model file.
    """


class StopRequest:
    """Whether SIGTERM has arrived."""

    def __init__(self) -> None:
        self.requested = False
        self.requested_at: float | None = None
        """When it did first, by time.monotonic()."""
        self._deferred = False

    @classmethod
    def install(cls) -> StopRequest:
        """Handle SIGTERM and SIGINT from now on."""
        stop = cls()
        signal.signal(signal.SIGTERM, stop._handle)
        signal.signal(signal.SIGINT, stop._handle)
        return stop

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        if first:
            self.requested_at = time.monotonic()
        if first and not self._deferred:
            raise Interrupted(_STOPPED)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a request is only noted; whoever runs inside checks ``requested`` and stops where it can."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Inside ``deferred``, where nothing that counts is changed: a request ends it at once again.

        Raises:
            Interrupted: SIGTERM arrives inside, or had before.
        """
        self.check()
        before, self._deferred = self._deferred, False
        try:
            yield
        finally:
            self._deferred = before

    def check(self) -> None:
        """Raises Interrupted when SIGTERM has arrived."""
        if self.requested:
            raise Interrupted(_STOPPED)

    def defer(self) -> None:
        """The same, to the end of the process: what comes now is checked, and then committed, whoever asks."""
        self._deferred = True


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for a signal when the process that started us is gone (Linux; elsewhere nothing happens).

    Raises:
        Terminated: it is gone already.
    """
    parent = os.environ.get(PARENT_ENV)
    if parent is None:
        return
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
    if str(os.getppid()) != parent:
        raise Terminated(f"the process {parent} that started this phase is gone")
