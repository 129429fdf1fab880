"""`selfevo.open` and `selfevo.run`: what docs/python.md says, on a run that is committed and with the fake trainer."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pandas
import pytest
import yaml

import selfevo
from harness import selfevo_fake
from harness.cli import Project
from harness.fake_run import FakeRun, fake_run
from selfevo_contract.errors import InputError
from selfevo_contract.run_record import RunRecord
from selfevo_store import leave_record, open_storage

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text()
NOW = datetime(2026, 11, 30, 6, 0, tzinfo=UTC)
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return fake_run(tmp_path_factory.mktemp("fake"), spec__iterations=2)


@pytest.fixture
def manifest(fake: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    dumped = fake.run.model_dump(mode="json", by_alias=True, exclude_none=True, include={"metadata", "spec"})
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump({"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun", **dumped})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.yaml"


@pytest.mark.slow
def test_the_example_of_the_page_runs(manifest: Path, fake: FakeRun) -> None:
    (task,) = fake.run.spec.evaluation.tasks  # type: ignore[union-attr]
    names: dict[str, Any] = {}
    exec(EXAMPLE.replace('"held-out"', repr(task.name)), names)
    assert list(names["curve"].index) == [0, 1, 2] and names["curve"].is_monotonic_increasing
    assert set(names["kept"].index) == {1, 2}
    assert len(names["contested"]) == 10 and names["contested"]["share"].is_monotonic_increasing
    assert {"training", "iteration", "step", "update", "loss"} <= set(names["losses"].columns)


def test_tables_say_of_which_step_each_row_is_and_agree_with_the_metrics(manifest: Path) -> None:
    run = selfevo.open(manifest)
    rollouts = run.steps[run.steps["phase"] == "solver-rollout"].set_index("step")
    assert list(rollouts["kept"].astype(int)) == [
        int((run.curriculum["step"] == name).sum()) for name in rollouts.index
    ]
    assert list(run.questions.columns[:2]) == ["iteration", "step"]
    assert run.curriculum is run.curriculum  # read once
    assert run.oracle.empty and list(run.oracle.columns) == ["iteration", "step"]
    assert run.status.best is not None and run.manifest.spec.iterations == 2


def test_a_run_is_opened_by_the_record_that_it_left_in_its_store(manifest: Path, fake: FakeRun) -> None:
    where, store = fake.run.spec.storage.uri, open_storage(fake.run.spec.storage)
    with pytest.raises(InputError, match="no run has left a record in "):
        selfevo.open(where)
    leave_record(store, RunRecord.of(fake.run, "1"), NOW)
    stored, known = selfevo.open(where), selfevo.open(manifest)
    pandas.testing.assert_frame_equal(stored.steps, known.steps)
    pandas.testing.assert_frame_equal(stored.curriculum, known.curriculum)
    assert stored.status.best == known.status.best and stored.status.phase == "Succeeded"
    namespace, name = fake.run.metadata.namespace, fake.run.metadata.name
    other = fake.run.model_copy(update={"metadata": fake.run.metadata.model_copy(update={"namespace": "other"})})
    leave_record(store, RunRecord.of(other, "1"), NOW)
    assert selfevo.open(where, name=f"{namespace}/{name}").manifest.metadata.namespace == namespace
    with pytest.raises(InputError, match=f"has 2 runs called {name}: .*; say which one by name="):
        selfevo.open(where, name=name)
    with pytest.raises(InputError, match=f"no run called 'nobody' has left a record in .*; there are .*/{name}"):
        selfevo.open(where, name="nobody")
    with pytest.raises(InputError, match="is a store, and storage="):
        selfevo.open(where, storage="elsewhere")


def test_a_task_that_is_not_there_and_no_pandas_are_sentences(manifest: Path) -> None:
    with pytest.raises(InputError, match=r"there is no task 'other' in spec\.evaluation; the run has "):
        selfevo.open(manifest).scores("other")
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
        return real(name, *more)

    with mock.patch.object(builtins, "__import__", without), pytest.raises(InputError, match="pip install pandas"):
        _ = selfevo.open(manifest).steps


def test_a_run_is_driven_and_its_end_is_reported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.root)
    project.order("solver-train-1", exit=2, times=1)
    with (
        mock.patch("selfevo.local.processes.TRAINER", selfevo_fake.TRAINER),
        mock.patch("selfevo.local.warm.wanted", lambda _: False),
        mock.patch("selfevo.verbs.run.BACKOFF", selfevo_fake.BACKOFF),
    ):
        with pytest.raises(selfevo.RunFailed, match="exit code 2") as raised:
            selfevo.run("run.yaml", quiet=True)
        assert raised.value.code == 2
        run = selfevo.run("run.yaml", quiet=True)
    assert list(run.steps["step"]) == ["challenger-train-1", "solver-rollout-1", "solver-train-1"]
    assert run.status.phase == "Succeeded"
    again = selfevo.run("run.yaml", quiet=True)
    (project.root / "run.yaml").unlink()
    assert again.manifest == run.manifest and len(again.steps) == 3, "the tables are those of what was run"


@pytest.mark.slow
def test_the_package_alone_imports_nothing_of_it() -> None:
    script = (
        "import sys, selfevo; assert 'selfevo.api' not in sys.modules and 'pydantic' not in sys.modules; selfevo.open"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    with pytest.raises(AttributeError, match="has no attribute 'close'"):
        _ = selfevo.close  # type: ignore[attr-defined]
