"""Which Python and which packages computed an output."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable
from importlib import metadata

_PACKAGES = ("selfevo", "torch", "transformers", "trl", "accelerate", "math-verify")


def versions() -> dict[str, str]:
    """Versions of what computed the output."""
    return {"python": platform.python_version(), **installed(_PACKAGES)}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``packages`` that are here."""
    found: dict[str, str] = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
