"""`selfevo run`, whole, with the fake trainer: it commits, fails, hangs and dies as it is ordered."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import selfevo.verbs.run
from harness import unbuilt
from harness.cli import COMMAND, Project, wait_for
from harness.processes import alive
from selfevo.local.workdir import RunFolder
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

STEPS = ["challenger-train-1", "solver-rollout-1", "solver-rollout-1", "solver-train-1"]  # the rollout has two shards


# --- what is done, and done once --------------------------------------------------------------------------------------


def test_a_run_does_every_step_once_says_so_and_can_be_repeated_at_no_cost(project: Project) -> None:
    project.evaluated()
    first = project.selfevo("run", "run.yaml")
    assert (first.returncode, first.stderr) == (0, "")
    assert sorted(project.worked()) == sorted([*STEPS, "evaluate-0", "evaluate-1"])
    assert "iteration 1: score 60.0 % (base 50.0 %)" in first.stdout
    assert "1 (best)  60.0 %  70.0 %   50.0 %          60.0 %               -     8" in first.stdout
    status = project.recorded().status
    assert status is not None and status.phase == "Succeeded" and status.model_uri is not None
    assert status.model_uri in first.stdout
    assert status.model_uri.startswith(f"file://{project.store}/default/solver-train/")

    again = project.drive("run.yaml")
    assert again.returncode == 0
    assert len(project.worked()) == 6
    assert len(project.diary("start")) == 6  # not even a process was started
    assert "5 steps in the store already: evaluate-0, challenger-train-1, solver-rollout-1" in again.stdout


@pytest.mark.slow
def test_raising_iterations_extends_and_a_fork_shares_what_is_equal(project: Project) -> None:
    project.selfevo("run", "run.yaml")
    project.write(spec__iterations=2)
    assert project.selfevo("run", "run.yaml").returncode == 0
    second = [step.replace("-1", "-2") for step in STEPS]
    assert project.worked() == [*STEPS, *second]
    # Another run, another name, another learning rate in the Solver's training: the first rollout is the same.
    fork = project.write("fork.yaml", spec__solver__grpo__learningRate=1e-4, metadata__name="fork")
    assert project.selfevo("run", fork.name).returncode == 0
    assert project.worked() == [*STEPS, *second, "solver-train-1"]


@pytest.mark.slow
def test_a_lost_status_costs_nothing_that_was_committed(project: Project) -> None:
    project.selfevo("run", "run.yaml")
    project.status_file.write_text('{"half a fi')
    assert project.selfevo("run", "run.yaml").returncode == 0
    shutil.rmtree(project.workdir)
    assert project.selfevo("run", "run.yaml").returncode == 0
    assert project.worked() == STEPS


@pytest.mark.slow
def test_what_is_not_in_the_store_is_not_done_whatever_the_status_says(project: Project) -> None:
    project.selfevo("run", "run.yaml")
    assert project.selfevo("run", "run.yaml", "--storage", "elsewhere").returncode == 0
    assert (project.root / "elsewhere" / "default" / "solver-train").is_dir()
    shutil.rmtree(project.store / "default" / "solver-train")
    assert project.selfevo("run", "run.yaml").returncode == 0
    assert project.worked() == [*STEPS, *STEPS, "solver-train-1"]


def test_a_suspended_run_starts_nothing(project: Project) -> None:
    project.write(spec__suspend=True)
    done = project.drive("run.yaml")
    assert (done.returncode, project.diary("start")) == (0, [])
    assert "spec.suspend is true, 0 of 3 steps done" in done.stdout


def test_a_run_stops_when_its_budget_is_used_up_and_goes_on_when_it_is_raised(project: Project) -> None:
    project.write(spec__budget={"tokens": 400, "wallTime": "1h", "gpuHours": 1})
    planned = project.invoke("plan", "run.yaml").stdout
    assert "budget: wallTime 1h, gpuHours 1 GPU hours, tokens 400 tokens\n" in planned
    assert "estimate: none, no pods name GPUs\n" in planned
    assert "budget.gpuHours is blind with `selfevo run`: processes on this machine hold no GPUs" in planned
    project.write(spec__budget={"tokens": 300})
    done = project.drive("run.yaml")  # of four processes with 100 tokens each, the last does not start
    assert (done.returncode, project.worked()) == (0, STEPS[:3])
    assert "100% of budget.tokens is used: 300 of 300 tokens" in done.stdout
    stopped = "BudgetExceeded: budget.tokens is used up: 300 of 300 tokens; raise it to go on, 2 of 3 steps done"
    assert f"Stopped. {stopped}" in done.stdout
    shown = project.invoke("status", "run.yaml").stdout
    assert "demo: Suspended, 2 of 3 steps done" in shown and stopped in shown
    assert "budget.tokens: 300 of 300 tokens (100%)" in shown
    project.write(spec__budget={"tokens": 1000})
    assert project.drive("run.yaml").returncode == 0
    assert project.worked() == STEPS
    status = project.recorded().status
    assert status is not None and status.usage is not None and status.phase == "Succeeded"
    assert status.usage.tokens == 400 and 0 < status.usage.wall_hours < 1 and status.usage.gpu_hours == 0
    assert status.usage.phases["solver-rollout"].tokens == 200


def test_a_run_waits_for_a_person_and_goes_on_when_the_manifest_says_so(project: Project) -> None:
    project.write(spec__review={"before": [1]})
    assert "review: waits before iteration 1; none is approved\n" in project.invoke("plan", "run.yaml").stdout
    done = project.drive("run.yaml")
    assert (done.returncode, project.worked()) == (0, [])
    assert "Stopped. AwaitingReview: iteration 1 waits for a person (spec.review)" in done.stdout
    project.write(spec__review={"before": [1]}, spec__approvedIteration=1)
    assert project.drive("run.yaml").returncode == 0
    assert sorted(project.worked()) == sorted(STEPS)


def test_how_far_a_step_is_stands_in_the_record_and_in_the_status(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    write = RunFolder.write

    def invoke(folder: RunFolder, run: SelfEvolutionRun) -> None:
        write(folder, run)
        if any(step.progress for step in (run.status or RunStatus()).steps):
            shown.append(project.invoke("status", "run.yaml").stdout)

    monkeypatch.setattr(RunFolder, "write", invoke)
    monkeypatch.setattr(selfevo.verbs.run, "PROGRESS", timedelta(0))
    project.order("challenger-train-1", reports={"tokens_per_second": 210.4, "seconds_left": 3600.0})
    project.write(spec__budget={"tokens": 100})  # used up by the first step
    done = project.drive("run.yaml")
    assert done.returncode == 0 and "3 of 3, training" not in done.stdout
    expected = (
        r"challenger-train-1 +Running +- +1 +[123] of 3, training, 210 tokens a second, reward 0\.\d, until \d\d:\d\d"
    )
    assert re.search(expected, "\n".join(shown)), shown
    assert all(step.progress is None for step in (project.recorded().status or RunStatus()).steps)


@pytest.mark.slow
def test_quiet_says_nothing_and_threads_are_as_the_environment_says(project: Project) -> None:
    project.environment["OMP_NUM_THREADS"] = "3"
    done = project.selfevo("run", "run.yaml", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {entry["omp"] for entry in project.diary()} == {"3"}


@pytest.mark.slow
def test_no_reader_of_the_output_is_no_reason_to_stop(project: Project) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "run", "run.yaml"],
        cwd=project.root,
        env=project.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=180,
        check=False,
    )
    os.close(writer)
    assert project.worked() == STEPS
    assert "Traceback" not in done.stderr


# --- shards -----------------------------------------------------------------------------------------------------------


def overlap(project: Project, step: str) -> int:
    """Most processes of a step at one time."""
    moments = [(entry["time"], 1) for entry in project.diary("start") if entry["step"] == step]
    moments += [(entry["time"], -1) for entry in project.diary("end") if entry["step"] == step]
    counts, now = [0], 0
    for _, change in sorted(moments):
        now += change
        counts.append(now)
    return max(counts)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_bound_the_shards_that_are_made_at_once(project: Project, workers: int) -> None:
    project.write(spec__rollout__shards=3)
    project.order("solver-rollout-1", seconds=1)
    assert project.drive("run.yaml", "--workers", str(workers)).returncode == 0
    assert sorted(e["shard"] for e in project.diary() if e["step"] == "solver-rollout-1") == [0, 1, 2]
    assert overlap(project, "solver-rollout-1") == workers


@pytest.mark.slow
def test_an_evaluation_is_shared_out_too(project: Project) -> None:
    project.evaluated(spec__evaluation__shards=3)
    project.order("evaluate-0", exit=3, times=1, shard=1)
    assert project.drive("run.yaml", "--workers", "2").returncode == 0
    assert {e["shard"] for e in project.diary() if e["step"] == "evaluate-1"} == {0, 1, 2}
    assert overlap(project, "evaluate-1") <= 2
    status = project.recorded().status
    assert status is not None
    tried = [(a.attempt, a.state, a.exit_code) for a in status.attempts if a.step == "evaluate-0"]
    assert tried == [(1, "Failed", 3), (2, "Succeeded", 0)]


def test_a_failed_shard_is_made_again_and_the_others_are_kept(project: Project) -> None:
    project.order("solver-rollout-1", exit=3, times=1, shard=1)
    done = project.drive("run.yaml")
    assert done.returncode == 0
    status = project.recorded().status
    assert status is not None
    # That it is tried again is a line only where the wait, 50 ms here, is not over when the end is seen.
    first, second = (attempt for attempt in status.attempts if attempt.step == "solver-rollout-1")
    assert (first.attempt, first.state, first.exit_code) == (1, "Failed", 3)
    assert first.message == "ordered to end with 3; order otherwise"
    assert (second.attempt, second.state, second.exit_code) == (2, "Succeeded", 0)


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_failures_of_services_and_crashes_are_tried_again(project: Project) -> None:
    project.order("challenger-train-1", exit=3, times=2)
    project.order("solver-train-1", kill=9, times=1)
    done = project.drive("run.yaml")
    assert done.returncode == 0
    assert project.worked().count("challenger-train-1") == 3
    status = project.recorded().status
    assert status is not None
    (killed,) = (attempt for attempt in status.attempts if attempt.exit_code == 137)
    assert killed.message == "ended with exit code 137: killed, perhaps because memory ran out; about to die"


@pytest.mark.slow
def test_a_result_that_was_lost_is_found_by_another_process(project: Project) -> None:
    project.evaluated()
    project.order("evaluate-1", mute=True, times=1)
    done = project.selfevo("run", "run.yaml")
    assert done.returncode == 0
    assert len(project.diary("committed")) == 5
    assert "iteration 1: score 60.0 %" in done.stdout


@pytest.mark.parametrize("code", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_what_trying_again_cannot_help_ends_the_run_with_its_code(project: Project, code: int) -> None:
    project.order("solver-train-1", exit=code)
    done = project.drive("run.yaml")
    assert done.returncode == code
    first, second = done.stderr.splitlines()
    assert first == f"selfevo: solver-train-1: ordered to end with {code}; order otherwise"
    assert second.startswith("selfevo: its log is ") and second.endswith("-1.log")
    assert project.worked().count("solver-train-1") == 1
    # The next `selfevo run` is the person's answer to it.
    project.order("solver-train-1")
    assert project.drive("run.yaml").returncode == 0


@pytest.mark.slow
def test_the_backoff_limit_ends_the_run(project: Project) -> None:
    project.write(spec__backoffLimit=1)
    project.order("challenger-train-1", exit=3)
    done = project.drive("run.yaml")
    assert done.returncode == 3
    assert "challenger-train-1 failed 2 times (spec.backoffLimit is 1), the last time: ordered to end" in done.stderr


# --- the warm parent --------------------------------------------------------------------------------------------------


def parents(project: Project) -> list[str]:
    """What each process was forked from or started as."""
    return [entry["argv"] for entry in project.diary("start")]


@pytest.mark.slow
def test_processes_are_forked_from_one_that_is_warm_or_started_anew_when_asked(project: Project) -> None:
    assert project.selfevo("run", "run.yaml").returncode == 0
    assert set(parents(project)) == {"fake_warm.py"}
    assert project.selfevo("run", "run.yaml", "--cold", "--storage", "elsewhere").returncode == 0
    assert set(parents(project)[len(STEPS) :]) == {"fake_trainer.py"}
    # Environment, signals, session, open files: a forked process is what a new one is.
    facts = [(entry["step"], entry["shard"] or 0, entry["process"]) for entry in project.diary("start")]
    forked, new = (sorted(half, key=lambda fact: fact[:2]) for half in (facts[: len(STEPS)], facts[len(STEPS) :]))
    assert forked == new and all(fact["child of the command"] for *_, fact in forked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [("dies", "it ended while it imported; its log is "), ("thread", "imports left 1 threads (python")],
)
def test_a_warm_parent_that_fails_costs_a_line_and_no_step(project: Project, how: str, why: str) -> None:
    project.environment["FAKE_WARM"] = how
    done = project.selfevo("run", "run.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"processes start without the warm parent from here on, which is slower: {why}") == 1
    assert done.stdout.count("without the warm parent") == 1
    assert project.worked() == STEPS and set(parents(project)) == {"fake_trainer.py"}


@pytest.mark.slow
def test_who_asked_for_gpus_may_be_forked_where_there_are_none() -> None:
    script = (
        "import torch; from selfevo_trainer import warm\n"
        "torch._C._cuda_getDeviceCount()\n"  # as vLLM does when it is imported
        "print(warm.unsafe())\n"
        "torch.cuda.device_count = lambda: 1\n"
        "print(warm.unsafe())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "CUDA is in use after the imports"]


@pytest.mark.slow
def test_a_warm_parent_that_is_killed_takes_no_process_with_it(project: Project) -> None:
    project.order("challenger-train-1", hang=True)
    process = project.start("run", "run.yaml")
    wait_for(lambda: project.worked())
    (trainer,) = {entry["pid"] for entry in project.diary()}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (warm,) = {int(pid) for pid in children} - {trainer}
    os.kill(warm, signal.SIGKILL)
    wait_for(lambda: not alive(warm))
    assert alive(trainer)
    project.order("challenger-train-1")
    os.kill(trainer, signal.SIGKILL)  # tried again, without
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, "")
    assert out.count("without the warm parent") == 1
    assert parents(project)[0] == "fake_warm.py" and set(parents(project)[1:]) == {"fake_trainer.py"}


@pytest.mark.slow
def test_what_differs_in_more_than_its_own_variables_is_started_anew(project: Project) -> None:
    project.write(spec__rollout__pods={"env": [{"name": "HF_HOME", "value": "/models"}]})
    assert project.selfevo("run", "run.yaml").returncode == 0
    forked = {entry["step"]: entry["argv"] for entry in project.diary("start")}
    assert forked == {
        "challenger-train-1": "fake_warm.py",
        "solver-rollout-1": "fake_trainer.py",
        "solver-train-1": "fake_warm.py",
    }


# --- being stopped ----------------------------------------------------------------------------------------------------


COLD = pytest.mark.parametrize("cold", [[], ["--cold"]], ids=["warm", "cold"])


@pytest.mark.parametrize(
    ("number", "cold"),
    [
        (signal.SIGINT, []),
        pytest.param(signal.SIGINT, ["--cold"], marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, [], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ctrl_c_stops_at_a_checkpoint_and_the_same_command_goes_on(
    project: Project, number: signal.Signals, cold: list[str]
) -> None:
    project.order("solver-train-1", hang=True)
    process = project.start("run", "run.yaml", *cold)
    wait_for(lambda: "solver-train-1" in project.worked())
    process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (130, "")
    assert "stopping at the next checkpoint" in out
    assert (
        "Stopped, 2 of 3 steps done. Go on with:\n  " + " ".join(["selfevo_fake.py run run.yaml", *cold]) + "\n" in out
    )
    assert not any(alive(entry["pid"]) for entry in project.diary())
    status = project.recorded().status
    assert status is not None and status.phase == "Suspended"
    shown = project.invoke("status", "run.yaml").stdout
    assert shown.startswith("run default/demo: Stopped, 2 of 3 steps done (not being driven; `selfevo run` goes on)")
    assert re.search(r"solver-train-1 +Pending +[0-9.]+ s +1  stopped at a checkpoint\n", shown)

    project.order("solver-train-1")
    assert project.drive("run.yaml").returncode == 0
    assert project.worked() == [*STEPS, "solver-train-1"]


@pytest.mark.slow
@pytest.mark.parametrize("order", [{"hang": True, "then": 4}, {"exit": 4, "linger": True}], ids=["then", "linger"])
def test_a_failure_that_comes_while_it_stops_is_kept_as_what_it_is(project: Project, order: dict[str, object]) -> None:
    project.order("challenger-train-1", **order)
    process = project.start("run", "run.yaml")
    wait_for(lambda: project.diary("reported" if "linger" in order else "work"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 4
    assert err.startswith("selfevo: challenger-train-1: ordered to end with 4; order otherwise\n")
    status = project.recorded().status
    assert status is not None and status.phase == "Failed"
    assert [(a.exit_code, a.reason) for a in status.attempts] == [(4, "EmptyCurriculum")]


@pytest.mark.slow
def test_nohup_is_heeded(project: Project) -> None:
    project.order("challenger-train-1", seconds=1)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = project.start("run", "run.yaml")
    finally:
        signal.signal(signal.SIGHUP, ignored)
    wait_for(lambda: project.worked())
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=180)
    assert process.returncode == 0


@COLD
@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(project: Project, cold: list[str]) -> None:
    project.order("challenger-train-1", stubborn=True)
    process = project.start("run", "run.yaml", *cold)
    wait_for(lambda: project.worked())
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    assert process.returncode == 130
    assert not any(alive(entry["pid"]) for entry in project.diary())


@COLD
@pytest.mark.slow
def test_children_of_a_killed_command_end_and_nothing_is_lost(project: Project, cold: list[str]) -> None:
    project.order("solver-train-1", hang=True)
    process = project.start("run", "run.yaml", *cold)
    wait_for(lambda: "solver-train-1" in project.worked())
    process.kill()
    process.communicate(timeout=180)
    wait_for(lambda: not any(alive(entry["pid"]) for entry in project.diary()))
    status = project.recorded().status
    assert status is not None and status.phase == "Running"

    project.order("solver-train-1")
    done = project.selfevo("run", "run.yaml")
    assert done.returncode == 0
    assert project.worked() == [*STEPS, "solver-train-1"]
    status = project.recorded().status
    assert status is not None and all(step.failures == 0 for step in status.steps)


@pytest.mark.slow
def test_two_commands_for_one_run_are_distinguished(project: Project) -> None:
    project.order("challenger-train-1", hang=True)
    process = project.start("run", "run.yaml")
    wait_for(lambda: project.worked())
    second = project.selfevo("run", "run.yaml")
    assert second.returncode == 2
    assert second.stderr.startswith(f"selfevo: run default/demo is already being driven by process {process.pid} in ")
    assert len(second.stderr.splitlines()) == 1
    # Reading is allowed, and so is another run in the same workdir.
    shown = project.selfevo("status", "run.yaml")
    assert f"run default/demo: Running, 0 of 3 steps done (driven by process {process.pid})" in shown.stdout
    project.order("challenger-train-1")
    other = project.write("other.yaml", metadata__name="other", spec__seed=7)
    assert project.selfevo("run", other.name).returncode == 0
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)


# --- what is wrong from the start -------------------------------------------------------------------------------------


def test_an_unwritable_workdir_is_one_sentence(project: Project) -> None:
    (project.root / "file").write_text("")
    done = project.drive("run.yaml", "--workdir", "file/workdir")
    assert done.returncode == 2
    assert done.stderr == (
        f"selfevo: --workdir {project.root}/file/workdir cannot be written (Not a directory); "
        "name a folder that you may write\n"
    )


def test_what_is_not_built_yet_is_refused(project: Project) -> None:
    project.write(**unbuilt.ASKED)
    done = project.drive("run.yaml")
    assert (done.returncode, project.diary("start")) == (2, [])
    assert done.stderr == f"selfevo: {unbuilt.SENTENCE}\n"


@pytest.mark.slow
def test_a_foreign_manifest_under_a_key_is_refused(project: Project) -> None:
    project.drive("run.yaml")
    (place,) = (project.store / "default" / "challenger-train").glob("*/MANIFEST.json")
    content = json.loads(place.read_text())
    place.write_text(json.dumps({**content, "key": "f" * 64}))
    done = project.drive("run.yaml")
    assert done.returncode == 2
    assert "MANIFEST.json belongs to challenger-train ffffffffffff, not to challenger-train-1" in done.stderr
