"""Free ports on loopback, and waiting for who listens there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def free_port(host: str = "127.0.0.1") -> int:
    """A port of ``host`` ("" is all addresses) that nobody listens on now. Somebody else may take it: start at once."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


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
