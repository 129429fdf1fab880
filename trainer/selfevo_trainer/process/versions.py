"""Which Python and which packages computed an output."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata

_PACKAGES = ("selfevo", "torch", "transformers", "trl", "accelerate", "math-verify")


def versions() -> dict[str, str]:
    """Versions of what computed the output."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
