"""`selfevo artifacts rows`, and the queries of docs/data.md on what it brings: by DuckDB, pandas, polars, datasets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from typer.testing import CliRunner

from harness.fake_run import FakeRun, fake_run
from selfevo.main import app
from selfevo_contract.artifacts import MANIFEST_NAME, ManifestDraft
from selfevo_contract.rows import CURRICULUM, QUESTIONS, TEXTS, CheckedQuestion, answers_of, write_rows
from selfevo_store import commit, fetch_rows, read_manifest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
FLIPPED, CONTESTED, LONGEST = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return fake_run(tmp_path_factory.mktemp("fake"), spec__iterations=2)


@pytest.fixture(scope="module")
def folder(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the rows are in the folder ``rows``."""
    folder = tmp_path_factory.mktemp("queried")
    assert copied(fake, folder) == "rows holds 16 tables of 9 steps"
    return folder


def copied(fake: FakeRun, folder: Path) -> str:
    """What the command says that copies the run's rows to ``folder``/rows."""
    document = {
        "apiVersion": "selfevo.dev/v1alpha1",
        "kind": "SelfEvolutionRun",
        **fake.run.model_dump(mode="json", by_alias=True, exclude_none=True, include={"metadata", "spec"}),
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(document))
    here = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(app, ["artifacts", "rows", "run.yaml", "--to", "rows"], catch_exceptions=False)
    finally:
        os.chdir(here)
    return done.output.strip()


def asked(query: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(folder)
    found = duckdb.sql(query)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def stored(fake: FakeRun, step: str, file: Any) -> list[Any]:
    manifest = read_manifest(fake.store, fake.prefix(step))
    assert manifest is not None
    return fetch_rows(fake.store, fake.prefix(step), manifest, file)


def test_right_before_and_wrong_now(fake: FakeRun, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [task] = fake.plan.by_name["evaluate-0"].inputs.tasks  # type: ignore[union-attr]
    old, new = ({row.question: row for row in stored(fake, f"evaluate-{i}", answers_of(task.name))} for i in (0, 2))
    wanted = {question for question in old if old[question].majority_right and not new[question].majority_right}
    rows = asked(FLIPPED, folder, monkeypatch)
    assert {row["question"] for row in rows} == wanted and wanted
    lost = [row["right_before"] - row["right_now"] for row in rows]
    assert lost == sorted(lost, reverse=True)


def test_the_most_contested(fake: FakeRun, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = asked(CONTESTED, folder, monkeypatch)
    every = [row for i in (1, 2) for row in stored(fake, f"solver-rollout-{i}", QUESTIONS)]
    sizes = [sorted((n for _, n in row.votes), reverse=True) for row in every if isinstance(row, CheckedQuestion)]
    margins = sorted(each[0] - each[1] for each in sizes if len(each) > 1)
    assert [row["sizes"][0] - row["sizes"][1] for row in rows] == margins[:20]
    assert {row["step"] for row in rows} <= {"solver-rollout-1", "solver-rollout-2"} and rows


def test_the_longest_answers(fake: FakeRun, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = asked(LONGEST, folder, monkeypatch)
    every = sorted((row.tokens for i in (1, 2) for row in stored(fake, f"solver-rollout-{i}", TEXTS)), reverse=True)
    assert [row["tokens"] for row in rows] == every[:20]


@pytest.mark.slow
def test_pandas_polars_and_datasets_read_the_same(folder: Path, fake: FakeRun) -> None:
    import datasets
    import pandas
    import polars

    for file in (QUESTIONS, CURRICULUM, TEXTS):
        rows = stored(fake, "solver-rollout-1", file)
        path = folder / "rows" / "solver-rollout-1" / file.name
        texts = [row.question for row in rows]
        assert pandas.read_parquet(path)["question"].replace({float("nan"): None}).tolist() == texts
        frame = polars.read_parquet(path)
        assert frame["question"].to_list() == texts
        loaded = datasets.load_dataset(
            "parquet", data_files=str(path), split="train", cache_dir=str(folder / "cache" / file.name)
        )
        assert loaded["question"][:] == texts
        if file is QUESTIONS:
            votes = [[(vote["answer"], vote["count"]) for vote in row or []] for row in frame["votes"].to_list()]
            assert votes == [list(getattr(row, "votes", ())) for row in rows]
            assert [row and row["answers"] for row in loaded["answers"][:]] == [None] * len(rows)


def test_steps_of_an_older_version_are_turned_into_parquet(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__iterations=1)
    place, key = fake.prefix("solver-rollout-1"), fake.plan.by_name["solver-rollout-1"].key
    before = {file.name: stored(fake, "solver-rollout-1", file) for file in (QUESTIONS, CURRICULUM)}
    fake.store.delete_prefix(place)
    files = {
        file.lines.name: write_rows(tmp_path / file.lines.name, before[file.name]) for file in (QUESTIONS, CURRICULUM)
    }
    assert set(files) == {"questions.jsonl", "curriculum.jsonl"}
    commit(fake.store, place, files, ManifestDraft(key=key, phase="solver-rollout", iteration=1))
    assert fake.store.exists(f"{place}/{MANIFEST_NAME}")
    assert copied(fake, tmp_path) == "rows holds 8 tables of 5 steps"
    names = sorted(path.name for path in (tmp_path / "rows" / "solver-rollout-1").iterdir())
    assert names == ["curriculum.parquet", "questions.parquet"]
    found = duckdb.sql(f"SELECT question, share FROM '{tmp_path}/rows/solver-rollout-1/curriculum.parquet'").fetchall()
    assert found == [(row.question, row.share) for row in before[CURRICULUM.name]]


def test_a_folder_that_is_there_stays_as_it_is(fake: FakeRun, folder: Path) -> None:
    (tables := folder / "rows").stat()
    before = sorted(tables.rglob("*"))
    done = CliRunner().invoke(app, ["artifacts", "rows", str(folder / "run.yaml"), "--to", str(tables)])
    assert "is there already; name a new or empty folder" in str(done.exception)
    assert sorted(tables.rglob("*")) == before
