"""Approvals of a run on this machine: recorded, obeyed by whoever drives it, and bound to what was reviewed."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from pathlib import Path

import pytest

import selfevo.verbs.run
from harness.cli import Project, wait_for
from harness.runs import make_run
from selfevo.local.approvals import Approvals
from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.verbs.approve import approve_here
from selfevo.verbs.show import review_lines
from selfevo.verbs.watch import ended_local
from selfevo.views import narrate
from selfevo.watching.local import LocalSource
from selfevo_contract.errors import InputError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

FIRST = {"spec__review": {"before": [1]}, "spec__budget": {"tokens": 100}}
"""One that waits before anything is done, and ends after its first step."""


def here(project: Project) -> tuple[RunFolder, SelfEvolutionRun]:
    run = load(project.root / "run.yaml", cache=project.workdir)
    return RunFolder(project.workdir, run.metadata), run


def waits(project: Project) -> bool:
    return project.status_file.exists() and narrate.awaits_review(project.recorded().status or RunStatus())


def test_what_is_approved_begins_with_the_next_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write(**FIRST)
    assert project.drive("run.yaml").returncode == 0 and waits(project)
    folder, run = here(project)
    assert ended_local(run, folder, project.recorded().status or RunStatus(), None) == 0  # as of `selfevo run`
    assert "`selfevo approve` lets it go on, and `selfevo run` goes on" in capsys.readouterr().out
    done = project.invoke("approve", "run.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "run default/demo may go on with iteration 1; `selfevo run run.yaml` does\n"
    assert "review: waits before iteration 1; up to 1 they are approved\n" in project.invoke("plan", "run.yaml").stdout
    assert "AwaitingReview" not in project.invoke("status", "run.yaml").stdout
    again = project.invoke("approve", "run.yaml")
    assert again.returncode == 2 and "run default/demo waits for no approval" in again.stderr
    assert "budget.tokens is used up" in project.drive("run.yaml").stdout
    assert project.worked() == ["challenger-train-1"]
    assert project.recorded().spec.approved_iteration == 1


@pytest.mark.parametrize(
    ("review", "asked", "message"),
    [
        (None, [], "run default/demo waits for nobody: it has no spec.review; add it to have iterations wait"),
        (
            [4],
            [],
            "run default/demo waits for no approval: spec.review names none of its iterations; add to spec.review",
        ),
        (
            [2],
            ["--iteration", "4"],
            "--iteration is 4, and run default/demo has 3 iterations; name one of them, or raise",
        ),
        (
            [2],
            ["--iteration", "1"],
            "--iteration is 1, and run default/demo waits at iteration 2; name that or a later",
        ),
    ],
)
def test_what_cannot_be_approved_is_reported_and_nothing_is_written(
    project: Project, review: list[int] | None, asked: list[str], message: str
) -> None:
    project.write(spec__iterations=3, spec__review=review and {"before": review})
    done = project.invoke("approve", "run.yaml", *asked)
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr
    assert not list(project.workdir.rglob("approved*"))


@pytest.mark.parametrize(
    ("review", "approved", "lines"),
    [
        ([2, 3], 1, ["waits before iteration 2, 3; none is approved"]),
        ([3, 2], 2, ["waits before iteration 2, 3; up to 2 they are approved"]),
        ([12, 3, 4], None, [
            "waits before iteration 3; none is approved",
            "before names 4, 12, beyond the 3 iterations of the run",
        ]),
        ([11], None, ["waits for nobody", "before names 11, beyond the 3 iterations of the run"]),
    ],
)  # fmt: skip
def test_a_plan_says_before_what_it_waits(
    project: Project, review: list[int], approved: int | None, lines: list[str]
) -> None:
    project.write(spec__iterations=3, spec__review={"before": review}, spec__approvedIteration=approved)
    shown = project.invoke("plan", "run.yaml").stdout.splitlines()
    assert [line.removeprefix("review: ") for line in shown if line.startswith("review: ")] == lines


def test_a_plan_of_a_fork_waits_before_no_iteration_of_the_other_run() -> None:
    asked = {"iterations": 4, "forkFrom": {"run": "other", "iteration": 2}}
    for review, lines in (
        ({"every": True}, ["review: waits before iteration 3, 4; none is approved"]),
        (
            {"before": [2]},
            [
                "review: waits for nobody",
                "review: before names 2, not after iteration 2, which the run goes on from",
            ],
        ),
    ):
        changes = {f"spec__{field}": value for field, value in {**asked, "review": review}.items()}
        assert review_lines(make_run(**changes).spec) == lines


def test_an_approval_is_of_what_was_planned_then(project: Project) -> None:
    project.write(spec__iterations=3, spec__review={"every": True})
    folder, run = here(project)
    assert "iteration 2;" in approve_here(folder, run, None) and "iteration 3;" in approve_here(folder, run, None)
    approvals = Approvals(folder)

    def approved(**changes: object) -> int | None:
        project.write(**{"spec__iterations": 3, "spec__review": {"every": True}, **changes})
        return approvals.obeyed(here(project)[1]).spec.approved_iteration

    assert approved() == 3
    assert approved(spec__iterations=4, spec__backoffLimit=7) == 3  # computes the same
    learns_faster = {"spec__solver__grpo": {"learningRate": 0.5}}
    assert approved(**learns_faster) is None
    assert approved(spec__seed=1) is approved(spec__review=None) is None
    assert approved(spec__iterations=2) == 2
    (file,) = folder.root.glob("approved*")
    for torn in ("", file.read_text()[:20], '{"approvedIteration":"3"}'):
        file.write_text(torn)
        assert approved() is None
    file.unlink()  # it is taken back
    assert approved(spec__approvedIteration=2) == 2


def test_an_approval_lasts_whatever_follows_the_iteration_and_however_it_is_scored(project: Project) -> None:
    tuned, twice = {"data": {"uri": "file:labelled.jsonl"}}, {"spec__evaluation__every": 2}
    (project.root / "labelled.jsonl").write_text('{"question": "1 + 2", "answer": "3"}\n')
    best, each = ({"to": "file:published", "what": what} for what in ("best", "each"))

    def recorded(**changes: object) -> SelfEvolutionRun:
        project.evaluated(**{"spec__iterations": 2, "spec__review": {"every": True}, **changes})
        return here(project)[1]

    stages: list[dict[str, object]] = [
        {},
        {"spec__publish": best, "spec__finetune": tuned, **twice},
        {"spec__publish": each},
        {"spec__evaluation__samples": 3},
        {"spec__iterations": 3, "spec__publish": best, "spec__finetune": tuned, **twice},
    ]
    for before in stages:
        run = recorded(**before)
        folder = RunFolder(project.workdir, run.metadata)
        approvals = Approvals(folder)
        approvals.approve(run, 2)
        for after in stages:
            assert approvals.obeyed(recorded(**after)).spec.approved_iteration == 2, (before, after)
    assert "up to 2 they are approved" in project.invoke("plan", "run.yaml").stdout


def test_a_run_may_wait_for_its_approval(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfevo.verbs.run, "APPROVAL", timedelta(milliseconds=20))
    project.write(**FIRST)
    folder, run = here(project)
    heard: list[str] = []

    def approve() -> None:
        try:
            wait_for(lambda: waits(project))
            heard.append(approve_here(folder, run, None))
        finally:
            if not heard:
                os.kill(os.getpid(), signal.SIGINT)  # or it waits for ever

    person = threading.Thread(target=approve)
    person.start()
    done = project.drive("run.yaml", "--wait")
    person.join()
    assert done.returncode == 0 and done.stdout.count("waiting. AwaitingReview: iteration 1 waits for a person") == 1
    assert project.worked() == ["challenger-train-1"]
    assert heard[0].startswith("run default/demo may go on with iteration 1; process ") and heard[0].endswith(" does")


def test_the_key_a_approves_what_is_to_come(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write, notes = RunFolder.write, list[str]()

    def press(folder: RunFolder, run: SelfEvolutionRun) -> None:
        write(folder, run)
        if not notes and any(step.state == "Running" for step in (run.status or RunStatus()).steps):
            source = LocalSource(run, project.workdir)
            notes.extend([source.request("approve"), source.do("approve")])
            with pytest.raises(InputError, match="waits for no approval"):
                source.request("approve")

    monkeypatch.setattr(RunFolder, "write", press)
    project.write(spec__iterations=2, spec__review={"before": [2]}, spec__budget={"tokens": 500})
    done = project.drive("run.yaml")
    assert notes[0] == "let iteration 2 of run default/demo begin?" and "may go on with iteration 2" in notes[1]
    assert "budget.tokens is used up" in done.stdout and "challenger-train-2" in project.worked()


def test_a_folder_that_cannot_be_written_is_named(project: Project) -> None:
    project.write(spec__review={"before": [1]})
    folder, run = here(project)
    folder.make()
    Path(folder.root / "approved.json").mkdir()
    with pytest.raises(InputError, match=r"approved.json cannot be written \(Is a directory\)"):
        approve_here(folder, run, None)
    assert not list(folder.root.glob(".*.tmp"))
