"""Canonical JSON (RFC 8785) and digests of it."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical_json(value: Any) -> bytes:
    """``value`` (JSON-ready data) as the one byte string that RFC 8785 gives it."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def derive_seed(seed: int, *labels: object) -> int:
    """A seed for one use, from the run's seed and labels that name the use: in [0, 2**31).

    Sums like ``seed + step`` make neighbouring runs share random streams; a digest does not.
    """
    return int(digest([seed, *[str(label) for label in labels]])[:8], 16) & 0x7FFFFFFF
