"""Pictures of every page of `selfevo ui` and of `selfevo report`, on a desktop, on a phone and in the dark, for a
person to go through (docs/testing.md).

    python tools/page_pictures.py FOLDER

The runs are made up (tests/harness/fake_run.py): three seeds, one that is not finished, one whose store is damaged.
FOLDER is made; nothing of it belongs into the repository.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


from harness import chromium  # noqa: E402
from harness.fake_run import FakeRun, fake_run  # noqa: E402
from harness.served import served  # noqa: E402
from selfevo.report import Source, write_comparison, write_report  # noqa: E402
from selfevo.ui.runs import Runs  # noqa: E402
from selfevo_contract.artifacts import MANIFEST_NAME  # noqa: E402

ONE = "/runs/default/seed-1"
PAGES = {
    "runs": "/",
    "run": ONE,
    "questions": f"{ONE}/questions",
    "questions-filtered": f"{ONE}/questions?came=kept&sort=share&down=1",
    "question": f"{ONE}/questions/1/1?near=1",
    "question-invalid": f"{ONE}/questions/1/9",
    "evaluation": f"{ONE}/evaluation",
    "held-out": f"{ONE}/evaluation/held-out/3",
    "choose": "/compare",
    "compared": "/compare?run=default/seed-0&run=default/seed-1&run=default/other",
    "unfinished": "/runs/default/other",
    "damaged": "/runs/default/damaged",
    "missing": "/none",
}
VIEWPORTS: dict[str, dict[str, Any]] = {
    "desktop": {"width": 1200},
    "phone": {"width": 390, "mobile": True},
    "dark": {"width": 1200, "dark": True},
}


def main(folder: Path) -> None:
    """Writes them all."""
    browser = chromium.find()
    if browser is None:
        sys.exit("there is no Chromium here (tests/install-debian-packages installs it)")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        runs = _runs(Path(made))
        report, comparison = Path(made, "report.html"), Path(made, "comparison.html")
        write_report(runs[0].run, runs[0].plan, runs[0].store, report)
        write_comparison([Source(run.run, run.plan, run.store) for run in runs[:3]], comparison)
        with served(Runs(Path(made, "work"), [run.run for run in runs])) as address:
            places = {name: address + place for name, place in PAGES.items()}
            places |= {"report": report.as_uri(), "comparison": comparison.as_uri()}
            with chromium.opened(browser, report) as tab:
                for viewport, of in VIEWPORTS.items():
                    tab.emulate(height=900, **of)
                    for name, place in places.items():
                        tab.go(place)
                        print(tab.screenshot(folder / f"{name}-{viewport}.png"))


def _runs(folder: Path) -> list[FakeRun]:
    runs = [fake_run(folder / f"seed-{n}", luck=n, metadata__name=f"seed-{n}", spec__seed=n) for n in (0, 1, 2)]
    runs.append(fake_run(folder / "other", until="solver-rollout-2", metadata__name="other"))
    runs.append(fake_run(folder / "damaged", metadata__name="damaged", spec__iterations=1))
    for manifest in (folder / "damaged" / "store").rglob(MANIFEST_NAME):
        manifest.write_text("damaged")
    return runs


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
