"""Writes docs/images anew: the report, a comparison and a page of `selfevo ui`, as Chromium shows them.

    python tools/docs_pictures.py FOLDER

FOLDER is a checkout in which docs/tutorial.md was walked: its runs are what the pictures show.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness import chromium  # noqa: E402  # the one place that drives a browser

IMAGES = ROOT / "docs" / "images"
RUN = "examples/arithmetic.yaml"
SWEEP = ".selfevo/sweeps/arithmetic"
WIDTH = 1100
HEIGHTS = {"report": 1010, "comparison": 860, "questions": 700}


def main(folder: Path) -> None:
    """Writes the three of them."""
    browser = chromium.find()
    if browser is None:
        sys.exit("there is no Chromium here (tests/install-debian-packages installs it)")
    selfevo = Path(sys.executable).with_name("selfevo")
    runs = [str(path.relative_to(folder)) for path in sorted((folder / SWEEP).glob("*.yaml"))]
    with tempfile.TemporaryDirectory() as made:
        for name, manifests in (("report", [RUN]), ("comparison", runs)):
            page = Path(made, f"{name}.html")
            subprocess.run([selfevo, "report", *manifests, "-o", page], cwd=folder, check=True)
            _shoot(browser, page, name)
    _questions(browser, selfevo, folder)


def _questions(browser: str, selfevo: Path, folder: Path) -> None:
    command = [str(selfevo), "ui", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            address = serving.stdout.readline().split()[0]
            _shoot(browser, f"{address}/runs/default/arithmetic/questions?came=kept&sort=share", "questions")
        finally:
            serving.terminate()


def _shoot(browser: str, page: Path | str, name: str) -> None:
    with chromium.opened(browser, page, width=WIDTH, height=HEIGHTS[name]) as tab:
        shot = tab.screenshot(IMAGES / f"{name}.png", height=HEIGHTS[name])
    print(f"{shot.relative_to(ROOT)}: {shot.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
