"""The version of selfevo that runs here."""

from __future__ import annotations

from importlib import metadata


def selfevo_version() -> str:
    """Of this installation; "(not installed)" where the source is run from its folder."""
    try:
        return metadata.version("selfevo")
    except metadata.PackageNotFoundError:
        return "(not installed)"
