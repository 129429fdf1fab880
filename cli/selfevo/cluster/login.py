"""Login commands of a kubeconfig that fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from selfevo.cluster.errors import Server, Unauthorized, first_line


@contextlib.contextmanager
def login_complaints(server: Server) -> Iterator[None]:
    """The client logs why a login command failed, and goes on as nobody. Better to stop and tell."""
    logged: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    listener, root = Listener(logging.ERROR), logging.getLogger()
    root.addHandler(listener)  # without any, logging.error would set one up that writes to standard error
    try:
        yield
    finally:
        root.removeHandler(listener)
    if logged:
        raise Unauthorized(
            f"the login of {server.whose} in {server.kubeconfig} failed ({first_line(logged[-1])}); log in again"
        )
