"""Checkpoints beside the training: what is on its way, what is still saved when time is short, what is never lost."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import Phases, crash, sigterm
from harness.nth_call import at_call
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import COMPLETIONS, checkpoint_prefix
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.process import GRACE_SECONDS_ENV
from selfevo_store import read_manifest
from selfevo_store.file import FileStore

pytestmark = pytest.mark.slow

TRAIN = "solver-train-1"
# A step has four updates, each of two passes.
GRPO: dict[str, Any] = {
    "maxSteps": 3,
    "promptsPerStep": 4,
    "promptsPerUpdate": 2,
    "numIterations": 2,
    "numGenerations": 4,
    "perDeviceTrainBatchSize": 4,
}
PASSES, UPDATES = 24, 12
LONG = 120.0
"""No wait of a healthy test takes that long."""


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "heldout.jsonl", 4)


def make(folder: Path, questions: Path, every: int | str) -> Phases:
    over = {"solver": {"grpo": GRPO, "checkpointEvery": every}}
    phases = Phases(arithmetic(settings(over, questions=questions), store=folder / "store"), folder)
    give_curriculum(phases)
    return phases


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, questions: Path) -> dict[str, Any]:
    phases = make(tmp_path_factory.mktemp("undisturbed"), questions, "24h")
    ended = phases(TRAIN)
    assert ended.code == 0, ended.log
    return phases.outcome(TRAIN)


def kept(phases: Phases, place: str = "completions") -> list[int]:
    """Updates whose step's completions are committed."""
    pattern = rf"checkpoints/(\d+)/{place}/MANIFEST.json"
    found = (re.fullmatch(pattern, key) for key in phases.objects(TRAIN, "checkpoints"))
    return sorted(int(match[1]) for match in found if match)


def at_pass(monkeypatch: pytest.MonkeyPatch, number: int, happen: Callable[[], None]) -> None:
    """Makes something happen before the n-th forward and backward pass, once."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    at_call(monkeypatch, GRPOTrainer, "training_step", number, happen)


def generations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each step whose completions are generated."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    real, seen = GRPOTrainer._generate_single_turn, []

    def generate(self: Any, *args: Any) -> Any:
        seen.append(self.state.global_step)
        return real(self, *args)

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generate)
    return seen


def at_scoring(monkeypatch: pytest.MonkeyPatch, number: int, happen: Callable[[], None]) -> None:
    """Makes something happen when the n-th step's completions are to be paid, once."""
    from selfevo_trainer.solver_rewards import SolverReward

    at_call(monkeypatch, SolverReward, "__call__", number, happen)


def uploads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each is done when training goes on."""
    from selfevo_trainer.grpo.uploads import Uploads

    start = Uploads.start

    def at_once(self: Any, upload: Any) -> None:
        start(self, upload)
        self.wait()

    monkeypatch.setattr(Uploads, "start", at_once)


def on_upload(monkeypatch: pytest.MonkeyPatch, happen: Callable[[str], None]) -> None:
    """Makes something happen before a file of a checkpoint is uploaded."""
    real = FileStore.upload_file

    def upload(self: FileStore, path: Path, key: str) -> Any:
        if "/checkpoints/" in key:
            happen(key)
        return real(self, path, key)

    monkeypatch.setattr(FileStore, "upload_file", upload)


@pytest.mark.parametrize("moment", [1, 4, 9, 13, 24])
def test_sigterm_at_a_pass_loses_no_update_and_no_completion(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    phases = make(tmp_path, questions, "24h")
    on_upload(monkeypatch, lambda _: time.sleep(0.05))  # a slow store
    with monkeypatch.context() as patch:
        # Generation comes within a pass: before the first of a step a request keeps it from beginning.
        at_pass(patch, moment, sigterm)
        ended = phases(TRAIN, environment={GRACE_SECONDS_ENV: "600"})
    first_of_step = moment % 8 == 1
    updates = moment // 2
    assert (ended.code, ended.result.reason) == (143, "Terminated") if moment < PASSES else ended.code == 0, ended.log
    if moment < PASSES:
        assert phases.checkpoints(TRAIN) == ([updates] if updates else []) or not first_of_step
        assert max(phases.checkpoints(TRAIN), default=0) == updates
        seen = generations(monkeypatch)
        again = phases(TRAIN)
        assert (again.code, again.result.outcome) == (0, "committed"), again.log
        # Each step that was generated before is not again.
        assert len(seen) == 3 - updates // 4 - (not first_of_step and moment % 8 != 0)
    assert phases.outcome(TRAIN) == undisturbed
    assert phases.objects(TRAIN, "checkpoints") == []


def test_generation_ends_at_once(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation.utils import GenerationMixin

    phases = make(tmp_path, questions, 1)
    real, tokens = GenerationMixin._sample, []
    calls: list[int] = []

    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # the probe's, the first step's, the second's
            forward = self.forward

            def one_token(*a: Any, **k: Any) -> Any:
                tokens.append(1)
                if len(tokens) == 2:
                    sigterm()
                return forward(*a, **k)

            monkeypatch.setattr(self, "forward", one_token)
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(GenerationMixin, "_sample", sample)
        ended = phases(TRAIN)
    assert (ended.code, len(tokens)) == (143, 2), ended.log
    assert "after step 1 of 3; the checkpoint is committed" in ended.result.message
    again = phases(TRAIN)
    assert (again.code, again.result.resumed_from) == (0, 1), again.log
    assert phases.outcome(TRAIN) == undisturbed


def test_training_goes_on_while_a_checkpoint_is_on_its_way(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = make(tmp_path, questions, "1ms")
    at_last = threading.Event()
    waited: list[bool] = []
    uploads: set[str] = set()

    def hold(key: str) -> None:
        uploads.add(key.split("/checkpoints/")[1].split("/")[0])
        waited.append(at_last.wait(LONG))

    on_upload(monkeypatch, hold)
    at_pass(monkeypatch, PASSES, at_last.set)
    ended = phases(TRAIN)
    assert ended.code == 0 and waited and all(waited), ended.log
    assert len(uploads) == 1  # one at a time, and the last pass was made meanwhile
    assert phases.outcome(TRAIN) == undisturbed


def test_by_time_a_checkpoint_lies_within_a_step_and_its_completions_are_not_made_again(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = make(tmp_path, questions, "1ms")
    with monkeypatch.context() as patch:
        uploads_at_once(patch)  # so that one is taken after each update
        at_pass(patch, 14, crash)
        ended = phases(TRAIN)
    assert (ended.code, ended.result.reason) == (3, "Crashed"), ended.log
    # The newest two, and the newest between two steps.
    assert phases.checkpoints(TRAIN) == [4, 5, 6] and {5, 6} <= set(kept(phases))
    seen = generations(monkeypatch)
    again = phases(TRAIN)
    assert (again.code, again.result.resumed_from, seen) == (0, 1, [8]), again.log
    assert phases.outcome(TRAIN) == undisturbed


@pytest.mark.parametrize(
    ("every", "step", "happen"),
    [("24h", 1, sigterm), (1, 2, crash), ("1ms", 1, crash)],
    ids=["asked", "killed, by steps", "killed, by time"],
)
def test_completions_that_were_generated_and_not_scored_are_not_generated_again(
    tmp_path: Path,
    questions: Path,
    undisturbed: Any,
    monkeypatch: pytest.MonkeyPatch,
    every: int | str,
    step: int,
    happen: Callable[[], None],
) -> None:
    phases = make(tmp_path, questions, every)
    update = 4 * (step - 1)
    with monkeypatch.context() as patch:
        uploads_at_once(patch)
        at_scoring(patch, step, happen)
        ended = phases(TRAIN)
    assert ended.result.reason == ("Terminated" if happen is sigterm else "Crashed"), ended.log
    if happen is sigterm:
        assert f"in step {step} of 3; the checkpoint is committed" in ended.result.message
    assert max(phases.checkpoints(TRAIN)) == max(kept(phases, "generated/00000000")) == update not in kept(phases)
    seen = generations(monkeypatch)
    again = phases(TRAIN)
    assert (again.code, again.result.resumed_from) == (0, step - 1), again.log
    assert seen == [4 * later for later in range(step, 3)]
    assert phases.outcome(TRAIN) == undisturbed


@pytest.mark.parametrize("damaged", ["completions", "state"])
def test_a_checkpoint_within_a_step_that_is_damaged_is_passed_over_for_one_between_steps(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    phases = make(tmp_path, questions, 1)
    with monkeypatch.context() as patch:
        at_pass(patch, 14, sigterm)
        assert phases(TRAIN).code == 143
    assert phases.checkpoints(TRAIN) == [4, 7]
    name = "completions-0.safetensors" if damaged == "completions" else "optimizer.pt"
    (key,) = [key for key in phases.objects(TRAIN, "checkpoints/00000007") if key.endswith(name)]
    path = tmp_path / "store" / phases.prefix(TRAIN) / key
    path.write_bytes(b"x" + path.read_bytes()[1:] if damaged == "state" else b"")
    again = phases(TRAIN)
    assert (again.code, again.result.resumed_from) == (0, 1), again.log
    assert "of update 7" in again.log and "passed over" in again.log
    assert phases.outcome(TRAIN) == undisturbed


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ServiceError("storage.uri file:///x: the store failed; try again later"), 3, "ServiceFailed"),
        (InputError("storage.uri file:///x: access is denied", reason="StoreCredentials"), 2, "StoreCredentials"),
        (OSError(28, "No space left on device"), 3, "DiskFull"),
    ],
    ids=["service", "denied", "disk"],
)
@pytest.mark.parametrize("when", ["at the next update", "at the end", "when stopped"])
def test_an_upload_that_failed_is_reported_with_its_own_exit_code(
    tmp_path: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    reason: str,
    when: str,
) -> None:
    phases = make(tmp_path, questions, 1 if when != "at the end" else 2)
    may_fail = threading.Event()

    def fails(_: str) -> None:
        assert may_fail.wait(LONG)
        raise error

    on_upload(monkeypatch, fails)
    passes = generations(monkeypatch)
    at_pass(monkeypatch, {"at the next update": 9, "at the end": PASSES, "when stopped": 10}[when], may_fail.set)
    if when == "when stopped":
        at_pass(monkeypatch, 10, sigterm)
    ended = phases(TRAIN)
    assert (ended.code, ended.result.reason) == (code, reason), ended.log
    assert phases.manifest(TRAIN) is None and phases.checkpoints(TRAIN) == []
    if when == "at the next update":
        assert len(passes) == 2  # training has not gone on to its end


def test_what_does_not_fit_into_the_grace_is_left_and_the_process_ends_within_it(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = make(tmp_path, questions, 1)
    for_ever = threading.Event()
    with monkeypatch.context() as patch:
        # The first checkpoint is committed, the second one's upload takes for ever.
        on_upload(patch, lambda key: "/00000008/" in key and for_ever.wait(LONG))
        at_pass(patch, 20, sigterm)
        begun = time.monotonic()
        asked: list[float] = []
        at_pass(patch, 20, lambda: asked.append(time.monotonic()))
        ended = phases(TRAIN, environment={GRACE_SECONDS_ENV: "3"})
        spent = time.monotonic() - (asked[0] if asked else begun)
        for_ever.set()
    assert (ended.code, ended.result.reason) == (143, "Terminated"), ended.log
    assert spent < LONG / 2 and "raise pods.terminationGracePeriodSeconds" in ended.result.message
    wait_for_uploads()
    again = phases(TRAIN)
    assert again.code == 0 and again.result.resumed_from in (1, 2), again.log
    assert phases.outcome(TRAIN) == undisturbed


def test_whether_a_state_fits_into_the_grace_is_not_judged_by_an_upload_of_completions_alone(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfevo_trainer.grpo import checkpoints

    phases = make(tmp_path, questions, 1)
    save = checkpoints.save
    # So fast that at the rate of its step's completions, which are uploaded last, it would take days.
    monkeypatch.setattr(checkpoints, "save", lambda *args: save(*args) * 10**6)
    uploads_at_once(monkeypatch)
    at_pass(monkeypatch, 14, sigterm)
    ended = phases(TRAIN, environment={GRACE_SECONDS_ENV: "600"})
    assert ended.code == 143 and "the checkpoint is committed" in ended.result.message, ended.log
    assert "no checkpoint is taken now" not in ended.log
    assert phases.checkpoints(TRAIN) == [4, 7] and 4 in kept(phases)


def as_of_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions are named as the second of two processes names its own."""
    from selfevo_trainer.grpo import completions

    names = completions.completion_files
    monkeypatch.setattr(completions, "completion_files", lambda process: names(process + 1))


@pytest.mark.parametrize("within", [False, True], ids=["between steps", "within a step"])
def test_completions_of_another_number_of_processes_give_way_to_those_of_this_attempt(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    phases = make(tmp_path, questions, 1)

    def stops_in_step_2(patch: pytest.MonkeyPatch, first_step: int) -> None:
        uploads_at_once(patch)
        if within:
            at_pass(patch, 14 - 8 * (first_step - 1), sigterm)
        else:
            at_scoring(patch, 3 - first_step, sigterm)
        ended = phases(TRAIN)
        assert ended.code == 143 and "in step 2 of 3; the checkpoint is committed" in ended.result.message, ended.log

    with monkeypatch.context() as patch:
        as_of_two_processes(patch)
        stops_in_step_2(patch, first_step=1)
    with monkeypatch.context() as patch:
        stops_in_step_2(patch, first_step=2)
    seen = generations(monkeypatch)
    again = phases(TRAIN)
    assert (again.code, again.result.resumed_from, seen) == (0, 1, [8]), again.log
    assert phases.outcome(TRAIN) == undisturbed


def test_completions_whose_state_was_not_committed_are_not_kept_beside_that_of_another_attempt(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = make(tmp_path, questions, 1)
    write_ids: list[str] = []
    for fails in (True, False):
        with monkeypatch.context() as patch:
            if fails:
                on_upload(patch, lambda key: crash() if "/00000003/" in key and "optimizer" in key else None)
            at_pass(patch, 6, sigterm)
            assert phases(TRAIN).code == (3 if fails else 143)
        assert kept(phases) == [3] and phases.checkpoints(TRAIN) == ([] if fails else [3])
        made = read_manifest(phases.store, f"{checkpoint_prefix(phases.prefix(TRAIN), 3)}/{COMPLETIONS}")
        assert made is not None
        write_ids.append(made.write_id)
    assert len(set(write_ids)) == 2


def wait_for_uploads() -> None:
    """In a process of its own it would have ended."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(LONG)


def test_a_grace_that_is_too_short_for_a_checkpoint_is_reported_by_what_was_measured(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from selfevo_contract.sizing.grace import too_short
    from selfevo_trainer.grpo import checkpointer
    from selfevo_trainer.inputs import room

    phases = make(tmp_path, questions, 1)
    on_upload(monkeypatch, lambda key: "optimizer" in key and time.sleep(1))
    sizes: list[float] = []

    def slow_too_short(grace: float, size: float, rate: float = 1e5, **how: Any) -> str | None:
        sizes.append(size)
        return too_short(grace, size, rate, **how)

    for asking in (room, checkpointer):
        monkeypatch.setattr(asking, "too_short", slow_too_short)
    ended = phases(TRAIN, environment={GRACE_SECONDS_ENV: "1"})
    assert ended.code == 0
    assert sizes[-1] == pytest.approx(sizes[0], rel=0.05)  # as large as the preflight expects it
    assert len(re.findall(r"a checkpoint of 0\.00 GB takes \d+ s to upload at 0.0001 GB/s", ended.log)) == 1, ended.log
    assert "to upload as the last one did, and pods.terminationGracePeriodSeconds is 1:" in ended.log
    assert logging.getLogger("selfevo").level == logging.NOTSET
