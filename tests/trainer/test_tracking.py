"""Trackers get what a step does, and none of them can hold it up or end it."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseConfig, phase_config
from selfevo_trainer.process.signals import StopRequest
from selfevo_trainer.tracking import __main__ as tracking_process
from selfevo_trainer.tracking import relay
from selfevo_trainer.tracking.base import Job
from silent_server import SilentServer, silent_server


def config_of(
    folder: Path, name: str = "demo", attempt: str = "", kind: str = "tensorboard", **tracker: str
) -> PhaseConfig:
    """The configuration of a rollout's process, of a run whose store lies in ``folder``."""
    spec = make_run(
        spec__storage={"uri": f"file://{folder / 'store'}"}, spec__tracking=[{"kind": kind, **tracker}]
    ).spec
    step = next(step for step in plan(spec).steps if step.phase == "solver-rollout")
    return phase_config(spec, name, "team", step, attempt)


@pytest.fixture
def config(tmp_path: Path) -> PhaseConfig:
    return config_of(tmp_path)


class Recorded:
    """A tracker that remembers."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails

    def update(self, number: int, figures: Any) -> None:
        if self.fails:
            raise ConnectionError("401 Unauthorized:\nno key")
        self.calls.append(("update", number, figures))

    def table(self, name: str, columns: Any, rows: Any) -> None:
        self.calls.append(("table", name, columns, rows))

    def result(self, iteration: int, figures: Any) -> None:
        self.calls.append(("result", iteration, figures))

    def close(self, *, ended: bool) -> None:
        self.calls.append(("close", ended))


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    made = Recorded()
    module: Any = ModuleType("tensorboard")
    module.open_sink = lambda tracker, job: made
    monkeypatch.setitem(sys.modules, "selfevo_trainer.tracking.tensorboard", module)
    return made


def lines(config: PhaseConfig, *messages: dict[str, Any]) -> Any:
    (job,) = relay.jobs(config)
    return iter([job.model_dump_json(by_alias=True), *map(json.dumps, messages)])


def test_a_tracker_gets_each_update_the_table_and_the_result(config: PhaseConfig, sink: Recorded):
    messages = lines(
        config,
        {"event": "update", "number": 1, "figures": {"reward": 0.5}},
        {"event": "table", "name": "questions", "columns": ["question"], "rows": [["1+1?"]]},
        {"event": "result", "iteration": 2, "figures": {"kept": 3.0}},
    )
    assert tracking_process.main(messages, lambda: None) == 0
    assert sink.calls == [
        ("update", 1, {"reward": 0.5}),
        ("table", "questions", ["question"], [["1+1?"]]),
        ("result", 2, {"kept": 3.0}),
        ("close", True),
    ]


def test_a_step_that_ended_before_its_result_is_not_reported_as_done(config: PhaseConfig, sink: Recorded):
    assert tracking_process.main(lines(config), lambda: None) == 0
    assert sink.calls == [("close", False)]


def test_a_tracker_that_refuses_is_one_sentence(
    config: PhaseConfig, sink: Recorded, capsys: pytest.CaptureFixture[str]
):
    sink.fails = True
    taken: list[None] = []
    messages = lines(config, {"event": "update", "number": 1, "figures": {}})
    assert tracking_process.main(messages, lambda: taken.append(None)) == 1
    assert len(taken) == 2
    assert capsys.readouterr().err == (
        "tracking: tensorboard takes nothing, and the step goes on without it: "
        "ConnectionError: 401 Unauthorized: no key\n"
    )


def test_a_missing_package_is_one_sentence(
    config: PhaseConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(
        tracking_process, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name="wandb"))
    )
    assert tracking_process.main(lines(config), lambda: None) == 1
    assert "needs the package wandb, which is not here; install selfevo[tracking]" in capsys.readouterr().err


def test_every_attempt_at_a_step_goes_on_with_the_same_curves(tmp_path: Path):
    def job(**changes: Any) -> Job:
        (made,) = relay.jobs(config_of(tmp_path, **changes))
        return made

    first, second, other = job(attempt="a-1"), job(attempt="a-2"), job(name="another")
    assert first.step_id == second.step_id != other.step_id
    assert first.iterations_id == second.iterations_id != other.iterations_id
    assert first.step_id != first.iterations_id
    assert first.settings["phase"] == "solver-rollout"


def test_the_end_of_a_phase_waits_a_hundredth_of_it():
    assert relay.seconds_to_wait(1) == 0.01
    assert relay.seconds_to_wait(1200) == 12
    assert relay.seconds_to_wait(10**6) == relay.WAIT_MOST_S


def test_a_tracker_is_behind_when_it_has_not_taken_what_was_given_to_it_a_while_ago() -> None:
    process = object.__new__(relay._Process)
    process._untaken = deque()
    assert not process.behind(100.0)
    process._untaken.extend([98.0, 99.0])  # the end of the phase has just given it two messages
    assert not process.behind(100.0) and not process.behind(98.0 + relay.ENDING_S)
    assert process.behind(98.1 + relay.ENDING_S)
    process._untaken.popleft()
    assert not process.behind(98.1 + relay.ENDING_S)


def test_what_is_no_figure_is_not_sent(monkeypatch: pytest.MonkeyPatch):
    sent: list[str] = []
    watched = relay.Tracking([SimpleNamespace(send=sent.append)])  # type: ignore[list-item]
    watched.update(3, {"loss": 1.5, "step": 2, "done": True, "name": "x", "nothing": None})
    assert [json.loads(line) for line in sent] == [
        {"event": "update", "number": 3, "figures": {"loss": 1.5, "step": 2}}
    ]


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with silent_server() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wandb", "mlflow", "trackio"])
def test_a_server_that_hangs_costs_nothing_but_the_wait_at_the_end(
    tmp_path: Path,
    silent: SilentServer,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(relay, "ENDING_S", 0.3)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", "x")
    config = config_of(tmp_path, kind=kind, endpoint=silent.address)
    spent = []
    with relay.tracking(config, StopRequest(), tmp_path) as trackers:
        for number in range(relay.QUEUED + 5000):
            begun = time.thread_time()
            trackers.update(number, {"reward": 0.5})
            spent.append(time.thread_time() - begun)
        (process,) = trackers._processes
        assert silent.asked.wait(120), "nobody asked the server"
        while not process.behind(time.monotonic()):  # it has taken no message since it asked
            time.sleep(0.05)
        monkeypatch.setattr(relay, "ENDING_S", 0.0)  # for the end, where it is still behind
    # By this thread's own clock: none of the calls waited, however slow the machine.
    assert sum(spent) < 5
    assert process._process.poll() is not None
    assert "has not taken everything in time" in caplog.text or "was too slow" in caplog.text
