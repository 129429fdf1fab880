"""`selfevo ui`: what its pages say, that they only read, and that no model's text takes them over."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from harness import axe, chromium
from harness.fake_run import HOSTILE, FakeRun, fake_run
from harness.served import served
from selfevo.cluster.client import Resource
from selfevo.main import app
from selfevo.report import Source, write_comparison, write_report
from selfevo.ui import cluster_runs
from selfevo.ui.app import app_of
from selfevo.ui.filters import PAGE, Filter, read_filter
from selfevo.ui.live import Live
from selfevo.ui.models import TUNED
from selfevo.ui.runs import Runs
from selfevo_contract.artifacts import MANIFEST_NAME
from selfevo_contract.errors import InputError
from selfevo_contract.rows import QUESTIONS, CheckedQuestion, ScoreRow, answers_of
from selfevo_store import fetch_rows, read_manifest

RUN = "/runs/default/demo"
PAGES = ("questions", "questions/1/1", "evaluation", "evaluation/held-out/3")
DESKTOP: dict[str, Any] = {}
PHONE: dict[str, Any] = {"width": 390, "height": 800, "mobile": True, "dark": True}
WIDE = "[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth)"
"""What scrolls sideways: a shadow at its edge says that there is more."""
HINTED = f"{WIDE}.filter(each => getComputedStyle(each).backgroundImage.split('linear-gradient').length === 5).length"
WITHOUT_HINT = """[...document.querySelectorAll('main *')].filter(each => each.scrollWidth > each.clientWidth + 1 &&
    ['auto', 'scroll'].includes(getComputedStyle(each).overflowX) && !each.matches('pre, input, .choices') &&
    !getComputedStyle(each).backgroundImage.includes('linear-gradient')).map(each => each.outerHTML.slice(0, 200))"""
ATTACK = "%22%3E%3Csvg%20onload%3Dalert(1)%3E"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    labelled = {"data": {"uri": "s3://data/labelled.jsonl", "digest": "0" * 64}, "maxSteps": 2}
    return fake_run(tmp_path_factory.mktemp("fake"), spec__rollout__questions=120, spec__finetune=labelled)


def client_of(fake: FakeRun, workdir: Path) -> TestClient:
    return TestClient(app_of(Runs(workdir, [fake.run])), base_url="http://127.0.0.1:8321")


@pytest.fixture(scope="module")
def client(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(fake, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def asked(fake: FakeRun) -> list[CheckedQuestion]:
    """The valid questions of iteration 1."""
    manifest = read_manifest(fake.store, fake.prefix("solver-rollout-1"))
    assert manifest is not None
    rows = fetch_rows(fake.store, fake.prefix("solver-rollout-1"), manifest, QUESTIONS)
    return [row for row in rows if isinstance(row, CheckedQuestion)]


def total(client: TestClient, **query: Any) -> int:
    """How many questions a filter finds."""
    page = client.get(f"{RUN}/questions", params=query)
    assert page.status_code == 200
    found = re.search(r'role="status">([\d\u202f]+) question', page.text)
    assert found is not None
    return int(found[1].replace("\u202f", ""))


@pytest.mark.slow
def test_the_overview_says_where_each_run_stands(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert f'href="{RUN}"' in page.text and "Succeeded" in page.text and "<polyline" in page.text


@pytest.mark.slow
def test_a_run_page_is_the_report_with_scripts_of_our_own(client: TestClient) -> None:
    page = client.get(RUN)
    assert page.status_code == 200
    for section in ("iterations", "training", "time", "lineage", "settings"):
        assert f'<section id="{section}">' in page.text
    assert f'href="{RUN}/questions?iteration=2"' in page.text
    assert len(page.content) < 1_000_000  # plotly is a file of its own
    assert "Plotly" in client.get("/static/plotly.js").text


def test_a_filter_finds_what_the_rows_say(client: TestClient, asked: list[CheckedQuestion]) -> None:
    assert total(client, iteration=1) == 120
    assert total(client) == 240
    kept = [row for row in asked if row.dropped is None]
    assert total(client, iteration=1, came="kept") == len(kept) > 0
    assert total(client, iteration=1, came="duplicate") == sum(row.dropped == "duplicate" for row in asked) > 0
    assert total(client, iteration=1, came="invalid") == 12
    half = sum(0.3 <= row.share <= 0.5 for row in asked)
    assert total(client, iteration=1, least=30, most=50) == half > 0
    wrong = sum(row.truth is not None and row.majority != row.truth for row in asked)
    assert total(client, iteration=1, verdict="wrong") == wrong > 0
    assert total(client, iteration=1, longer=1000) == total(client, iteration=1, text="XXXXX") > 0
    assert total(client, text="nobody wrote this") == 0


@pytest.mark.parametrize("text", ["'; DROP TABLE questions; --", "%", "_", "\\", "\ud800", "<script>"])
def test_a_search_is_for_these_very_characters(client: TestClient, text: str) -> None:
    wanted = {"<script>": lambda n: n > 0, "%": lambda n: n > 0, "_": lambda n: n > 0, "\\": lambda n: n == 0}
    assert wanted.get(text, lambda n: n == 0)(total(client, text=text.encode("utf-8", "replace").decode()))
    assert total(client) == 240


def test_pages_sort_and_go_on(client: TestClient, asked: list[CheckedQuestion]) -> None:
    def numbers(**query: Any) -> list[str]:
        return re.findall(
            rf'<td><a href="{RUN}/questions/(\d+/\d+)"', client.get(f"{RUN}/questions", params=query).text
        )

    pages = [numbers(page=n) for n in (1, 2, 3, 4, 5)]
    assert [len(page) for page in pages] == [PAGE] * 4 + [40]
    every = [each for page in pages for each in page]
    assert every == [f"{i}/{n}" for i in (1, 2) for n in range(120)]
    by_share = numbers(iteration=1, sort="share", down=1)
    assert by_share != numbers(iteration=1, sort="share")
    page = client.get(f"{RUN}/questions", params={"iteration": 1, "sort": "share", "down": 1}).text
    best = max(asked, key=lambda row: row.share).share
    assert f"{100 * best:.0f}\u202f%" in page[page.index("<tbody>") : page.index("</tr>", page.index("<tbody>"))]


def test_one_question_has_its_votes_and_answers(client: TestClient, fake: FakeRun) -> None:
    page = client.get(f"{RUN}/questions/1/1").text
    assert "Question 1 of iteration 1" in page and "Votes" in page and "so \\boxed{" in page
    assert page.count('class="whole"') == 1 + 10  # the question, and each of its samples


def test_one_question_says_what_rewards_come_of_it(client: TestClient, asked: list[CheckedQuestion]) -> None:
    row = asked[1]
    page = " ".join(client.get(f"{RUN}/questions/1/1").text.split())
    uncertainty = 1 - 2 * abs(row.share - 0.5)
    assert f"uncertainty {uncertainty:.3g}, of the share {row.share:.3g};" in page and "and is not stored" in page
    right = max(count for _, count in row.votes)
    assert f"{right} of these 10 answers equal the label: {right / 10:.3g} on average" in page
    assert "a completion that is no valid question, paid 0" in client.get(f"{RUN}/questions/1/9").text


def test_the_nearest_questions_of_other_iterations_are_found_when_they_are_asked_for(client: TestClient) -> None:
    place = f"{RUN}/questions/1/1"
    assert 'href="?near=1#nearest"' in client.get(place).text
    page = client.get(f"{place}?near=1").text
    rows = rows_in(page, 'id="nearest"')
    assert len(rows) == 5 and all(row[0].startswith("2/") and "+" in row[1] for row in rows)
    common = [int(row[2].removesuffix("\u202f%")) for row in rows]
    assert common == sorted(common, reverse=True) and common[-1] > 0
    assert all(row[3].endswith("%") and row[4] for row in rows)


def test_a_question_that_comes_twice_leads_to_the_other(client: TestClient) -> None:
    assert f'href="{RUN}/questions/1/51"' in client.get(f"{RUN}/questions/1/0").text


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    ["", RUN, f"{RUN}/questions", f"{RUN}/questions/1/0", f"{RUN}/evaluation", "/compare", "/static/plotly.js"],
)
def test_pages_are_read_only_and_load_nothing_from_elsewhere(client: TestClient, place: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, place or "/").status_code == 405
    answer = client.head(place or "/")
    assert answer.status_code == 200 and not answer.content
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "10.0.0.1:8321", ""])
def test_another_hosts_name_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "place",
    ["/x", "/runs/default/none", f"{RUN}/questions/9/0", f"{RUN}/questions/1/999", f"{RUN}/questions/1/{10**30}"],
)
def test_what_is_not_there_is_reported(client: TestClient, place: str) -> None:
    answer = client.get(place)
    assert answer.status_code == 404 and "There is no such page." in answer.text


@pytest.mark.slow
def test_a_rollout_without_rows_to_read_is_a_sentence_beside_the_others(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-train-2", spec__rollout__questions=20)
    client, place = client_of(fake, tmp_path / "work"), tmp_path / "store" / fake.prefix("solver-rollout-2")
    known = json.loads((place / MANIFEST_NAME).read_text())
    [entry] = [file for file in known["files"] if file["name"] == QUESTIONS.name]
    junk = b"no table"
    (place / entry["path"]).write_bytes(junk)
    rows = [
        ({**entry, "size": len(junk), "sha256": hashlib.sha256(junk).hexdigest()}, "has rows that this version"),
        (entry, "is damaged"),
        (None, f"was committed without {QUESTIONS.name}, and there are no rows to show"),
    ]
    for changed, message in rows:
        files = [changed if file is entry else file for file in known["files"]]
        (place / MANIFEST_NAME).write_text(json.dumps({**known, "files": [file for file in files if file]}))
        client = client_of(fake, tmp_path / "work")
        page = client.get(f"{RUN}/questions")
        assert page.status_code == 200 and f"{RUN}/questions/1/0" in page.text, message
        assert "The questions of iteration 2 cannot be shown: " in page.text and message in page.text
        assert total(client, iteration=2) == 0 and total(client, text="the") >= 0
        one = client.get(f"{RUN}/questions/2/0")
        assert one.status_code == 503 and message in one.text
        assert client.get(f"{RUN}/questions/1/1").status_code == 200


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> list[FakeRun]:
    """Three seeds of one run, one of other settings that is not finished, and one whose store is damaged."""
    folder = tmp_path_factory.mktemp("several")
    runs = [fake_run(folder / f"seed-{n}", luck=n, metadata__name=f"seed-{n}", spec__seed=n) for n in (0, 1, 2)]
    changes: dict[str, Any] = {"metadata__name": "other", "spec__rollout__questions": 40}
    runs.append(fake_run(folder / "other", until="solver-rollout-2", **changes))
    damaged = fake_run(folder / "damaged", metadata__name="damaged", spec__iterations=1)
    for manifest in (folder / "damaged" / "store").rglob(MANIFEST_NAME):
        manifest.write_bytes(b"<script>alert(1)</script>")
    return [*runs, damaged]


@pytest.fixture(scope="module")
def several(fakes: list[FakeRun], tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    named = Runs(tmp_path_factory.mktemp("work"), [fake.run for fake in fakes])
    return TestClient(app_of(named), base_url="http://127.0.0.1:8321")


def scored(fake: FakeRun, step: str) -> list[ScoreRow]:
    manifest = read_manifest(fake.store, fake.prefix(step))
    assert manifest is not None
    return fetch_rows(fake.store, fake.prefix(step), manifest, answers_of("held-out"))


def rows_in(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without markup."""
    body = page[page.index(heading) :].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row, re.S) for row in body.split("</tr>")]
    return [[re.sub(r"<.*?>", " ", cell).strip() for cell in row] for row in rows if row]


def test_held_out_questions_change_as_the_rows_say(client: TestClient, fake: FakeRun) -> None:
    before, after = (scored(fake, f"evaluate-{n}") for n in (1, 2))
    lost = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a.greedy_right and not b.greedy_right]
    gained = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if b.greedy_right and not a.greedy_right]
    assert lost and gained
    page = client.get(f"{RUN}/evaluation").text
    assert rows_in(page, 'id="flips"')[1] == ["1 → 2", "80", str(len(lost)), str(len(gained))]
    for change, numbers in (("lost", lost), ("gained", gained)):
        page = client.get(f"{RUN}/evaluation", params={"since": 1, "until": 2, "change": change}).text
        assert [row[0] for row in rows_in(page, "<table class")] == [f"held-out/{n}" for n in numbers[:PAGE]]


def test_held_out_questions_are_judged_sorted_and_searched(client: TestClient, fake: FakeRun) -> None:
    base, last = (scored(fake, f"evaluate-{n}") for n in (0, 2))
    page = client.get(f"{RUN}/evaluation", params={"by": "maj", "change": "right"}).text
    both = sum(bool(a.majority_right and b.majority_right) for a, b in zip(base, last, strict=True))
    assert f'role="status">{both} question' in page
    page = client.get(f"{RUN}/evaluation", params={"sort": "moved", "down": 1}).text
    moved = max(b.samples_right - a.samples_right for a, b in zip(base, last, strict=True))
    assert rows_in(page, "<table class")[0][-1] == f"{100 * moved / 8:+.0f}"
    assert len(rows_in(client.get(f"{RUN}/evaluation", params={"page": 2}).text, "<table class")) == 30
    assert 'role="status">1 question' in client.get(f"{RUN}/evaluation", params={"text": "79 + 79"}).text
    assert 'role="status">0 questions' in client.get(f"{RUN}/evaluation", params={"task": "' OR true --"}).text
    assert 'role="status">80 questions' in client.get(f"{RUN}/evaluation", params={"page": 9}).text


def test_one_held_out_question_has_its_answers_at_each_iteration(client: TestClient, fake: FakeRun) -> None:
    row = scored(fake, "evaluate-1")[3]
    page = client.get(f"{RUN}/evaluation/held-out/3?model=1").text
    assert [cells[3] for cells in rows_in(page, 'id="answers-over-time"')][1] == f"{row.samples_right} of 8"
    assert "Sampled answers of iteration 1" in page and page.count("so \\boxed{") == 8
    assert "Sampled answers of iteration 2" in client.get(f"{RUN}/evaluation/held-out/3").text
    for place in ("held-out/80", "none/0", f"held-out/{10**30}"):
        assert client.get(f"{RUN}/evaluation/{place}").status_code == 404


def test_fine_tuned_models_stand_beside_what_they_started_from(client: TestClient, fake: FakeRun) -> None:
    steps = {0: "evaluate-0", 2: "evaluate-2", TUNED: "finetune-evaluate-0", TUNED + 2: "finetune-evaluate-2"}
    right = {place: [row.greedy_right for row in scored(fake, step)] for place, step in steps.items()}
    pairs = {"base → fine-tuned base": (0, TUNED), "2 → fine-tuned 2": (2, TUNED + 2)}
    pairs["fine-tuned base → fine-tuned 2"] = (TUNED, TUNED + 2)
    page = client.get(f"{RUN}/evaluation").text
    flips = rows_in(page, 'id="flips"')[2:]
    assert [row[0] for row in flips] == list(pairs)
    for (name, asked, *counts), (a, b) in zip(flips, pairs.values(), strict=True):
        both = list(zip(right[a], right[b], strict=True))
        assert (asked, counts) == ("80", [str(both.count((True, False))), str(both.count((False, True)))]), name
    shown = rows_in(page, "<table class")[0]
    marks = shown[3:8]  # base, 1, 2, fine-tuned base, fine-tuned 2
    assert [mark[0] for mark in (marks[0], *marks[2:])] == ["✓" if each[0] else "✗" for each in right.values()]
    solvers = [row[0].samples_right for row in (scored(fake, f"evaluate-{n}") for n in range(3))]
    assert shown[9] == f"{100 * sum(solvers) / 24:.0f}\u202f%"  # of iterations alone
    lost = [n for n, (a, b) in enumerate(zip(right[2], right[TUNED + 2], strict=True)) if a and not b]
    page = client.get(f"{RUN}/evaluation", params={"since": 2, "until": TUNED + 2, "change": "lost"}).text
    assert [row[0] for row in rows_in(page, "<table class")] == [f"held-out/{n}" for n in lost]
    page = client.get(f"{RUN}/evaluation/held-out/3?model={TUNED + 2}").text
    assert [cells[0] for cells in rows_in(page, 'id="answers-over-time"')][3:] == [
        "the fine-tuned base",
        "fine-tuned iteration 2",
    ]
    assert "Sampled answers of fine-tuned iteration 2" in page and "Fine-tuned iteration 2: greedy" in page


@pytest.mark.slow
def test_one_damaged_store_is_that_runs_sentence(several: TestClient) -> None:
    page = several.get("/")
    assert page.status_code == 200 and "Not read:" in page.text and "<script>alert" not in page.text
    assert page.text.count("Succeeded") == 3 and page.text.count("Stopped") == 2
    damaged = several.get("/runs/default/damaged")
    assert damaged.status_code == 503 and "<h1>This page cannot be shown</h1>" in damaged.text
    assert several.get("/compare").text.count('type="checkbox"') == 4


@pytest.mark.slow
def test_runs_side_by_side_differ_as_their_rows_do(several: TestClient, tmp_path: Path) -> None:
    names = [f"default/{name}" for name in ("seed-0", "seed-1", "seed-2", "other")]
    page = several.get("/compare", params={"run": names}).text
    ours = [fake_run(tmp_path / str(n), luck=n, spec__seed=n) for n in (0, 1)]
    pairs = zip(*(scored(fake, "evaluate-2") for fake in ours), strict=True)
    differences = [(b.samples_right - a.samples_right) / 8 for a, b in pairs]
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    expected = f"{100 * mean:+.1f} ± {100 * error:.1f}".replace("-", "\u2212")
    assert [row[0] for row in rows_in(page, 'id="runs-table"')] == ["seed-0 (reference)", "seed-1", "seed-2", "other"]
    assert rows_in(page, 'id="differences"')[0][1:] == ["80", ANY, ANY, expected]
    assert rows_in(page, 'id="seeds-table"')[0][1] == "0, 1, 2"
    settings = {row[0]: row[1:] for row in rows_in(page, 'id="settings"')}
    assert settings["seed"] == ["0", "1", "2", "0"] and settings["rollout.questions"] == ["60", "60", "60", "40"]


def test_a_comparison_takes_what_makes_sense_of_its_address(several: TestClient) -> None:
    asked = {"run": ["default/seed-1", "default/none", "'; --", "default/seed-1"], "against": "default/seed-2"}
    page = several.get("/compare", params=asked)
    assert page.status_code == 200 and [row[0] for row in rows_in(page.text, 'id="runs-table"')] == [
        "seed-1 (reference)"
    ]
    assert "Compare runs" in several.get("/compare?run=x&against=default/seed-1").text
    both = several.get("/compare?run=default/seed-1&run=default/other&against=default/other").text
    assert "other (reference)" in both


def test_rows_of_an_older_version_are_read(tmp_path: Path, fake: FakeRun) -> None:
    from harness.artifacts import write_files
    from selfevo_contract.artifacts import ManifestDraft
    from selfevo_contract.rows import CURRICULUM, write_rows
    from selfevo_store import commit

    old = fake_run(tmp_path, spec__iterations=1)
    prefix = old.prefix("solver-rollout-1")
    manifest = read_manifest(old.store, prefix)
    assert manifest is not None
    files = {}
    tables: tuple[Any, ...] = (QUESTIONS, CURRICULUM)
    for file in tables:
        rows = fetch_rows(old.store, prefix, manifest, file)
        files[file.lines.name] = write_rows(tmp_path / "lines" / file.lines.name, rows).read_bytes()
    (tmp_path / "store" / prefix / MANIFEST_NAME).unlink()
    draft = ManifestDraft.model_validate(manifest.model_dump(include=set(ManifestDraft.model_fields)))
    commit(old.store, prefix, write_files(tmp_path / "again", files), draft)
    assert total(client_of(old, tmp_path / "work")) == 60


@pytest.mark.slow
def test_a_run_that_goes_on_shows_what_is_new(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-2")
    client = client_of(fake, tmp_path / "work")
    assert "Stopped" in client.get("/").text
    assert total(client) == 60
    assert "not there yet" in client.get(RUN).text
    fake_run(tmp_path)
    assert total(client) == 120
    assert "Succeeded" in client.get("/").text


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    page = TestClient(app_of(Runs(tmp_path)), base_url="http://localhost").get("/")
    assert page.status_code == 200 and "selfevo run MANIFEST" in page.text


class Listing:
    """A cluster of which only the list of runs is asked."""

    namespace = "research"

    def __init__(self, *runs: Resource) -> None:
        self.found, self.asked = list(runs), 0

    def runs(self) -> list[Resource]:
        self.asked += 1
        return self.found


NO_GPU = {"countedAt": "2026-01-01T00:00:00Z", "wallHours": 1.0, "gpuHours": 0.0}


def in_cluster(fake: FakeRun, **status: Any) -> Resource:
    document = fake.run.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["metadata"] |= {"namespace": "research"}
    return Resource.read({**document, "status": status})


def test_the_runs_of_a_cluster_are_those_of_its_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runs, "LISTED_S", 3600.0)
    fake = fake_run(tmp_path, until="solver-rollout-2", gpus=1800, metadata__namespace="research")
    newer = replace(in_cluster(fake), name="newer", run=None)
    cluster: Any = Listing(in_cluster(fake, phase="Running", iteration=2, usage=NO_GPU), newer)
    client = TestClient(app_of(cluster_runs.ClusterRuns(cluster, tmp_path / "work")), base_url="http://127.0.0.1:8321")
    page = client.get("/").text
    assert "Running" in page and "Stopped" not in page
    assert "<td>0.00</td>" in page and "GPU hours" not in client.get("/runs/research/demo").text  # as it counted them
    assert "Not read:" in page and "cannot read its spec" in page
    assert client.get("/runs/research/demo/questions").status_code == 200
    assert client.get("/runs/research/newer").status_code == 503
    assert client.get("/runs/default/demo").status_code == 404 and cluster.asked == 1
    cluster.found = []
    empty = TestClient(
        app_of(cluster_runs.ClusterRuns(cluster, tmp_path / "work")), base_url="http://127.0.0.1:8321"
    ).get("/")
    assert "There is no SelfEvolutionRun in namespace research." in empty.text


def test_runs_of_two_places_are_not_shown_together(tmp_path: Path) -> None:
    for arguments in (["-n", "research", "run.yaml"], ["--context", "x", "--storage", "s3://a/b"]):
        with pytest.raises(
            InputError, match=r"(run\.yaml|--storage s3://a/b) and .* name runs of two places; leave out"
        ):
            CliRunner().invoke(app, ["ui", *arguments], catch_exceptions=False)


def test_a_filter_is_the_address_that_it_was_read_from() -> None:
    asked = Filter(iteration=2, came="kept", least=12.5, text="a & b", sort="share", down=True, page=3)
    from urllib.parse import parse_qsl

    assert read_filter(dict(parse_qsl(asked.query))) == asked
    assert read_filter({"iteration": "1e99", "least": "nan", "page": "-4", "sort": "x; y", "verdict": "z"}) == Filter()


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port} cannot be opened .*; name another one, or 0"):
            CliRunner().invoke(app, ["ui", "--port", str(port), "--workdir", str(tmp_path)], catch_exceptions=False)


def test_a_page_hears_what_is_new_and_nothing_else() -> None:
    live, state, reads = Live(every_s=0.01), ["a"], []

    def read() -> str:
        reads.append(state[0])
        return state[0]

    async def heard() -> list[str]:
        found = []
        async for event in live.events("x", read):
            found.append(event)
            state[0] = "b"
            live.closing = len(found) == 2
        return found

    assert asyncio.run(heard()) == [f"event: state\ndata: {each}\n\n" for each in "ab"]
    assert live.open == 0


def test_a_slow_poll_is_made_less_often_and_shared() -> None:
    live = Live(every_s=0.0)

    def slow() -> str:
        time.sleep(1)
        return "first"

    assert live.state("x", slow) == "first"
    assert live.state("x", lambda: "second") == "first"  # ten seconds long
    assert live.state("y", lambda: "other") == "other"


@pytest.mark.slow
def test_every_page_that_follows_a_run_has_its_state(fake: FakeRun, client: TestClient, tmp_path: Path) -> None:
    def state(client: TestClient, place: str) -> str:
        found = re.search(r'<body data-live="([^"]+)" data-state="([0-9a-f]+)">', client.get(place).text)
        assert found is not None and client.head(found[1].replace("&amp;", "&")).status_code == 200
        return found[2]

    ones = {state(client, f"{RUN}{page}") for page in ("", "/questions", "/evaluation")}
    assert len(ones) == 1 and state(client, "/") == state(client, "/compare") not in ones
    part = client_of(fake_run(tmp_path, until="solver-rollout-2"), tmp_path / "work")
    before = state(part, RUN), state(part, "/")
    assert before == (state(part, RUN), state(part, "/"))
    fake_run(tmp_path)
    assert state(part, RUN) != before[0] and state(part, "/") != before[1]
    assert part.head("/events?run=default/none").status_code == 200
    assert "data-live" not in client.get(f"{RUN}/questions/1/0").text


@pytest.fixture(scope="module")
def address(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(Runs(tmp_path_factory.mktemp("served"), [fake.run])) as address:
        yield address


@pytest.fixture
def browser() -> str:
    found = chromium.find()
    if found is None:
        pytest.skip("no Chromium")
    return found


def until(page: chromium.Page, expression: str) -> None:
    """Wait for it to become true in the page."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


@pytest.mark.slow
def test_an_open_page_follows_its_run_without_being_loaded_again(browser: str, tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-2")
    with (
        served(Runs(tmp_path / "work", [fake.run])) as address,
        chromium.opened(browser, address + RUN) as page,
        chromium.opened(browser, f"{address}/") as overview,
    ):
        for each in (page, overview):
            until(each, "document.getElementById('live').textContent === 'live'")
            each.evaluate("window.same = true")
        assert page.evaluate("document.querySelectorAll('#scores .point').length") == 6
        page.evaluate("for (const each of document.querySelectorAll('#settings details')) each.open = true")
        fake_run(tmp_path)
        until(overview, "document.querySelector('tbody').textContent.includes('Succeeded')")
        until(page, "!document.querySelector('main > header').textContent.includes('not finished')")
        until(page, "document.querySelectorAll('#scores .point').length === 9")
        assert page.evaluate("[...document.querySelectorAll('#settings details')].every(each => each.open)")
        for each in (page, overview):
            assert each.evaluate("window.same") is True and each.complaints == []
            assert "updated at" in each.evaluate("document.getElementById('live').textContent")
            assert all(url.startswith((address, "data:")) for url in each.requests)


@pytest.mark.slow
def test_axe_finds_nothing_that_keeps_people_from_a_page(browser: str, fakes: list[FakeRun], tmp_path: Path) -> None:
    """Every page of a store with several runs, and both files that `selfevo report` writes."""
    try:
        axe.script()
    except axe.AxeUnavailable as error:
        pytest.skip(str(error))
    report, comparison = tmp_path / "report.html", tmp_path / "comparison.html"
    write_report(fakes[0].run, fakes[0].plan, fakes[0].store, report)
    write_comparison([Source(fake.run, fake.plan, fake.store) for fake in fakes[:3]], comparison)
    one = "/runs/default/seed-1"
    pages = ["/", one, *(f"{one}/{page}" for page in PAGES), "/compare", "/none", "/runs/default/damaged"]
    pages.append("/compare?" + "&".join(f"run=default/{name}" for name in ("seed-0", "seed-1", "other")))
    with (
        served(Runs(tmp_path / "work", [fake.run for fake in fakes])) as address,
        chromium.opened(browser, report) as page,
    ):
        places = [report.as_uri(), comparison.as_uri(), *(address + place for place in pages)]
        for viewport in DESKTOP, PHONE:
            page.emulate(**viewport)
            for place in places:
                page.go(place)
                found = [each for each in axe.findings(page) if each["impact"] in ("serious", "critical")]
                assert found == [], (place, viewport)
                assert page.complaints == [] or place.endswith(("/none", "/damaged")), (place, page.complaints)
                if viewport is PHONE:
                    assert page.evaluate("document.documentElement.scrollWidth") <= 390, place
                    assert page.evaluate(WITHOUT_HINT) == [], place
        page.go(address + one)
        assert page.evaluate(HINTED) > 0  # a phone has no room for the table of iterations


@pytest.mark.slow
def test_questions_are_searched_and_opened_by_keys_alone(browser: str, address: str) -> None:
    def tab_to(wanted: str) -> None:
        for _ in range(60):
            page.press("Tab")
            if page.evaluate(f"document.activeElement.matches({wanted!r})"):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
        raise AssertionError(f"no key leads to {wanted}")

    with chromium.opened(browser, f"{address}{RUN}/questions") as page:
        page.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        tab_to("input[name=text]")
        for key in "xxx":
            page.press(key)
        page.press("Enter")
        until(page, "location.search.includes('text=xxx') && document.readyState === 'complete'")
        assert page.evaluate("document.querySelectorAll('tbody tr').length") > 0
        tab_to("tbody td a")
        wanted = page.evaluate("document.activeElement.pathname")
        page.press("Enter")
        until(page, f"location.pathname === {wanted!r} && document.readyState === 'complete'")
        assert "xxx" in page.evaluate("document.querySelector('.whole').textContent.toLowerCase()")
        assert page.complaints == []


@pytest.mark.slow
def test_hostile_text_does_nothing_in_a_browser(browser: str, address: str) -> None:
    places = ["/", RUN, f"{RUN}/questions?longer=1", *(f"{RUN}/questions/1/{n}?near=1" for n in (0, 1, 3, 6, 9, 12))]
    places += [f"{RUN}/evaluation", f"/compare?run=default/demo&run={ATTACK}&against={ATTACK}"]
    places += [f"{RUN}/evaluation/held-out/{n}?model={ATTACK}" for n in (0, 2, 5, 15)]
    places += [f"{RUN}/{page}?text={ATTACK}&task={ATTACK}" for page in ("questions", "evaluation")]
    with chromium.opened(browser, address + places[0], **PHONE) as page:
        for place in places:
            page.go(address + place)
            assert page.evaluate("document.title").endswith(("selfevo", "self-evolution report", "compared")), place
            assert page.evaluate("document.querySelectorAll('iframe, img, object, embed').length") == 0, place
            assert page.evaluate("[...document.scripts].every(s => s.type || s.src)"), place
            assert page.complaints == [], place
            assert all(url.startswith((address, "data:")) for url in page.requests), place
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, place
    assert len(HOSTILE) > 10
