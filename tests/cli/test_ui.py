"""`selfevo ui`: what its pages say, that they only read, and that no model's text takes them over."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner

from harness import chromium
from harness.fake_run import HOSTILE, FakeRun, fake_run
from selfevo.main import app
from selfevo.ui.app import app_of
from selfevo.ui.filters import PAGE, Filter, read_filter
from selfevo.ui.runs import Runs
from selfevo_contract.artifacts import MANIFEST_NAME
from selfevo_contract.errors import InputError
from selfevo_contract.rows import QUESTIONS, CheckedQuestion
from selfevo_store import fetch_rows, read_manifest

RUN = "/runs/default/demo"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return fake_run(tmp_path_factory.mktemp("fake"), spec__rollout__questions=120)


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


def test_the_overview_says_where_each_run_stands(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert f'href="{RUN}"' in page.text and "Succeeded" in page.text and "<polyline" in page.text


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


def test_a_question_that_comes_twice_leads_to_the_other(client: TestClient) -> None:
    assert f'href="{RUN}/questions/1/51"' in client.get(f"{RUN}/questions/1/0").text


@pytest.mark.parametrize("place", ["", RUN, f"{RUN}/questions", f"{RUN}/questions/1/0", "/static/plotly.js"])
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
def test_what_is_not_there_is_said_so(client: TestClient, place: str) -> None:
    answer = client.get(place)
    assert answer.status_code == 404 and "There is no such page." in answer.text


def test_a_damaged_store_is_a_sentence_on_the_page(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__iterations=1)
    place = tmp_path / "store" / fake.prefix("solver-rollout-1")
    next(place.rglob("questions.parquet")).write_bytes(b"<script>")
    answer = client_of(fake, tmp_path / "work").get(f"{RUN}/questions")
    assert answer.status_code == 503 and "is damaged" in answer.text


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
    for file in (QUESTIONS, CURRICULUM):
        rows: Any = fetch_rows(old.store, prefix, manifest, file)  # type: ignore[arg-type]
        files[file.lines.name] = write_rows(tmp_path / "lines" / file.lines.name, rows).read_bytes()
    (tmp_path / "store" / prefix / MANIFEST_NAME).unlink()
    draft = ManifestDraft.model_validate(manifest.model_dump(include=set(ManifestDraft.model_fields)))
    commit(old.store, prefix, write_files(tmp_path / "again", files), draft)
    assert total(client_of(old, tmp_path / "work")) == 60


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


@pytest.fixture(scope="module")
def address(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The pages on a real port."""
    made = app_of(Runs(tmp_path_factory.mktemp("served"), [fake.run]))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(made, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


@pytest.mark.slow
def test_hostile_text_does_nothing_in_a_browser(address: str, fake: FakeRun) -> None:
    browser = chromium.find()
    if browser is None:
        pytest.skip("no Chromium")
    places = ["/", RUN, f"{RUN}/questions?longer=1", *(f"{RUN}/questions/1/{n}" for n in (0, 1, 3, 6, 9, 12))]
    places.append(f"{RUN}/questions?text=%22%3E%3Csvg%20onload%3Dalert(1)%3E")
    for place in places:
        with chromium.opened(browser, address + place, width=390, height=800, mobile=True) as page:
            assert page.evaluate("document.title").endswith(("selfevo", "self-evolution report")), place
            assert page.evaluate("document.querySelectorAll('iframe, img, object, embed').length") == 0, place
            assert page.evaluate("[...document.scripts].every(s => s.type || s.src)"), place
            assert page.complaints == [], place
            assert all(url.startswith((address, "data:")) for url in page.requests), place
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, place
    assert len(HOSTILE) > 10
