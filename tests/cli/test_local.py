"""Processes as children, with the shell in the trainer's place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from harness.cli import wait_for
from harness.processes import alive
from harness.runs import make_run
from selfevo.local.process import Event, Exited, Reported
from selfevo.local.processes import Processes
from selfevo.local.workdir import RunFolder
from selfevo_contract.plan import plan
from selfevo_core.reconcile import ObservedAttempt, Start, Stop, attempt_name

PROGRESS = '{"event":"progress","phase":"evaluate","step":"evaluate-0","doing":"training","done":2,"total":3}'


class Local:
    """One child of ``step`` that runs a shell script."""

    def __init__(self, tmp_path: Path, script: str, step: str = "evaluate-0", workers: int = 4, **changes: object):
        run = make_run(**changes)
        self.folder = RunFolder(tmp_path, run.metadata)
        self.folder.make()
        self.events: SimpleQueue[Event] = SimpleQueue()
        command = ("sh", "-c", script)
        self.processes = Processes(run, self.folder, self.events, workers=workers, command=command)
        of = plan(run.spec).by_name[step]
        self.name = attempt_name("demo", of, 1)
        self.processes.apply([Start(of, 1, self.name)])
        self.seen: list[Event] = []

    def take(self) -> Event:
        event = self.events.get(timeout=120)
        self.seen.append(event)
        self.processes.take(event)
        return event

    def end(self) -> ObservedAttempt:
        while self.processes.live:
            self.take()
        return self.child

    @property
    def child(self) -> ObservedAttempt:
        (child,) = self.processes.observe()
        return child


@pytest.fixture
def leftovers() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        if alive(pid):
            os.kill(pid, 9)


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("exit 0", 0, ""),
        ("echo first >&2; echo the last word >&2; exit 3", 3, "the last word"),
        ("kill -9 $$", 137, "killed, perhaps because memory ran out"),
        ("kill -11 $$", 139, "killed by SIGSEGV"),
        ("kill $$", 143, ""),
        (f"echo '{PROGRESS}'; exit 1", 1, ""),
        ("printf '\\033[2Jboo\\n' >&2; exit 1", 1, "\\x1b[2Jboo"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_ends_are_seen_as_a_shell_would(tmp_path: Path, script: str, code: int, message: str) -> None:
    child = Local(tmp_path, script).end()
    assert (child.state, child.exit_code) == ("Failed" if code else "Succeeded", code)
    assert child.message == message
    assert child.log == str(tmp_path / "runs/default/demo/logs" / f"{child.name}.log")


def test_a_process_gets_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEVO_PHASE_CONFIG", "of some other process")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    local = Local(
        tmp_path,
        "env >&2; test -d $SELFEVO_WORKDIR",
        spec__pods={"env": [{"name": "HF_HOME", "value": "/models"}]},
        spec__evaluation__pods={"env": [{"name": "MORE", "value": "1"}]},
    )
    assert local.end().state == "Succeeded"
    environment = dict(
        line.split("=", 1) for line in Path(str(local.child.log)).read_text().splitlines() if "=" in line
    )
    root = tmp_path / "runs/default/demo"
    assert environment["SELFEVO_PHASE_CONFIG_FILE"] == str(root / "children" / local.name / "config.json")
    assert environment["SELFEVO_CACHE_DIR"] == str(tmp_path / "cache")
    assert environment["SELFEVO_PARENT_PID"] == str(os.getpid())
    assert (environment["HF_HOME"], environment["MORE"]) == ("/models", "1")
    assert "SELFEVO_PHASE_CONFIG" not in environment and environment["JOB_COMPLETION_INDEX"] == "0"
    # What every phase will ask of the model, so that the first process finds what a later one would fail at.
    asked = json.loads(Path(environment["SELFEVO_PREFLIGHT_FILE"]).read_text())
    assert [inputs["phase"] for inputs in asked] == ["evaluate", "challenger-train", "solver-rollout", "solver-train"]
    assert not (root / "scratch" / local.name).exists()  # cleared away when the child has ended


def test_what_is_not_in_shards_has_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "7")
    assert Local(tmp_path, "test -z $JOB_COMPLETION_INDEX", "solver-train-1").end().state == "Succeeded"


def test_progress_is_passed_on_and_other_output_only_logged(tmp_path: Path) -> None:
    local = Local(tmp_path, f"echo noise; echo '{PROGRESS}'; echo '{{\"event\": 1}}'; sleep 60")
    event = local.take()
    assert isinstance(event, Reported) and event.progress.done == 2
    assert {step: [p.done for p in reports] for step, reports in local.processes.reports().items()} == {
        "evaluate-0": [2]
    }
    local.processes.apply([Stop(local.name, "Suspended")])
    assert local.end().exit_code == 143
    assert "noise" in Path(str(local.child.log)).read_text()


def test_progress_is_that_of_all_shards_and_what_has_ended_generates_no_more(tmp_path: Path) -> None:
    says = (
        '{"event":"progress","phase":"solver-rollout","step":"solver-rollout-1","doing":"answering","done":%d,'
        '"total":8,"tokens_per_second":%s,"seconds_left":9,"shard":%d}'
    )
    first, second = says % (8, "100", 0), says % (2, "40.5", 1)
    script = f"if test $JOB_COMPLETION_INDEX = 0; then echo '{first}'; else echo '{second}'; sleep 60; fi"
    local = Local(tmp_path, script, "solver-rollout-1", workers=2, spec__rollout__shards=3)
    assert local.child.progress is None
    while {type(event) for event in local.seen} != {Reported, Exited} or len(local.seen) < 3:
        local.take()
    progress = local.child.progress
    assert progress is not None and (progress.done, progress.total) == (10, 24)  # of one nothing was heard yet
    assert (progress.tokens_per_second, progress.ends_at) == (40.5, None)
    local.processes.kill()
    assert local.end().progress is None


def test_what_a_process_leaves_running_is_cleared_away(tmp_path: Path, leftovers: list[int]) -> None:
    # The helper keeps its parent's output open and ignores SIGTERM.
    local = Local(tmp_path, "(trap '' TERM; while true; do sleep 1; done) & echo $! > $SELFEVO_CACHE_DIR/pid; exit 3")
    assert local.end().exit_code == 3
    pid = int((tmp_path / "cache" / "pid").read_text())
    leftovers.append(pid)
    wait_for(lambda: not alive(pid))


def test_a_command_that_does_not_exist_is_a_failure_like_others(tmp_path: Path) -> None:
    local = Local(tmp_path, "true")
    local.end()
    local.processes._command = ("/no/such/trainer",)
    step = plan(make_run().spec).by_name["challenger-train-1"]
    local.processes.apply([Start(step, 1, "another")])
    assert isinstance(local.take(), Exited)
    child = local.processes.observe()[-1]
    assert (child.state, child.exit_code) == ("Failed", None)
    assert "could not be started" in child.message and "/no/such/trainer" in child.message


def test_starting_twice_and_stopping_what_has_ended_do_nothing(tmp_path: Path) -> None:
    local = Local(tmp_path, "exit 0")
    local.processes.apply([Start(plan(make_run().spec).by_name["evaluate-0"], 1, local.name)])
    local.end()
    assert not local.processes.apply([Stop(local.name, "x"), Stop("unknown", "x")])
    assert [type(event) for event in local.seen] == [Exited]


# --- shards -----------------------------------------------------------------------------------------------------------


def shards(tmp_path: Path, script: str, workers: int = 4, shards: int = 3) -> Local:
    return Local(tmp_path, script, "solver-rollout-1", workers, spec__rollout__shards=shards)


def test_a_child_with_shards_succeeds_when_all_do(tmp_path: Path) -> None:
    key = plan(make_run(spec__rollout__shards=3).spec).by_name["solver-rollout-1"].key
    result = f'{{"phase":"solver-rollout","key":"{key}","outcome":"\'$o\'"}}'
    script = (
        "case $JOB_COMPLETION_INDEX in 1) o=committed;; 0) o=found;; *) o=shard;; esac; "
        f"echo '{result}' > $SELFEVO_TERMINATION_LOG"
    )
    child = shards(tmp_path, script).end()
    assert child.state == "Succeeded"
    assert child.result is not None and child.result.outcome == "committed"


def test_a_failed_shard_lets_the_others_finish(tmp_path: Path) -> None:
    script = (
        "if [ $JOB_COMPLETION_INDEX = 0 ]; then exit 3; fi; sleep 0.2; touch $SELFEVO_CACHE_DIR/$JOB_COMPLETION_INDEX"
    )
    child = shards(tmp_path, script, workers=2).end()
    assert (child.state, child.exit_code) == ("Failed", 3)
    assert child.log is not None and child.log.endswith(".0.log")
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("code", [2, 4])
def test_a_shard_that_cannot_be_helped_ends_the_others(tmp_path: Path, code: int) -> None:
    local = shards(tmp_path, f"if [ $JOB_COMPLETION_INDEX = 1 ]; then exit {code}; fi; exec sleep 60", workers=2)
    child = local.end()
    assert (child.state, child.exit_code) == ("Failed", code)
    assert sum(isinstance(event, Exited) for event in local.seen) == 2  # the third was never begun


def test_a_stopped_child_begins_no_further_shard(tmp_path: Path) -> None:
    local = shards(tmp_path, "trap 'exit 0' TERM; echo up > $SELFEVO_CACHE_DIR/up; sleep 60 & wait", workers=1)
    wait_for((tmp_path / "cache" / "up").exists)
    local.processes.apply([Stop(local.name, "Suspended")])
    child = local.end()
    # What was begun ended well; the rest is still to do.
    assert (child.state, child.exit_code) == ("Failed", 143)
