"""Why the process ends."""

from __future__ import annotations


class OperatorError(Exception):
    """The operator cannot go on; the message is one sentence."""
