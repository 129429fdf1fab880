"""The documentation site builds strictly from what is on this machine, and asks nobody else for anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from harness import chromium

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet: a warning that is not shown is not counted, and --strict lets it pass.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    return subprocess.run(["nice", *command], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (make setup)")
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_navigation(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    made = {path.relative_to(site) for path in site.rglob("*.html")} - {Path("404.html")}
    assert {str(page.with_suffix("")).replace("README", "index") for page in pages} == {
        str(page.with_suffix("")) for page in made
    }


def test_a_broken_link_or_anchor_fails_the_build(site: Path, tmp_path: Path) -> None:
    for name in ("docs", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("charts", "examples", "deploy", "benchmarks"):  # what pages link to beside each other
        (tmp_path / name).symlink_to(ROOT / name)
    for broken in ("[x](nowhere.md)", "[x](states.md#no-such-heading)"):
        (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text())
        page = tmp_path / "docs" / "quickstart.md"
        page.write_text(f"# Quick start\n\n{broken}\n")
        built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
        assert built.returncode != 0 and "quickstart.md" in built.stderr, broken


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_browser_finds_pages_by_words_and_asks_this_site_only(address: str, tmp_path: Path) -> None:
    browser = chromium.find()
    if browser is None:
        pytest.skip("there is no Chromium")
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>empty</title>")
    with chromium.opened(browser, empty) as page:
        page.call("Page.navigate", url=f"{address}/index.html?q=EmptyCurriculum")
        deadline = time.monotonic() + chromium.LIMIT_S
        found = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
        while not (links := page.evaluate(found)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert any("failures.html" in link for link in links), links
        assert page.complaints == []
        asked = [url for url in page.requests if not url.startswith(("data:", "file:", "blob:"))]
        assert len(asked) > 5 and [url for url in asked if not url.startswith(address)] == []
