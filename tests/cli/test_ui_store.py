"""`selfevo ui STORE`: the runs that left a record, shown from the store alone."""

from __future__ import annotations

import math
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from harness.cli import Project
from harness.fake_run import FakeRun, fake_run
from selfevo.local.store_record import StoreRecord
from selfevo.main import app
from selfevo.manifest import store_of
from selfevo.ui.app import app_of
from selfevo.ui.listed import Listed
from selfevo.ui.runs import Shown
from selfevo.ui.store_runs import StoreRuns
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import RunRecord
from selfevo_contract.status import Rollback, RunStatus
from selfevo_store import known_records, leave_record, open_store, read_record

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = "/runs/default/demo"


def left(fake: FakeRun, now: datetime = NOW) -> FakeRun:
    leave_record(fake.store, RunRecord.of(fake.run, "1.2"), now)
    return fake


def client_of(*stores: Path, workdir: Path) -> TestClient:
    runs = StoreRuns([store_of(str(store)) for store in stores], workdir)
    return TestClient(app_of(runs), base_url="http://127.0.0.1:8321")


@pytest.mark.slow
def test_a_store_shows_its_runs_and_says_what_it_cannot_know(tmp_path: Path) -> None:
    left(fake_run(tmp_path / "a", until="solver-train-2", spec__rollout__questions=20))
    place = tmp_path / "moved"
    (tmp_path / "a" / "store").rename(place)  # it is read where it is now
    client = client_of(place, workdir=tmp_path / "work")
    page = client.get("/").text
    assert f'href="{RUN}"' in page and ">Unknown<" in page and "not where they stand" in page and "<polyline" in page
    assert "not finished" in client.get(RUN).text
    for path in ("/questions", "/questions/1/1", "/evaluation"):
        assert client.get(RUN + path).status_code == 200
    assert not (tmp_path / "work").exists()


def test_what_follows_from_scores_is_planned_by_them(tmp_path: Path) -> None:
    finetune: dict[str, Any] = {"data": {"uri": "s3://data/train.jsonl"}}
    fake = left(fake_run(tmp_path, spec__iterations=1, spec__rollout__questions=20, spec__finetune=finetune))
    shown = StoreRuns([store_of(str(tmp_path / "store"))], tmp_path / "work").one("default", "demo")
    assert shown is not None and shown.phase == "Succeeded"
    assert fake.plan.best is None and shown.plan.best == 1
    assert set(shown.committed) == set(shown.plan.by_name) > {"finetune-1"}


def test_the_same_name_in_two_stores_is_two_runs(tmp_path: Path) -> None:
    places = []
    for name in ("a", "b"):
        left(fake_run(tmp_path / name, until="challenger-train-1"))
        places.append(tmp_path / name / "store")
    client = client_of(*places, workdir=tmp_path / "work")
    assert 'href="/runs/default/demo@2"' in client.get("/").text
    assert client.get(f"{RUN}@2").status_code == 200 and client.get(f"{RUN}@3").status_code == 404


@pytest.mark.slow
def test_gpu_hours_are_those_of_the_steps_that_are_done(tmp_path: Path) -> None:
    cells = {}
    for name, gpus in (("a", 1000), ("b", 0), ("c", None)):
        left(fake_run(tmp_path / name, until="solver-rollout-1", gpus=gpus, spec__rollout__questions=20))
        client = client_of(tmp_path / name / "store", workdir=tmp_path / "work")
        page, of_run = client.get("/").text, client.get(RUN).text
        cells[name] = re.findall(r"<td>(≥ [\d.]+|0\.00)</td>", page)
        assert ("failed attempts are not in them" in page) is ("At least" in of_run) is bool(gpus)
    assert cells["b"] == ["0.00"] and cells["c"] == [] and len(cells["a"]) == 1 and cells["a"][0].startswith("≥ ")


class Trouble:
    """In the place of a store's ``folders``, by which a list of its records begins."""

    def __init__(self, store: Listed, error: Exception | None = None) -> None:
        self.answers, self.error, self.asked, self.goes_on = store.store.folders, error, 0, threading.Event()

    def __call__(self) -> tuple[str, ...]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        assert self.goes_on.wait(60)
        return self.answers()


def two_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[StoreRuns, TestClient]:
    """Of one run each, by the same name; lists of records are asked for at each request."""
    for name in ("a", "b"):
        left(fake_run(tmp_path / name, until="challenger-train-1"))
    runs = StoreRuns([store_of(str(tmp_path / name / "store")) for name in ("a", "b")], tmp_path / "work")
    monkeypatch.setattr("selfevo.ui.listed.LISTED_S", 0.0)
    runs.refresh()
    return runs, TestClient(app_of(runs), base_url="http://127.0.0.1:8321")


@pytest.mark.parametrize("again_s", [0.0, 1000.0])
def test_a_store_that_fails_leaves_the_others_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again_s: float
) -> None:
    runs, client = two_stores(tmp_path, monkeypatch)
    monkeypatch.setattr("selfevo.ui.listed.FAILED_S", again_s)
    trouble = Trouble(runs.stores[0], ServiceError("s3://b/<script>: the store is away; start it"))
    monkeypatch.setattr(runs.stores[0].store, "folders", trouble)
    before = trouble.asked
    for _ in range(3):
        page = client.get("/").text
        assert f'href="{RUN}@2"' in page and f'href="{RUN}"' not in page  # by the name that it has beside the other
        assert (
            f"Store file://{tmp_path}/a/store cannot be read now; its run is not shown meanwhile: s3://b/&lt;script&gt;"
            in page
        )
    assert (trouble.asked - before == 1) is (again_s > 0)
    assert client.get(f"{RUN}@2").status_code == 200
    failed = client.get(RUN)
    assert failed.status_code == 503 and "the store is away; start it" in failed.text
    chooser = client.get("/compare").text
    assert "demo@2" in chooser and "the store is away" in chooser
    if not again_s:
        monkeypatch.setattr(runs.stores[0].store, "folders", trouble.answers)
        page = client.get("/").text
        assert f'href="{RUN}"' in page and "the store is away" not in page


def test_a_store_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, client = two_stores(tmp_path, monkeypatch)
    monkeypatch.setattr("selfevo.ui.listed.PATIENCE_S", 0.01)
    runs.stores[0]._until = math.inf  # what was found is new enough: however slow this machine is, nobody waits for it
    runs.stores[1]._took = 0.0
    trouble = Trouble(runs.stores[1])
    monkeypatch.setattr(runs.stores[1].store, "folders", trouble)
    for _ in range(3):
        page = client.get("/").text
        assert f'href="{RUN}"' in page and f"file://{tmp_path}/b/store does not answer; check the network" in page
    assert trouble.asked == 1
    trouble.goes_on.set()
    monkeypatch.setattr("selfevo.ui.listed.PATIENCE_S", 600.0)
    page = client.get("/").text
    assert "does not answer" not in page and f'href="{RUN}@2"' in page


def test_all_stores_that_fail_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = two_stores(tmp_path, monkeypatch)
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / f"{name}-away")
    page = client.get("/")
    assert page.status_code == 503 and "none of the 2 stores can be read: " in page.text
    assert page.text.count("is no folder any more; put it back") == 2


def test_a_store_that_fails_under_a_run_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, client = two_stores(tmp_path, monkeypatch)
    monkeypatch.setattr("selfevo.ui.listed.LISTED_S", 1000.0)
    assert client.get("/").status_code == 200  # listed, and taken as it is from now on
    shown = StoreRuns._shown

    def away(self: StoreRuns, run: SelfEvolutionRun) -> Shown:
        if run.spec.storage == runs.stores[0].storage:
            raise ServiceError("the store is away")
        return shown(self, run)

    monkeypatch.setattr(StoreRuns, "_shown", away)
    page = client.get("/").text
    assert "Not read:" in page and f'href="{RUN}@2"' in page
    monkeypatch.setattr(runs.stores[0].store, "folders", Trouble(runs.stores[0], ServiceError("and its list too")))
    page = client.get("/").text
    assert "and its list too" in page and "Not read:" not in page


def test_what_cannot_be_read_is_that_runs_sentence(tmp_path: Path) -> None:
    fake = left(fake_run(tmp_path, until="challenger-train-1"))
    newer = RunRecord.of(fake.run, "9.9").model_copy(update={"name": "newer", "schema_version": 99})
    leave_record(fake.store, newer, NOW)
    [key] = known_records(fake.store, "default", "demo").values()
    record = tmp_path / "store" / key
    record.write_bytes(record.read_bytes()[:-1])
    client = client_of(tmp_path / "store", workdir=tmp_path / "work")
    page = client.get("/").text
    assert "is damaged (its digest is not the one in its name)" in page and "has schemaVersion 99" in page
    assert client.get(RUN).status_code == 503
    record.unlink()
    left(fake, NOW + timedelta(seconds=1))  # as the next `selfevo run` does
    assert client_of(tmp_path / "store", workdir=tmp_path / "work").get(RUN).status_code == 200


def test_a_store_without_records_says_how_to_show_its_runs(tmp_path: Path) -> None:
    fake_run(tmp_path, until="challenger-train-1")
    page = client_of(tmp_path / "store", workdir=tmp_path / "work").get("/").text
    assert f"No run has left a record in file://{tmp_path}/store" in page and "--storage URI" in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["file:///there/is/none"], "STORE is 'file:///there/is/none', and there is no such folder; correct it"),
        (["http://x/y"], "STORE is 'http://x/y'; "),
        (["/"], "STORE is '/'; "),
        ([""], "STORE is empty; write it as s3://<bucket>/<prefix>, or as a path"),
        ([".", "run.yaml"], "is a store, whose runs are all shown, and run.yaml names others; leave out one"),
        ([".", "--storage", "s3://a/b"], "whose runs are all shown, and --storage s3://a/b names others; leave out"),
        ([".", "-n", "research"], "name runs of two places; leave out one of them"),
    ],
)
def test_a_wrong_address_is_one_sentence(arguments: list[str], expected: str) -> None:
    with pytest.raises(InputError) as error:
        CliRunner().invoke(app, ["ui", *arguments], catch_exceptions=False)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_stores_own_address_is_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert store_of("s3://models/selfevo").endpoint == "http://127.0.0.1:9000"
    assert store_of("file:///tmp").endpoint is None


@pytest.mark.slow
def test_selfevo_run_leaves_a_record_once(project: Project) -> None:
    for _ in range(2):
        assert project.drive("run.yaml").returncode == 0
    [record] = (project.store / "default" / "runs" / "demo").iterdir()
    client = client_of(project.store, workdir=project.root / "elsewhere")
    assert ">Succeeded<" in client.get("/").text and client.get(RUN).status_code == 200
    record.unlink()
    assert project.drive("run.yaml").returncode == 0  # nothing is left to do, and the record is there again
    assert len(known_records(open_store(project.store.as_uri()))) == 1


def test_a_run_that_goes_back_leaves_another_record_and_no_store_stops_it(tmp_path: Path) -> None:
    fake, lines = fake_run(tmp_path, until="challenger-train-1"), list[str]()
    leave = StoreRecord(fake.store, lines.append)
    leave(fake.run)
    back = RunStatus(rollbacks=[Rollback(iteration=1, guard="labelAccuracy")])
    with mock.patch("selfevo.local.store_record.leave_record", side_effect=ServiceError("the store is away")):
        leave(fake.run)
        assert lines == []  # nothing new was to be written
        leave(fake.run.model_copy(update={"status": back}))
    assert len(lines) == 1 and lines[0].endswith("cannot be written: the store is away")
    StoreRecord(fake.store, lines.append)(fake.run.model_copy(update={"status": back}))
    keys = known_records(fake.store)
    assert read_record(fake.store, keys["default", "demo"]).rollbacks == back.rollbacks and len(lines) == 1
