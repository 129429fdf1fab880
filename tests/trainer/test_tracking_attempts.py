"""A second attempt at a step goes on with the curves of the first, as each tracker reads them back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.ports import free_port
from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseConfig, phase_config
from selfevo_trainer.process.signals import StopRequest
from selfevo_trainer.tracking import relay

pytestmark = pytest.mark.slow
ATTEMPTS = {"a-1": range(1, 5), "a-2": range(4, 7)}
"""The second begins at a checkpoint after the third update, and repeats the fourth."""


@pytest.fixture
def attempted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PhaseConfig]:
    """Both attempts at a rollout; the first ends before its result. Returns the configuration of the second."""

    def call(**tracker: str) -> PhaseConfig:
        monkeypatch.setattr(relay, "ENDING_S", 600.0)
        monkeypatch.setattr(relay, "seconds_to_wait", lambda spent: 600.0)
        run = make_run(spec__storage={"uri": f"file://{tmp_path / 'store'}"}, spec__tracking=[tracker])
        step = next(step for step in plan(run.spec).steps if step.phase == "solver-rollout")
        for attempt, updates in ATTEMPTS.items():
            config = phase_config(run.spec, "demo", "team", step, attempt)
            folder = tmp_path / attempt
            folder.mkdir()
            with relay.tracking(config, StopRequest(), folder) as trackers:
                for number in updates:
                    trackers.update(number, {"reward": number / 10})
                if attempt == "a-2":
                    trackers.table("questions", ["question"], [["<b>1+1</b>?\nnow"]])
                    trackers.result(2, {"kept": 3.0})
        return config

    return call


def test_tensorboard(tmp_path: Path, attempted: Callable[..., PhaseConfig]):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = attempted(kind="tensorboard")
    written = tmp_path / "store" / "tensorboard" / config.namespace / config.run
    curves = EventAccumulator(os.fspath(written / config.step)).Reload()
    assert [event.step for event in curves.Scalars("reward")] == [1, 2, 3, 4, 5, 6]
    assert [round(event.value, 3) for event in curves.Scalars("reward")] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    by_iteration = EventAccumulator(os.fspath(written / "iterations")).Reload()
    assert {event.step for event in by_iteration.Scalars("solver-rollout/kept")} == {2}
    text = curves.Tensors("questions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "    question\n    <b>1+1</b>? now"


def test_a_tracker_whose_phase_is_gone_sends_what_it_has(tmp_path: Path) -> None:
    run = make_run(spec__storage={"uri": f"file://{tmp_path / 'store'}"}, spec__tracking=[{"kind": "tensorboard"}])
    config = phase_config(run.spec, "demo", "team", plan(run.spec).steps[0], "a-1")
    (job,) = relay.jobs(config)
    updates = [json.dumps({"event": "update", "number": n, "figures": {"reward": 0.5}}) for n in (1, 2, 3)]
    ended, answers = os.pipe()
    os.close(ended)  # as of a phase that was killed: nobody reads what was taken
    command = [sys.executable, "-m", "selfevo_trainer.tracking"]
    lines = "\n".join([job.model_dump_json(by_alias=True), *updates, ""])
    done = subprocess.run(command, input=lines.encode(), stdout=answers, cwd=tmp_path, timeout=600)
    os.close(answers)
    assert done.returncode == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = tmp_path / "store" / "tensorboard" / "team" / "demo" / config.step
    assert [event.step for event in EventAccumulator(os.fspath(written)).Reload().Scalars("reward")] == [1, 2, 3]


def test_wandb(tmp_path: Path, attempted: Callable[..., PhaseConfig], monkeypatch: pytest.MonkeyPatch):
    """What each attempt hands over for its server to join: W&B's own server is not to be had here."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = attempted(kind="wandb")
    (job,) = relay.jobs(config)
    of_step = [list(wandb_records(tmp_path / attempt, job.step_id)) for attempt in ATTEMPTS]
    for records, updates in zip(of_step, ATTEMPTS.values(), strict=True):
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.run_group, run.job_type) == (job.step_id, "team/demo", "solver-rollout")
        points = [point for point in history(records) if "reward" in point]
        assert [point["update"] for point in points] == list(updates)
        assert [point["reward"] for point in points] == [number / 10 for number in updates]
    by_iteration = history(wandb_records(tmp_path / "a-2", job.iterations_id))
    assert [(point["iteration"], point["solver-rollout/kept"]) for point in by_iteration] == [(2, 3.0)]


def wandb_records(folder: Path, run: str) -> Iterator[Any]:
    """The records of W&B's file of ``run``: LevelDB's log format behind seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob(f"wandb/*-{run}/run-{run}.wandb")
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits there
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def history(records: Any) -> list[dict[str, Any]]:
    """The points that were logged."""
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


@pytest.fixture
def trackio_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Trackio's own server on this machine, which keeps its data in ``tmp_path``."""
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", "token")
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    script = "import trackio; trackio.show(host='127.0.0.1', server_port={}, share=False, open_browser=False)"
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", script.format(port)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert any(str(port) in line for line in process.stdout), "it has not started"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_trackio(tmp_path: Path, trackio_server: str, attempted: Callable[..., PhaseConfig]):
    config = attempted(kind="trackio", endpoint=trackio_server)
    (database,) = (tmp_path / "trackio").glob("selfevo*.db")
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    logged = [(run, name, step, json.loads(metrics)) for run, name, step, metrics in rows]
    mine = [row for row in logged if row[1] == f"demo {config.step}"]
    assert len({row[0] for row in mine}) == 1, "each attempt had a run of its own"
    points = [(step, figures["reward"]) for _, _, step, figures in mine if "reward" in figures]
    assert points == [(number, number / 10) for updates in ATTEMPTS.values() for number in updates]
    by_iteration = [(step, figures) for _, name, step, figures in logged if name == "demo iterations"]
    assert by_iteration == [(2, {"solver-rollout/kept": 3.0})]
