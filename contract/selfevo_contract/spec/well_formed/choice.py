"""An answer is one of the choices of its question."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Closed


class ChoiceCheck(Closed):
    """The answer names one of the choices that the question lists as (A), A) or A. at the beginning of a line or behind
    a space. Questions that list fewer than two are not checked."""

    kind: Literal["choice"]
    """Which check."""
