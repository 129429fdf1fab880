"""A limit for waiting that a machine which stands still for minutes does not use up."""

from __future__ import annotations

import time

_CHECK_S = 5.0
"""A check that takes longer counts as this much: the machine, or what it asks, stood still."""
_SOON = 20
"""Checks after which the next ones come less often: each costs the one who is asked, too."""


class Patience:
    """Between one check and the next, at most `_CHECK_S` of the time that has passed counts."""

    def __init__(self, limit_s: float) -> None:
        self._left, self._checked, self._checks = limit_s, time.monotonic(), 0

    def rest(self) -> None:
        """Sleep until the next check."""
        self._checks += 1
        time.sleep(0.05 if self._checks < _SOON else 0.2)

    def over(self) -> bool:
        """To be asked once a check; whether the limit is used up."""
        now = time.monotonic()
        self._left -= min(now - self._checked, _CHECK_S)
        self._checked = now
        return self._left <= 0
