"""`selfevo watch` in a terminal: the picture as a function of what is seen, where that comes from, and real keys."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness.apiserver_standin import ApiServer
from harness.cli import COMMAND, Project, wait_for
from harness.fake_run import fake_run
from harness.records import JOB, RUNNING, attempt, step
from harness.runs import document, make_run
from selfevo.cluster.errors import brief
from selfevo.local.going_on import command_for, command_of
from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.options import DEFAULT_WORKDIR
from selfevo.target import Access, ClusterRun
from selfevo.watching import questions
from selfevo.watching.blocks import clean
from selfevo.watching.cluster import ClusterSource
from selfevo.watching.left import run_left, step_left
from selfevo.watching.local import LocalSource
from selfevo.watching.picture import picture
from selfevo.watching.scene import Asked, Questions, Scene
from selfevo.watching.screen import Desk
from selfevo.watching.source import Source
from selfevo.watching.sparkline import sparkline
from selfevo.watching.trail import Trail, trail_of
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.process import Progress
from selfevo_contract.status import RunStatus

NOW = datetime(2026, 1, 1, 12, 2, tzinfo=UTC)
RUN = make_run()
PLAN = plan(RUN.spec)


def report(done: int, total: int = 4, name: str = "solver-train-1", **fields: Any) -> str:
    phase = name.rsplit("-", 1)[0]
    line = Progress(phase=phase, step=name, doing="training", done=done, total=total, **fields)
    return line.model_dump_json(by_alias=True, exclude_none=True)


LOG = [
    "loading file:///models/base",
    report(1, metrics={"reward": 0.2, "kl": 0.0}),
    report(2, metrics={"reward": 0.6, "kl": 0.01}, tokens_per_second=812.4),
    "a \x1b[2Jcompletion \u202eof\u2066 a model \U0001f600",
]
STATUS = {
    "phase": "Running",
    "iteration": 1,
    "iterations": [
        {"iteration": 0, "score": 0.478, "metrics": {"evaluation/greedy": 0.53}},
        {"iteration": 1, "score": 0.597, "metrics": {"rollout/label_accuracy": 0.91}},
    ],
    "steps": [
        step("evaluate-0", metrics={"mean": 0.478}),
        step("challenger-train-1"),
        step("solver-rollout-1", metrics={"questions": 16, "kept": 8}),
        step("solver-train-1", "Running", startedAt="2026-01-01T12:01:00.000Z"),
    ],
    "attempts": [attempt(name="solver-train-1", startedAt="2026-01-01T12:01:00.000Z")],
    "guards": [
        {"name": "truncation", "state": "Passing"},
        {"name": "labelAccuracy", "state": "Warned", "message": "91.0 % of labels are right, below 95 %"},
        {"name": "kl", "state": "Waiting"},
    ],
}
SCENE = Scene(
    "default/demo",
    RunStatus.model_validate(STATUS),
    PLAN,
    RUN.spec,
    "driven by process 7",
    trail_of(LOG, "solver-train-1", 1),
    Questions(
        "questions of solver-rollout-1: 8 of 15 questions passed, 1 invalid",
        [
            Asked("Was ist 数学 ÷ 数学数学数学数学数学数学数学数学数学数学数学数学数学数学数学数学数学?", 0.75, [3, 1]),
            Asked("What\nis \x1b]0;owned\x07 1 + 1?", 1.0, [4], "out_of_band"),
            Asked("a lone \ud800 surrogate", 0.25, [1, 1, 1, 1, 1]),
        ],
    ),
)


def lines(scene: Scene, columns: int, rows: int) -> list[str]:
    made = picture(scene, columns, rows, NOW)
    assert len(made) == max(rows, 6)
    assert max(line.cell_len for line in made) <= max(columns, 20)
    return [line.plain.rstrip() for line in made]


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), [(60, 40), (80, 40), (120, 40)])
def test_all_that_is_seen_is_on_the_screen(columns: int, rows: int) -> None:
    shown = lines(SCENE, columns, rows)
    text = "\n".join(shown)
    assert shown[0].startswith("default/demo  Running  iteration 1 of 2")
    assert "3 of 9 steps done  812 tokens/s" in shown[1]
    for expected in (
        r"✓ solver-rollout-1 +1 min 05 s +8 of 16 questions kept",
        r"● solver-train-1 +1 min 00 s +━+─+ 2/4 training",
        r"· solver-train-2",
        r"score +▁█ +47.8 % -> 59.7 %",
        r"labels right +█|labels right +▄ +91.0 %",
        r"── solver-train-1, by report ──",
        r"reward +▁█ +0.2 -> 0.6",
        r"● truncation passing  ▲ labelAccuracy warned(  |\n)○ kl waiting",
        r"guard labelAccuracy warns: 91.0 % of labels",
        r"questions of solver-rollout-1: 8 of 15",
        r"75.0 % 3:1 +Was ist 数学",
        r"100.0 % 4 +out_of_band  What i",
        r"25.0 % 1:1:1:1… +a lone \? surr",
        r"── log of solver-train-1, attempt 1 ──",
        r"loading file:///models/base",
        r"a \\x1b\[2Jcompletion of a model \U0001f600",
    ):
        assert re.search(expected, text), expected
    assert shown[-1] == "s suspend  r resume  a approve  l log  n questions  q quit"
    assert ("│" in text) is (columns == 120)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066\ud800]", text)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 20, 40, 60, 80, 109, 110, 300])
@pytest.mark.parametrize("rows", [1, 6, 9, 12, 16, 24, 50])
def test_the_picture_fits_whatever_the_terminal(columns: int, rows: int) -> None:
    for scene in (SCENE, Scene("default/demo"), replace(SCENE, note="word " * 50), replace(SCENE, trail=Trail())):
        for focus in ("", "log", "questions"):
            assert lines(replace(scene, focus=focus), columns, rows)[-1].startswith("s suspend")


def test_what_runs_is_seen_in_little_room_and_the_rest_is_counted() -> None:
    text = "\n".join(lines(SCENE, 60, 16))
    assert re.search(r"── steps \(2 before and 4 after not shown\)", text)
    assert re.search(r"✓ solver-rollout-1.*\n● solver-train-1.*\n· evaluate-1\n", text)


def test_one_thing_can_have_the_whole_screen() -> None:
    log = lines(replace(SCENE, focus="log", trail=trail_of(map(str, range(99)), "evaluate-1", 2)), 60, 20)
    assert log[2].startswith("── log of evaluate-1, attempt 2 ─") and log[3:19] == [str(n) for n in range(83, 99)]
    asked = lines(replace(SCENE, focus="questions"), 60, 20)
    assert asked[2].startswith("── questions of") and asked[6:19] == [""] * 13


def test_what_holds_a_run_and_which_key_helps_stands_below_its_name() -> None:
    run = make_run(spec__review={"every": True})
    why = "iteration 1 waits for a person (spec.review)"
    held = {"type": "Suspended", "status": "True", "reason": "AwaitingReview", "message": why}
    status = {"phase": "Suspended", "conditions": [{**held, "lastTransitionTime": "2026-01-01T12:00:00Z"}]}
    scene = replace(SCENE, status=RunStatus.model_validate(status), spec=run.spec)
    assert lines(scene, 80, 24)[2] == f"AwaitingReview: {why} (key a)"


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([], 5, ""),
        ([3.0], 5, "▄"),
        ([2, 2, 2], 5, "▄▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([1, None, float("nan"), 2], 9, "▁  █"),
        ([None, None], 9, "  "),
        ([-1.7e308, 1.7e308, 0.0], 9, "▁█▅"),
        ([1.0, 2.0], 0, ""),
        ([float("inf"), 1.0], 9, " ▄"),
    ],
)
def test_a_curve_in_a_line(values: list[float | None], width: int, bars: str) -> None:
    assert sparkline(values, width) == bars


def test_text_of_a_model_is_one_line_of_characters_that_stand_for_themselves() -> None:
    assert clean("a\tb\n c\x1b[0m\x9b1A\u200b\u202e\ud800") == "a b c\\x1b[0m\\x9b1A?"


# --- what the log tells -----------------------------------------------------------------------------------------------


def test_of_a_log_nothing_counts_but_reports_of_this_very_step() -> None:
    foreign = report(3, name="solver-train-2")
    trail = trail_of(
        [*LOG, foreign, '{"event":"progress"', report(3, shard=1), report(4, shard=1)], "solver-train-1", 1
    )
    assert [(r.shard, r.done) for r in trail.reports] == [(None, 2), (1, 4)]
    assert trail.curves == {"reward": [0.2, 0.6], "kl": [0.0, 0.01], "tokens/s": [812.4]}
    assert list(trail.words) == [LOG[0], LOG[3], foreign, '{"event":"progress"']


def test_how_long_a_step_still_takes_is_its_own_word_or_its_pace() -> None:
    running = SCENE.status.steps[-1]

    def left(*lines: str, **fields: Any) -> float | None:
        reports = [Progress.model_validate_json(one) for one in lines]
        return step_left(running.model_copy(update=fields), SCENE.status, reports, NOW)

    assert left() is None
    assert left(report(0)) is None
    assert left(report(1)) == pytest.approx(180.0)  # 60 s for one of four
    assert left(report(3, resumed_from=2)) == pytest.approx(60.0)
    assert left(report(2, resumed_from=2)) is None
    assert left(report(1, seconds_left=5.0), report(1, seconds_left=9.0)) == 9.0


def test_a_run_takes_what_steps_of_each_phase_took() -> None:
    assert run_left(None, SCENE.status, {}) is None
    # challenger-train 2, solver-rollout 2 and evaluate 1 and 2 take 65 s as before; of solver-train none has ended
    assert run_left(PLAN, SCENE.status, {"solver-train-1": 60.0}) is None
    done = RunStatus.model_validate({**STATUS, "steps": [*STATUS["steps"][:3], step("solver-train-1")]})  # type: ignore[index]
    assert run_left(PLAN, done, {}) == pytest.approx(5 * 65.0)
    reused = done.model_copy(update={"steps": [s.model_copy(update={"reused": True}) for s in done.steps]})
    assert run_left(PLAN, reused, {}) is None


# --- keys -------------------------------------------------------------------------------------------------------------


class Recorded(Source):
    def __init__(self, error: Exception | None = None, scene: Scene = SCENE) -> None:
        super().__init__(scene)
        self.done: list[str] = []
        self.refused = error

    def request(self, verb: str) -> str:
        if self.refused is not None:
            raise self.refused
        return f"{verb} it?"

    def do(self, verb: str) -> str:
        self.done.append(verb)
        return f"{verb}: done"


@pytest.mark.parametrize(("key", "verb"), [("s", "suspend"), ("r", "resume"), ("a", "approve")])
def test_a_key_asks_before_it_does(key: str, verb: str) -> None:
    source = Recorded()
    desk = Desk(source)
    desk.press(key)
    assert source.scene.note == f"{verb} it? y / n"
    desk.press("q")  # no is whatever is no yes
    assert source.scene.note == f"not done: {verb}" and desk.left is None
    desk.press(key)
    desk.press("y")
    wait_for(lambda: source.scene.note == f"{verb}: done")
    desk.press("y")
    assert source.done == [verb]


def test_what_makes_no_sense_is_a_note_and_ctrl_c_leaves_whatever_was_asked() -> None:
    source = Recorded(InputError("there is nothing to suspend\nits log"))
    desk = Desk(source)
    for key in ("s", "y", "\x1b[A", "x"):
        desk.press(key)
    assert source.scene.note == "there is nothing to suspend" and source.done == []
    source.refused = None
    desk.press("s")
    desk.press("\x03")
    assert desk.left == "\x03" and source.done == []


def test_l_and_n_give_the_screen_away_and_escape_takes_it_back() -> None:
    source = Recorded()
    desk = Desk(source)
    seen = []
    for key in ("l", "n", "n", "l", "\x1b", "\x1b"):
        desk.press(key)
        seen.append(source.scene.focus)
    assert seen == ["log", "questions", "", "log", "", ""] and desk.left is None
    desk.press("q")
    assert desk.left == "q"


# --- where it comes from ----------------------------------------------------------------------------------------------


def test_questions_are_those_of_the_newest_rollout_that_has_any(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-2")
    rollouts = [one for one in fake.plan.steps if one.phase == "solver-rollout"]
    reader = questions.Reader(fake.run)
    whole = reader.newest(rollouts[:1])
    assert re.fullmatch(r"questions of solver-rollout-1: \d+ of \d+ questions passed, \d+ invalid", whole.title)
    assert len(whole.rows) == questions.SHOWN and all(row.text for row in whole.rows)
    assert {bool(row.dropped) for row in whole.rows} == {True, False}
    assert any(list(row.votes) == sorted(row.votes, reverse=True) and sum(row.votes) > 4 for row in whole.rows)
    chunk = reader.newest(rollouts)
    assert re.match(r"questions of solver-rollout-2: 1 to \d+, as they are answered", chunk.title)
    assert len(chunk.rows) > 0 and reader.newest(rollouts) is chunk  # not read again
    assert questions.Reader(make_run(spec__storage__uri=(tmp_path / "none").as_uri())).newest(rollouts).rows == ()


def test_a_store_that_cannot_be_read_is_reported_and_ends_nothing(tmp_path: Path) -> None:
    class Once(Recorded):
        def update(self, **parts: Any) -> None:
            super().update(**parts)
            self.closed.set()

    fake = fake_run(tmp_path, until="challenger-train-2")
    for table in tmp_path.rglob("questions.parquet"):
        table.write_bytes(b"?")
    source = Once(scene=replace(SCENE, plan=fake.plan))
    questions.poll(source, fake.run)
    assert "questions.parquet" in source.scene.questions.why and source.error is None
    assert source.scene.questions.why[:30] in "\n".join(lines(source.scene, 80, 40))


def test_an_evaluation_after_fine_tuning_is_no_rollout(tmp_path: Path) -> None:
    class Once(Recorded):
        def update(self, **parts: Any) -> None:
            super().update(**parts)
            self.closed.set()

    labelled = {"data": {"uri": "s3://data/labelled.jsonl", "digest": "0" * 64}, "maxSteps": 2, "control": False}
    fake = fake_run(tmp_path, spec__iterations=1, spec__rollout__questions=20, spec__finetune=labelled)
    source = Once(scene=Scene("default/demo", plan=fake.plan))
    questions.poll(source, fake.run)
    assert source.scene.questions.title.startswith("questions of solver-rollout-1: ")


def test_in_a_cluster_status_and_logs_are_seen_and_keys_do_what_the_verbs_do(api: ApiServer) -> None:
    api.put(document(spec__review={"every": True}))
    api.set_status("demo", RUNNING)
    api.add_pod("old", JOB, "ended", age=9)
    api.add_pod("new", JOB, "running", age=1)
    api.write("new", "hello", report(2, name="challenger-train-1", metrics={"reward": 0.5}))
    source = ClusterSource(ClusterRun("demo", Access()))
    source.start()
    try:
        wait_for(lambda: bool(source.scene.trail.words))
        scene = source.scene
        assert (scene.name, scene.trail.step, list(scene.trail.words)) == (
            "default/demo",
            "challenger-train-1",
            ["hello"],
        )
        assert [r.done for r in scene.trail.reports] == [2]
        assert any("tailLines=" in request for request in api.requests)
        assert source.request("suspend") == "suspend run default/demo?"
        assert source.request("approve") == "let iteration 2 of run default/demo begin?"
        with pytest.raises(InputError, match="is not suspended"):
            source.request("resume")
        assert "challenger-train-1 stops now" in source.do("suspend")
        wait_for(lambda: bool(source.resource and source.resource.suspend))
        assert source.request("resume") == "resume run default/demo?"
        with pytest.raises(InputError, match="is suspended already"):
            source.request("suspend")
        assert "goes on where it was stopped" in source.do("resume")
        assert "may go on with iteration 2" in source.do("approve")
        assert api.runs["default", "demo"]["spec"]["approvedIteration"] == 2
        assert api.runs["default", "demo"]["spec"]["suspend"] is False
        api.set_status("demo", {**RUNNING, "phase": "Succeeded"})
        assert source.over.wait(30) and source.error is None
    finally:
        source.closed.set()


def test_without_the_right_to_read_logs_the_rest_is_seen(api: ApiServer) -> None:
    api.set_status("demo", RUNNING)
    api.fail(403, times=99, path="/pods")
    source = ClusterSource(ClusterRun("demo", Access()))
    source.start()
    try:
        wait_for(lambda: bool(source.scene.trail.why))
        assert "list pods" in source.scene.trail.why and source.scene.status.phase == "Running"
        api.delete("demo")
        assert source.over.wait(30) and "was deleted" in brief(source.error)  # type: ignore[arg-type]
    finally:
        source.closed.set()


def test_on_this_machine_what_keys_cannot_do_is_reported(project: Project) -> None:
    project.drive("run.yaml")
    run, command = load(project.root / "run.yaml", cache=project.workdir), "selfevo run run.yaml --workdir w"
    source = LocalSource(run, project.workdir, command)
    nothing = f"nothing drives the run now; `{command}` goes on"
    for verb, expected in (("suspend", nothing), ("resume", nothing), ("approve", "waits for nobody")):
        with pytest.raises(InputError, match=expected):
            source.request(verb)
        with pytest.raises(InputError, match=expected):
            source.do(verb)


def test_key_r_says_the_command_that_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, RUN.metadata)
    folder.make()
    source = LocalSource(RUN, tmp_path, "selfevo run 'a b.yaml'")
    desk, goes_on = Desk(source), "`selfevo run 'a b.yaml'` goes on"
    desk.press("r")
    assert source.scene.note == f"nothing drives the run now; {goes_on}"
    with folder.locked():  # by this process
        desk.press("r")
        expected = f"process {os.getpid()} drives the run; nothing is to be resumed, and once it has stopped, {goes_on}"
        assert source.scene.note == expected
        with mock.patch("os.kill") as kill:
            assert source.do("suspend") == f"it stops at the next checkpoint; {goes_on}"
        kill.assert_called_once_with(os.getpid(), signal.SIGINT)
        desk.press("r")
        assert source.scene.note == f"it was asked to stop, and does at the next checkpoint; {goes_on} then"


def test_the_command_is_that_of_the_options_or_of_the_process_that_drives() -> None:
    plain, full = Path("a b.yaml"), Path("/d/run.yaml")
    assert command_for(plain, None, DEFAULT_WORKDIR) == "selfevo run 'a b.yaml'"
    expected = "selfevo run /d/run.yaml --storage s3://a/b --workdir w"
    assert command_for(full, "s3://a/b", Path("w")) == expected
    assert command_of(None) == command_of(os.getpid()) == "selfevo run"  # nobody, and pytest
    waiting = ["sh", "-c", "read line", "bin/selfevo", "run", "x.yaml"]
    with subprocess.Popen(waiting, cwd="/", stdin=subprocess.PIPE) as driver:
        try:
            wait_for(lambda: command_of(driver.pid) == "cd / && selfevo run x.yaml")  # it may not be seen at once
        finally:
            driver.kill()


# --- a terminal -------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with the command in it."""

    def __init__(self, project: Project, *args: str, rows: int = 30, columns: int = 80) -> None:
        self.outside, self.inside = os.openpty()
        fcntl.ioctl(self.inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.flags = termios.tcgetattr(self.inside)
        self.seen = ""
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            cwd=project.root,
            env={**project.environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
            stdin=self.inside,
            stdout=self.inside,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def read_until(self, wanted: str) -> None:
        """What is new on the screen has ``wanted``."""
        mark = len(self.seen)
        while wanted not in self.seen[mark:]:
            self.seen += os.read(self.outside, 65536).decode("utf-8", "replace")

    def type(self, keys: str) -> None:
        os.write(self.outside, keys.encode())


@pytest.mark.slow
def test_keys_that_are_pressed_show_the_log_and_stop_the_run(project: Project) -> None:
    project.order("solver-train-1", hang=True)
    driver = project.start("run", "run.yaml")
    try:
        wait_for(lambda: "solver-train-1" in project.worked())
        terminal = Terminal(project, "watch", "run.yaml")
        terminal.read_until("1/3 training")
        assert "\x1b[?1049h" in terminal.seen
        terminal.type("l")
        terminal.read_until("log of solver-train-1, attempt 1")
        terminal.type("l")
        terminal.read_until("curves")
        terminal.type("r")
        terminal.read_until("nothing is to be resumed")
        terminal.type("s")
        terminal.read_until(f"stop process {driver.pid}")
        terminal.type("n")
        terminal.read_until("not done: suspend")
        fcntl.ioctl(terminal.inside, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        terminal.type("s")
        terminal.read_until("at the next")
        terminal.type("y")
        terminal.read_until("not being driven any more")
        assert terminal.process.wait(60) == 130 and driver.wait(60) == 130
        assert terminal.process.stderr is not None and terminal.process.stderr.read() == b""
        assert terminal.seen.rindex("\x1b[?1049l") > terminal.seen.rindex("\x1b[?1049h")
        assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")  # the cursor is back
        assert termios.tcgetattr(terminal.inside) == terminal.flags
    finally:
        driver.kill()
        driver.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "code"), [("q", 0), ("\x03", 130)])
def test_whoever_leaves_stops_nothing(project: Project, keys: str, code: int) -> None:
    project.order("challenger-train-1", hang=True)
    driver = project.start("run", "run.yaml")
    try:
        wait_for(lambda: "challenger-train-1" in project.worked())
        terminal = Terminal(project, "watch", columns=60)
        terminal.read_until("quit")
        terminal.type(keys)
        terminal.read_until("\x1b[?1049l")  # or nobody takes what it writes
        assert terminal.process.wait(60) == code
        assert termios.tcgetattr(terminal.inside) == terminal.flags
        assert driver.poll() is None
    finally:
        driver.kill()
        driver.communicate()
