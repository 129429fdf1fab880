"""What the sizing formula wants to know of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_contract.sizing.architecture import Architecture


def architecture(folder: Path) -> Architecture | None:
    """By its config.json; None where there is none, or it is of another kind than the formula is for."""
    try:
        return Architecture.of(json.loads((folder / "config.json").read_bytes()))
    except (InputError, KeyError, OSError, ValueError):
        return None
