"""Free ports on loopback, and waiting for who listens there."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress

_RANGE = range(12_000, 30_000)
"""Below what the kernel gives to clients and to whoever asks for any port, and below a cluster's node ports."""
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of ``host`` ("" is all addresses) that nobody listens on and that is given only once.

    Seconds pass until the program that it is for listens. A port that the kernel chose may be another one's by then:
    among the thousands that a run of all tests takes, this happened.
    """
    worker, workers = (int(os.environ.get(f"PYTEST_XDIST_WORKER{name}", default).removeprefix("gw"))
                       for name, default in (("", "gw0"), ("_COUNT", "1")))  # fmt: skip
    mine = [port for port in _RANGE if port % workers == worker and port not in _given]
    for port in random.sample(mine, len(mine)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            _given.add(port)
            return port
    raise OSError(f"no port from {_RANGE.start} to {_RANGE.stop - 1} is free")


def wait_for_port(port: int, alive: Callable[[], bool], limit_s: float = 120.0) -> bool:
    """Waits until somebody accepts connections on ``port``; False when ``alive()`` ends first or time is up."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and alive():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False
