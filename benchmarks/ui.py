"""How long the pages of `selfevo ui` take with a million questions.

    .venv/bin/python benchmarks/ui.py

The run is made up (tests/harness/fake_run.py), its first rollout has ROWS questions with votes, its second OTHERS.
Requests go through the application itself, without a socket. Each figure is the median of REPEATS, in seconds, but for
the first page and the first filter, which waits for what a thread gathers while the first page is shown.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from starlette.testclient import TestClient

from harness.fake_run import FakeRun, fake_run
from machine import provenance
from selfevo.ui.app import app_of
from selfevo.ui.runs import Runs
from selfevo_contract.artifacts import MANIFEST_NAME, ManifestDraft
from selfevo_contract.rows import CURRICULUM, QUESTIONS, CheckedQuestion, CurriculumRow
from selfevo_store import commit, read_manifest

ROWS = 1_000_000
OTHERS = 100
REPEATS = 5
RUN = "/runs/default/demo"
PAGES = {
    "runs": "/",
    "questions": f"{RUN}/questions",
    "page 10,000": f"{RUN}/questions?page=10000",
    "filter by share": f"{RUN}/questions?least=40&most=60",
    "filter by reason": f"{RUN}/questions?came=below_band",
    "filter by verdict and length": f"{RUN}/questions?verdict=wrong&longer=150",
    "sorted by share": f"{RUN}/questions?sort=share&down=1",
    "text, few found": f"{RUN}/questions?text=4711+sheep",
    "text, none found": f"{RUN}/questions?text=nobody+wrote+this",
    "one question": f"{RUN}/questions/1/777777",
    "one question, the nearest of a million": f"{RUN}/questions/2/7?near=1",
}
"""What is asked for, by a name for people."""


def questions(count: int, seed: int) -> Iterator[CheckedQuestion]:
    rng = random.Random(seed)
    for number in range(count):
        share = rng.randint(1, 10) / 10
        answer, other = str(rng.randrange(1000)), str(rng.randrange(1000))
        yield CheckedQuestion(
            question=f"A shepherd has {number % 9973} sheep and buys {rng.randrange(10**6)} more in each of "
            f"{rng.randrange(2, 60)} months, while every {rng.randrange(2, 9)}th one is sold. How many are there?",
            proposed=other,
            majority=answer,
            share=share,
            votes=((answer, round(10 * share)), (other, 10 - round(10 * share))),
            truth=answer if rng.random() < 0.7 else other,
            dropped="below_band" if share < 0.3 else "above_band" if share > 0.8 else None,
        )


def million(folder: Path) -> FakeRun:
    """A run whose rollouts have been written again, the first with ROWS questions."""
    fake = fake_run(folder)
    for iteration, count in ((1, ROWS), (2, OTHERS)):
        prefix, rows = fake.prefix(f"solver-rollout-{iteration}"), folder / f"rows-{iteration}"
        manifest = read_manifest(fake.store, prefix)
        assert manifest is not None
        paths = QUESTIONS.write(rows, questions(count, iteration))
        kept = (row for row in questions(count, iteration) if row.dropped is None)
        labels = (CurriculumRow(question=row.question, answer=row.majority or "", share=row.share) for row in kept)
        paths |= CURRICULUM.write(rows, labels)
        (folder / "store" / prefix / MANIFEST_NAME).unlink()
        draft = ManifestDraft.model_validate(manifest.model_dump(include=set(ManifestDraft.model_fields)))
        commit(fake.store, prefix, paths, draft)
    return fake


def timed(client: TestClient, place: str) -> float:
    begun = time.perf_counter()
    answer = client.get(place)
    seconds = time.perf_counter() - begun
    assert answer.status_code == 200, answer.text
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fake = million(Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        client = TestClient(app_of(Runs(Path(folder) / "work", [fake.run])), base_url="http://127.0.0.1")
        first = timed(client, f"{RUN}/questions")
        filtered = timed(client, PAGES["filter by share"])
        medians = {
            name: statistics.median(timed(client, place) for _ in range(REPEATS)) for name, place in PAGES.items()
        }
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {
        **provenance(),
        "questions": ROWS,
        "first page, seconds": round(first, 2),
        "first filter after it, seconds": round(filtered, 2),
        "peak memory, GiB": {"before": round(before, 2), "after": round(after, 2)},
        "seconds": {name: round(seconds, 3) for name, seconds in medians.items()},
    }
    path = Path(__file__).parent / "results" / "ui.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
