"""A request of an S3 client, held in the proxy: the client stands still at a place that a test has named."""

from __future__ import annotations

import re
import threading

from harness.s3proxy import Faults, Request


class Hold:
    """Holds what fits until it is let go: a request, and what a client that lost patience sends in its place.

    Give ``faults(...)`` to the proxy.
    """

    def __init__(self, method: str, pattern: str) -> None:
        self._method, self._pattern = method, pattern
        self._met, self._go_on = threading.Event(), threading.Event()
        self._lost = False
        self._first = threading.Lock()

    @property
    def met(self) -> bool:
        """Whether the client stands there, or has stood there."""
        return self._met.is_set()

    def let_go(self, *, lost: bool = False) -> None:
        """The request goes to the server; ``lost``: it never gets there, but what came in its place does."""
        self._lost = lost
        self._go_on.set()

    def loses(self, request: Request) -> bool:
        """Whether the proxy is to lose the request; returns when that is known."""
        if request.method != self._method or not re.search(self._pattern, request.path):
            return False
        first = self._first.acquire(blocking=False)
        self._met.set()
        self._go_on.wait()
        return self._lost and first


def faults(*holds: Hold) -> Faults:
    """For a proxy that holds what any of these holds."""
    return Faults(lose_request=lambda request: any(hold.loses(request) for hold in holds))
