"""The server of the pages."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

_END_S = 5
"""Answers that are still on their way when the server ends have so long."""


class _Server(uvicorn.Server):
    """Ends the event streams first, whose connections would otherwise keep it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.live.closing = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve ``app`` until a signal."""
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_END_S)
    _Server(config).run([listening])
