"""Something happens in the middle of what a test runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def at_call(monkeypatch: pytest.MonkeyPatch, kind: Any, method: str, number: int, happen: Callable[[], None]) -> None:
    """Makes something happen before the n-th call of a method of the class ``kind``, once."""
    real, seen = getattr(kind, method), []

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        if len(seen) == number:
            happen()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(kind, method, called)
