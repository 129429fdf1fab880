"""The terminal: the screen beside what was on it before, and keys as they are pressed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Iterator
from types import FrameType

ESCAPE = "\x1b"
INTERRUPT = "\x03"


def is_terminal() -> bool:
    """Whether a person sits there who sees a screen and has keys."""
    there = sys.stdin.isatty() and sys.stdout.isatty()
    return there and os.environ.get("TERM") not in (None, "", "dumb") and not os.environ.get("CI")


@contextlib.contextmanager
def keys_at_once() -> Iterator[None]:
    """Keys are to be read as they are pressed, Ctrl-C and Ctrl-Z among them, and are not shown."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    after = termios.tcgetattr(terminal)
    after[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
    after[6][termios.VMIN], after[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSANOW, after)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def pressed(seconds: float) -> list[str] | None:
    """The keys that were pressed within ``seconds``, or as soon as there are any; None when the terminal is gone.

    A key that sends a sequence, such as an arrow, is one string.
    """
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return []
    try:
        typed = os.read(sys.stdin.fileno(), 1024).decode("utf-8", "replace")
    except OSError:
        return None
    if not typed:
        return None
    return [typed] if typed.startswith(ESCAPE) else list(typed)


@contextlib.contextmanager
def end_signals() -> Iterator[list[int]]:
    """The signals that ask us to end, as they come; the terminal has to be given back first."""
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
