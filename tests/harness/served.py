"""The pages of `selfevo ui` on a real port, for a browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from selfevo.ui.app import app_of
from selfevo.ui.runs import Runs


@contextmanager
def served(runs: Runs) -> Iterator[str]:
    """Their address, until the block ends."""
    made = app_of(runs)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(made, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            made.state.live.closing = server.should_exit = True
            thread.join(30)
