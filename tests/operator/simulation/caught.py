"""Which seed catches each mutant first: tried before all others, so that the search is short while it holds.

SELFEVO_UPDATE_CAUGHT=1 pytest tests/operator/test_mutants.py writes caught.json anew.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).parent / "caught.json"


def seeds() -> dict[str, int]:
    """Name of a mutant -> the seed in which it last broke a law."""
    found: dict[str, int] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def remember(name: str, seed: int) -> None:
    """Write the seed down."""
    known = {**seeds(), name: seed}
    FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
