"""Whoever spans that have ended are handed to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from selfevo_contract.traces import Span

CLOSING_S = 2.0
"""What the last spans get at the end of a process."""
Say = Callable[[str], None]
"""Tells a person one sentence."""


class Sender(Protocol):
    """Where spans that have ended go."""

    @property
    def on(self) -> bool:
        """Whether they go anywhere."""

    def send(self, span: Span) -> None:
        """Hand it over. Does not wait, and does not fail."""

    def close(self, seconds: float = CLOSING_S) -> None:
        """Send what is left, for so long at most."""


class Nowhere:
    """Tracing is off."""

    on = False

    def send(self, span: Span) -> None:
        """Nothing happens."""

    def close(self, seconds: float = CLOSING_S) -> None:
        """Nothing is left."""


NOWHERE = Nowhere()
