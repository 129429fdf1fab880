"""Makers of ordered pairs, one a file (docs/verifier.md, "Pairs"): `make(sources)` and a line of the registry."""

from __future__ import annotations

from selfevo_trainer.pairs import corrupt, decomposition, role, swap, temporal
from selfevo_trainer.pairs.base import Made, Maker, Part, Sources, Writer

__all__ = ["MAKERS", "Made", "Maker", "Part", "Sources", "Writer"]

MAKERS: dict[str, Maker] = {
    "decomposition": decomposition.make,
    "swap": swap.make,
    "corrupt": corrupt.make,
    "role": role.make,
    "temporal": temporal.make,
}
"""By the names of `spec.verifier.pairs`."""
