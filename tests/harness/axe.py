"""axe-core, which checks for what keeps people from a page: the script of one pinned wheel, fetched once by pip.

It lies in ``~/.cache/selfevo``, or what ``SELFEVO_CACHE`` says. The wheel alone is fetched: the browser's driver that
the package wants is not needed, for `chromium` is ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from harness.chromium import Page

PACKAGE = "axe-playwright-python==0.1.8"
"""With axe-core 4.12.1."""
_LIMIT_S = 120.0
_RUN = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(each => ({
    id: each.id, impact: each.impact, nodes: each.nodes.map(node => node.html.slice(0, 200))})))"""


class AxeUnavailable(Exception):
    """pip cannot have it here: tests that need it skip with this message."""


def script() -> str:
    """axe-core as a script.

    Raises:
        AxeUnavailable: it is not in the cache, and no registry gives it.
    """
    cache = Path(os.environ.get("SELFEVO_CACHE") or Path.home() / ".cache" / "selfevo")
    place = cache / "axe" / f"{PACKAGE}.js"
    if not place.exists():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
            except (OSError, subprocess.SubprocessError) as error:
                raise AxeUnavailable(f"{PACKAGE} cannot be fetched: {error}") from None
            [wheel] = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as files:
                text = files.read("axe_playwright_python/axe.min.js")
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_bytes(text)
        draft.replace(place)
    return place.read_text(encoding="utf-8")


def findings(page: Page) -> list[dict[str, Any]]:
    """What axe finds in an open page, of any impact: its rule, how bad it is, and the elements."""
    page.evaluate(script() + "; true")
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    return found
