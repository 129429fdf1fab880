"""A server on 127.0.0.1 that takes every connection and never says a word."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class SilentServer:
    """Where it listens, and whom it keeps waiting."""

    address: str
    asked: threading.Event = field(default_factory=threading.Event)
    """Somebody is connected, or was."""
    held: list[socket.socket] = field(default_factory=list)
    """Its connections."""


@contextlib.contextmanager
def silent_server() -> Iterator[SilentServer]:
    """One, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = SilentServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.held.append(listener.accept()[0])
                    server.asked.set()

        threading.Thread(target=accept, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        for each in server.held:
            each.close()
