"""A trainer leaves a record of its run in the store, and fails by nothing about it."""

from __future__ import annotations

import base64
import logging
import zlib
from pathlib import Path

import pytest

from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_contract.process import RUN_ENV, phase_config
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.run_record import encoded_run
from selfevo_store import ObjectStore, known_records, open_store, read_record
from selfevo_trainer.process import run_record


def left(run: SelfEvolutionRun, encoded: str | None, folder: Path) -> ObjectStore:
    store = open_store((folder / "store").as_uri())
    step = plan(run.spec).by_name["solver-train-1"]
    config = phase_config(run.spec, run.metadata.name, run.metadata.namespace, step)
    run_record.leave({} if encoded is None else {RUN_ENV: encoded}, config, store)
    return store


def test_a_phase_leaves_its_run(tmp_path: Path) -> None:
    run = make_run(metadata__uid="77")
    for _ in range(2):
        store = left(run, encoded_run(run), tmp_path)
    [key] = known_records(store).values()
    record = read_record(store, key)
    assert len(store.list("")) == 1 and record.uid == "77" and record.spec == run.spec


def test_without_a_run_or_with_one_that_it_is_not_of_it_leaves_none(tmp_path: Path) -> None:
    for encoded in (None, "", encoded_run(make_run(spec__seed=5))):
        assert left(make_run(), encoded, tmp_path).list("") == []


@pytest.mark.parametrize(
    "encoded", ["{", "e30=", base64.b64encode(zlib.compress(b'{"spec": {"teacher": {}}}')).decode()]
)
def test_what_cannot_be_read_is_a_line_of_the_log(
    encoded: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "selfevo"):
        assert left(make_run(), encoded, tmp_path).list("") == []
    assert len(caplog.records) == 1 and "leaves no record in the store" in caplog.text


def test_a_store_that_fails_is_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").write_text("a file")
    left(make_run(), encoded_run(make_run()), tmp_path)
    assert len(caplog.records) == 1 and "storage.uri" in caplog.text
