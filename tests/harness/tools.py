"""The scripts in tools/, which are no package, as modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs import load_script

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def tool(name: str) -> Any:
    """The script ``name`` of tools/."""
    return load_script(name, TOOLS / f"{name}.py")
