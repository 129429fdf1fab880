"""What a reader sees of a run: words, lines, and the live picture."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import termios
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from harness.cli import COMMAND, Project, wait_for
from harness.runs import make_run
from selfevo.text import aligned, count, fitted, flowed, percent, printable, seconds, size
from selfevo.verbs.watch import ChangePrinter
from selfevo.views import narrate
from selfevo.views.lines import Lines
from selfevo.views.opening import open_view
from selfevo.views.screen import Screen
from selfevo.views.steps import window
from selfevo_contract.plan import plan
from selfevo_contract.process import Progress
from selfevo_contract.status import AttemptStatus, IterationStatus, RunStatus, StepProgress, StepStatus

START = "2026-01-01T12:00:00.000Z"
RUN = make_run()
PLAN = plan(RUN.spec)


def step(name: str, state: str = "Succeeded", **fields: Any) -> StepStatus:
    of = PLAN.by_name[name]
    return StepStatus(
        name=name,
        phase=of.phase,
        iteration=of.iteration,
        key=of.key,
        state=state,  # type: ignore[arg-type]
        attempts=fields.pop("attempts", 1),
        started_at=START,
        **fields,
    )


def lines_of(before: RunStatus, after: RunStatus) -> list[str]:
    return [item.text for item in narrate.transitions(before, after)]


# --- words ------------------------------------------------------------------------------------------------------------


def test_starts_ends_and_scores_are_shown_once() -> None:
    running = RunStatus(steps=[step("evaluate-0", "Running")])
    assert lines_of(RunStatus(), running) == ["evaluate-0 started"]
    assert lines_of(running, running) == []
    done = RunStatus(
        steps=[step("evaluate-0", finished_at="2026-01-01T12:01:05.000Z", metrics={"mean": 0.478, "greedy": 0.53})],
        iterations=[IterationStatus(iteration=0, score=0.478)],
    )
    assert lines_of(running, done) == [
        "evaluate-0 done in 1 min 05 s: mean 47.8 %, greedy 53.0 %",
        "base: score 47.8 %",
    ]


def test_a_failure_tells_why_and_when_it_is_tried_again() -> None:
    attempt = AttemptStatus(
        name="a", step="evaluate-0", attempt=1, state="Failed", message="no \x1b[2Jstore", finished_at=START
    )
    waiting = step("evaluate-0", "Pending", retry_at="2026-01-01T12:00:04.000Z", failures=1)
    after = RunStatus(steps=[waiting], attempts=[attempt])
    assert lines_of(RunStatus(steps=[step("evaluate-0", "Running")]), after) == [
        "evaluate-0 failed: no \\x1b[2Jstore; tried again in 4.0 s"
    ]
    assert lines_of(after, RunStatus(steps=[step("evaluate-0", "Running", attempts=2)], attempts=[attempt])) == [
        "evaluate-0 started, attempt 2"
    ]


def test_what_an_operator_recorded_of_progress_is_reported_when_it_changes() -> None:
    far = StepProgress(doing="answering\x1b", done=7, total=15, percent=46, at=START)
    rich = far.model_copy(
        update={
            "done": 9,
            "tokens_per_second": 210.4,
            "truncated_share": 0.04,
            "ends_at": START,
            "metrics": {"a/reward": 0.41},
        }
    )
    runs = [RunStatus(steps=[step("evaluate-0", "Running", progress=known)]) for known in (None, far, rich)]
    assert lines_of(runs[0], runs[1]) == ["evaluate-0: 7 of 15, answering\\x1b"]
    assert lines_of(runs[1], runs[1]) == lines_of(runs[1], runs[0]) == []
    until = datetime.fromisoformat(START).astimezone().strftime("%H:%M")
    full = f"9 of 15, answering\\x1b, 210 tokens a second, 4.0 % truncated, reward 0.41, until {until}"
    assert lines_of(runs[1], runs[2]) == [f"evaluate-0: {full}"]
    assert narrate.remark(runs[2].steps[0]) == full


def test_lines_about_progress_that_is_recorded_often_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    printer, view = ChangePrinter("default/demo", 30.0, lambda: now[0]), Lines(RUN)
    printer.update(RunStatus(phase="Running", steps=[step("evaluate-0", "Running")]), PLAN)
    capsys.readouterr()
    for done in range(1, 9):  # every five seconds
        progress = StepProgress(doing="answering", done=done, total=15, at=START)
        status = RunStatus(phase="Running", steps=[step("evaluate-0", "Running", progress=progress)])
        printer.update(status, PLAN)
        now[0] += 5.0
    printed = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["evaluate-0: 1 of 15, answering", "evaluate-0: 7 of 15, answering"]
    view.show(RunStatus(steps=[step("evaluate-0", "Running")]), {})
    capsys.readouterr()
    view.show(status, {})  # it hears the processes themselves
    assert capsys.readouterr().out == ""


def test_figures_of_each_phase() -> None:
    rollout = {"questions": 800.0, "kept": 384.0, "in_band_share": 0.5, "label_accuracy": 0.9}
    assert (
        narrate.highlights(step("solver-rollout-1", metrics=rollout))
        == "384 of 800 questions kept, 90.0 % of labels right"
    )
    scored = {"questions": 8.0, "kept": 4.0, "score_mean": 0.5, "anchors/accuracy": 0.875, "anchors/count": 64.0}
    assert narrate.highlights(step("solver-rollout-1", metrics=scored)) == (
        "4 of 8 questions kept, score 0.5, 87.5 % of 64 anchors right"
    )
    train = {"reward_first": 0.39, "reward_last": 0.47, "kl_first": 0.0, "kl_last": 0.012}
    assert narrate.highlights(step("challenger-train-1", metrics=train)) == "reward 0.39 -> 0.47, kl 0.012"
    assert narrate.highlights(step("solver-train-1", metrics={})) == ""


def test_the_table_has_the_base_and_marks_the_best() -> None:
    lines = [
        IterationStatus(iteration=0, score=0.478, metrics={"evaluation/greedy": 0.53}),
        IterationStatus(
            iteration=1,
            score=0.597,
            metrics={"rollout/kept": 384.0, "rollout/in_band_share": 0.5, "rollout/label_accuracy": 0.91},
        ),
    ]
    assert narrate.table(RunStatus(iterations=lines, best=lines[1])) == [
        ["base", "47.8 %", "53.0 %", "-", "-", "-", "-"],
        ["1 (best)", "59.7 %", "-", "50.0 %", "-", "91.0 %", "384"],
    ]
    assert narrate.table_lines(RunStatus()) == []


def test_groups_of_tasks_stand_behind_the_scores() -> None:
    lines = [
        IterationStatus(iteration=0, score=0.478, groups={"math": 0.5, "general": 0.25}),
        IterationStatus(iteration=1, score=0.597, metrics={"rollout/kept": 384.0}),
    ]
    status = RunStatus(iterations=lines)
    assert [row[:5] for row in narrate.table(status)] == [
        ["base", "47.8 %", "-", "50.0 %", "25.0 %"],
        ["1", "59.7 %", "-", "-", "-"],
    ]
    heading, *rows = narrate.table_lines(status)[1:-1]
    assert heading.split()[:6] == ["iteration", "score", "greedy", "math", "general", "in"]
    assert {len(row) for row in (heading, *rows)} == {len(heading)}
    assert narrate.table_lines(status, 60)[1].split()[3:5] == ["math", "general"]


def test_a_score_is_shown_with_what_it_gained_over_the_base() -> None:
    scores = {"mean": 0.597, "mean_gain": 0.119, "mean_gain_stderr": 0.014, "greedy": 0.5, "greedy_gain": -0.02}
    assert narrate.highlights(step("evaluate-1", metrics=scores)) == "mean 59.7 % (+11.9 ± 1.4), greedy 50.0 %"


def test_text_helpers() -> None:
    assert [seconds(value) for value in (0.04, 59.9, 60, 3599.6, 3600)] == [
        *("0.0 s", "59.9 s", "1 min 00 s", "1 h 00 min", "1 h 00 min"),
    ]
    assert [size(value) for value in (75, 683_816, 16_000_000_000)] == ["75 B", "683.8 kB", "16.0 GB"]
    assert (percent(None), percent(0.5), count(1, "file"), count(0, "file")) == ("-", "50.0 %", "1 file", "0 files")
    assert printable("a\tb\n\x00\x9b31m") == "a\tb\n\\x00\\x9b31m"
    assert aligned([("a", "b"), ("long", "1")], right=(1,)) == ["a     b", "long  1"]


def test_tables_and_sentences_fit_a_narrow_terminal() -> None:
    rows = [("step", "n", ""), ("solver-train-1", "1", "reward 0.5 -> 0.7, kl 0.012"), ("evaluate-1", "-", "")]
    assert fitted(rows, (1,), None) == fitted(rows, (1,), 80) == aligned(rows, (1,))
    assert fitted(rows, (1,), 40)[1:] == [
        "solver-train-1  1  reward 0.5 -> 0.7, kl",
        "                   0.012",
        "evaluate-1      -",
    ]
    assert fitted(rows, (1,), 34)[1:] == ["solver-train-1  1", "    reward 0.5 -> 0.7, kl 0.012", "evaluate-1      -"]
    assert flowed("store /a/path/that/is/long does not exist", 20) == "store\n/a/path/that/is/long\ndoes not exist"
    metrics = {"rollout/kept": 8000.0, "rollout/in_band_share": 0.5, "rollout/label_accuracy": 0.91}
    status = RunStatus(iterations=[IterationStatus(iteration=0, score=0.4, metrics=metrics)])
    assert max(map(len, narrate.table_lines(status))) > 60 >= max(map(len, narrate.table_lines(status, 60)))


def test_what_ran_is_counted_and_not_the_pauses_between() -> None:
    of = PLAN.by_name["solver-train-1"]

    def attempt(number: int, start: str, end: str | None) -> AttemptStatus:
        name = f"demo-{of.name}-{of.key[:8]}-{number}"
        return AttemptStatus(name=name, step=of.name, attempt=number, state="Failed", started_at=start, finished_at=end)

    night = [
        attempt(1, "2026-01-01T20:00:00Z", "2026-01-01T20:00:30Z"),
        attempt(2, "2026-01-02T08:00:00Z", "2026-01-02T08:00:12Z"),
    ]
    done = step("solver-train-1", finished_at="2026-01-02T08:00:12Z", attempts=2)
    assert narrate.duration(done, night) == 42
    assert narrate.duration(done, [attempt(2, "2026-01-02T08:00:00Z", None)]) is None
    assert narrate.duration(step("evaluate-0", finished_at="2026-01-01T12:01:05Z"), night) == 65
    stopped = step("solver-train-1", "Pending", reason="Terminated", message="ended with exit code 143")
    assert narrate.remark(stopped) == "stopped at a checkpoint"


# --- lines ------------------------------------------------------------------------------------------------------------


def test_lines_are_plain_and_begin_with_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    view = open_view(RUN, PLAN, quiet=False)
    assert isinstance(view, Lines)  # pytest's output is no terminal
    status = RunStatus(steps=[step("evaluate-0"), step("challenger-train-1", "Running")])
    view.show(status, {})
    view.show(status, {})
    out = capsys.readouterr().out
    assert re.sub(r"\d\d:\d\d:\d\d ", "", out).splitlines() == [
        "selfevo run demo, store file:///store",
        "1 step in the store already: evaluate-0",
        "challenger-train-1 started",
    ]
    assert "\x1b" not in out


def test_lines_tell_how_far_a_long_step_is(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    view = Lines(RUN, lambda: now[0])
    status = RunStatus(steps=[step("solver-train-1", "Running")])
    for at, done in ((0.0, 1), (29.0, 2), (31.0, 3), (32.0, 4), (62.0, 4), (63.0, 5)):
        now[0] = at
        report = Progress(
            phase="solver-train", step="solver-train-1", doing="training", done=done, total=15, metrics={"reward": 0.41}
        )
        view.show(status, {"solver-train-1": [report]})
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[2:] == [
        "solver-train-1: 3 of 15, training  reward 0.41",
        "solver-train-1: 4 of 15, training  reward 0.41",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    view = open_view(RUN, PLAN, quiet=True)
    view.show(RunStatus(steps=[step("evaluate-0")]), {})
    view.say("x")
    view.close()
    view.summary(RunStatus())
    assert capsys.readouterr() == ("", "")


# --- the picture ------------------------------------------------------------------------------------------------------


def picture(status: RunStatus, reports: dict[str, list[Progress]], width: int = 80, height: int = 30) -> list[str]:
    screen = Screen(RUN, PLAN)
    screen.close()
    screen._console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    screen._status, screen._reports = status, reports
    screen._console.print(screen._picture())
    return screen._console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_the_picture_has_a_line_for_every_step() -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    status = RunStatus(
        phase="Running",
        iteration=1,
        steps=[
            step("evaluate-0", finished_at="2026-01-01T12:00:04.200Z", metrics={"mean": 0.5}),
            step("challenger-train-1", reused=True, metrics={"reward_last": 0.4}),
            step("solver-rollout-1", "Running"),
            step("solver-train-1", "Pending", retry_at=soon, message="[bold]no store[/]"),
            step("evaluate-1", "Failed", message="wrong"),
        ],
    )
    reports = [
        Progress(phase="solver-rollout", step="solver-rollout-1", doing="[red]answering", done=done, total=10, shard=n)
        for n, done in enumerate((10, 5))
    ]
    lines = picture(status, {"solver-rollout-1": reports}, width=100)
    assert lines[0].startswith("selfevo run demo  iteration 1 of 2  0.")
    assert lines[1] == "store file:///store"
    shown = [re.sub(r"\s+", " ", line).strip() for line in lines[3:]]
    assert shown[0] == "✓ evaluate-0 4.2 s mean 50.0 %"
    assert shown[1] == "✓ challenger-train-1 stored reward 0.4"
    assert re.fullmatch(r"● solver-rollout-1 .* ━{18}─{6} 15/20 \[red\]answering", shown[2])
    assert re.fullmatch(r"↻ solver-train-1 in (29|30) s \[bold\]no store\[/\]", shown[3])
    assert shown[4] == "✗ evaluate-1 wrong"
    assert shown[5:] == ["· challenger-train-2", "· solver-rollout-2", "· solver-train-2", "· evaluate-2"]


def test_the_pace_of_shards_is_shown_together() -> None:
    def report(shard: int, speed: float, truncated: float, left: float) -> Progress:
        return Progress(
            phase="solver-rollout",
            step="solver-rollout-1",
            doing="answering",
            done=64,
            total=704,
            shard=shard,
            tokens_per_second=speed,
            truncated_share=truncated,
            seconds_left=left,
        )

    line = narrate.progress([report(0, 100.2, 0.1, 61.0), report(1, 50.0, 0.3, 187.0)])
    assert line == "128 of 1408, answering  150 tokens/s  20.0 % truncated  3 min 07 s left"


def test_the_bar_is_read_without_colours_and_leaves_room_for_words_at_60_columns() -> None:
    report = Progress(phase="solver-train", step="solver-train-1", doing="training", done=5, total=15)
    running = step("solver-train-1", "Running").model_copy(update={"started_at": datetime.now(UTC).isoformat()})
    lines = picture(RunStatus(steps=[running]), {"solver-train-1": [report]}, width=60)
    (line,) = [line for line in lines if line.startswith("●")]
    assert re.search(r" ━{3}─{6} 5/15 training$", line)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_cuts_off_figures_not_names(width: int) -> None:
    long = step("evaluate-0", "Failed", message="word " * 100)
    lines = picture(RunStatus(steps=[long]), {}, width=width)
    (failed,) = [line for line in lines if line.startswith("✗")]
    assert failed.startswith("✗  evaluate-0 ") and failed.endswith("…")
    assert len(lines) <= 4 + 9 + 1 and max(map(len, lines)) <= width  # at most the heading is broken in two


def test_a_low_terminal_shows_the_steps_around_those_under_way() -> None:
    names = [f"s{n}" for n in range(40)]
    records = {name: step("evaluate-0") for name in names[:20]}
    shown, before, after = window(names, records, 12)
    assert (len(shown), before + len(shown) + after) == (10, 40)
    assert "s19" in shown and "s20" in shown and "s26" in shown
    assert window(names, {}, 12)[0][0] == "s0"
    assert window(names, {name: step("evaluate-0") for name in names}, 12)[0][-1] == "s39"
    assert window(names, {}, 50) == (names, 0, 0)


@pytest.mark.slow
def test_in_a_terminal_the_picture_lives_and_ctrl_c_is_heard(project: Project) -> None:
    project.order("solver-train-1", hang=True)
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    flags = termios.tcgetattr(inside)
    project.environment.update(TERM="xterm-256color", LANG="C.UTF-8")
    process = subprocess.Popen(
        [*COMMAND, "run", "run.yaml"],
        cwd=project.root,
        env=project.environment,
        stdin=inside,
        stdout=inside,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    seen = bytearray()

    def read_until(wanted: str) -> None:
        while wanted.encode() not in seen:
            seen.extend(os.read(terminal, 65536))

    read_until("1/3 training")
    wait_for(lambda: "solver-train-1" in project.worked())
    os.write(terminal, b"\x03")
    read_until("Go on with:")
    process.wait(timeout=180)
    assert process.returncode == 130
    assert process.stderr is not None and process.stderr.read() == b""
    process.stderr.close()
    text = seen.decode()
    assert "✓" in text and "stopping at the next checkpoint" in text and "^C" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert termios.tcgetattr(inside) == flags
    os.close(terminal)
    os.close(inside)
