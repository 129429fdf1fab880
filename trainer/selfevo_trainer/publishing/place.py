"""What every place of publication can do, and what is still to be put there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from selfevo_contract import reasons
from selfevo_contract.errors import InputError

CARD = "README.md"
"""A person may write on a card, so it is never compared: where the rest is there, it stays as it is."""


class Place(Protocol):
    """Where files are published."""

    address: str
    """E.g. ``hf://owner/name@iteration-2``."""

    def names(self) -> Collection[str]:
        """Files that are there; none where the place is still to be made."""

    def holds(self, name: str, path: Path) -> bool:
        """Whether what is there by that name has the bytes of ``path``."""

    def put(self, files: Mapping[str, Path], message: str) -> str:
        """Put ``files`` there, the card last or all at once; returns the version that they make, or nothing."""


def missing(place: Place, files: Mapping[str, Path]) -> dict[str, Path]:
    """Those of ``files`` that are not at ``place``: none where they were published before, some after an attempt that
    was killed.

    Raises:
        InputError: something else is there.
    """
    there = set(place.names())
    same = {name for name, path in files.items() if name in there and name != CARD and place.holds(name, path)}
    if there >= set(files) and same == set(files) - {CARD}:
        return {}
    other = sorted(there - same, key=lambda name: (name == CARD, name))
    if other:
        raise InputError(
            f"spec.publish.to is {place.address!r}, and {other[0]} there is not what this run publishes; nothing is "
            "replaced: name another place, or empty that one",
            reason=reasons.PUBLISHED_OTHERWISE,
        )
    return {name: path for name, path in files.items() if name not in same}
