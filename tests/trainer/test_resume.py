"""A phase that was stopped, killed or broken goes on where its checkpoints end, and ends with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.curricula import give_curriculum
from harness.inprocess import Phases, crash, sigterm
from harness.nth_call import at_call
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import checkpoint_prefix
from selfevo_contract.errors import InputError
from selfevo_store import read_manifest

pytestmark = pytest.mark.slow

SOLVER: dict[str, Any] = {"solver": {"grpo": {"maxSteps": 5}, "checkpointEvery": 2}}
TRAIN = "solver-train-1"
KILLED: dict[str, Any] = {
    "iterations": 1,
    "challenger": {
        "grpo": {"maxSteps": 8, "promptsPerStep": 2, "perDeviceTrainBatchSize": 16},
        "reward": {"solverSamples": 4},
        "checkpointEvery": 1,
    },
    "rollout": {"questions": 100, "samples": 4, "band": {"min": 0.1, "max": 1.0}, "shards": 1},
    "solver": {
        "grpo": {"maxSteps": 10, "promptsPerStep": 4, "promptsPerUpdate": 2, "perDeviceTrainBatchSize": 16},
        "checkpointEvery": 1,
    },
    "evaluation": None,
    "grading": {"method": "exact"},
}

Digests = dict[str, str]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "heldout.jsonl", 4)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, questions: Path) -> Callable[[dict[str, Any], str], Phases]:
    """A phase to which nothing happens: computed once for each settings."""
    made: dict[str, Phases] = {}

    def phases_of(over: dict[str, Any], name: str) -> Phases:
        if repr((over, name)) not in made:
            phases = make(tmp_path_factory.mktemp("undisturbed"), questions, over)
            ended = phases(name)
            assert (ended.code, ended.result.resumed_from) == (0, None), ended.log
            made[repr((over, name))] = phases
        return made[repr((over, name))]

    return phases_of


@pytest.fixture
def undisturbed(done: Callable[[dict[str, Any], str], Phases]) -> Callable[[dict[str, Any], str], Digests]:
    """What it writes."""
    return lambda over, name: done(over, name).digests(name)


def make(folder: Path, questions: Path, over: dict[str, Any]) -> Phases:
    """The shipped base with a curriculum of its own."""
    phases = Phases(arithmetic(settings(over, questions=questions), store=folder / "store"), folder)
    give_curriculum(phases)
    return phases


@pytest.fixture
def at_batch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Makes something happen while the n-th batch of this process is paid, once."""

    def arrange(
        number: int, happen: Callable[[], None], module: str = "solver_rewards", reward: str = "SolverReward"
    ) -> None:
        import importlib

        kind = getattr(importlib.import_module(f"selfevo_trainer.{module}"), reward)
        at_call(monkeypatch, kind, "__call__", number, happen)

    yield arrange


def test_sigterm_in_training_saves_the_step_and_the_next_attempt_ends_with_the_same_bytes(
    tmp_path: Path, questions: Path, undisturbed: Any, at_batch: Any
) -> None:
    phases = make(tmp_path, questions, SOLVER)
    at_batch(4, sigterm)
    ended = phases(TRAIN)
    assert (ended.code, ended.result.outcome, ended.result.reason) == (143, "terminated", "Terminated")
    # Its completions are there, and are not paid.
    assert "in step 4 of 5; the checkpoint is committed" in ended.result.message and "Traceback" not in ended.log
    assert phases.checkpoints(TRAIN) == [2, 3]  # every second step, and where it was stopped
    assert phases.manifest(TRAIN) is None

    again = phases(TRAIN)
    assert (again.code, again.result.outcome, again.result.resumed_from) == (0, "committed", 3), again.log
    assert [line.done for line in again.progress if line.doing == "training"] == [3, 4, 5, 5]
    assert phases.digests(TRAIN) == undisturbed(SOLVER, TRAIN)
    assert phases.checkpoints(TRAIN) == [] == phases.objects(TRAIN, "checkpoints")


def test_sigterm_while_a_step_is_generated_keeps_the_parts_that_are_there(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation.utils import GenerationMixin

    over = {"solver": {**SOLVER["solver"], "grpo": {"maxSteps": 2, "generationBatchTokens": 300}}}
    real, parts, stop_at = GenerationMixin.generate, [], [0]

    def generates(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["generation_config"].do_sample:  # else it is the fingerprint's
            parts.append(len(kwargs["input_ids"]))
            if len(parts) == stop_at[0]:
                sigterm()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", generates)
    undisturbed = make(tmp_path / "undisturbed", questions, over)
    ended = undisturbed(TRAIN)
    assert ended.code == 0 and ended.result.metrics["reward_last"] > 0, ended.log  # it learns from parts
    in_all, of_a_step = list(parts), sum(parts) // 2
    first_step = next(n for n in range(len(in_all)) if sum(in_all[:n]) == of_a_step)
    assert len(in_all) - first_step > 4, in_all

    phases = make(tmp_path, questions, over)
    generated: list[int] = []
    for number, kept in ((first_step + 3, 2), (2, 3)):  # the second attempt begins with the third part
        parts.clear()
        stop_at[0] = number
        ended = phases(TRAIN)
        assert ended.code == 143 and "in step 2 of 2; the checkpoint is committed" in ended.result.message, ended.log
        assert f"checkpoints/00000001/generating/{kept:08d}/MANIFEST.json" in phases.objects(TRAIN, "checkpoints")
        generated += parts[:-1]
    parts.clear()
    stop_at[0] = 0
    again = phases(TRAIN)
    assert (again.code, again.result.resumed_from) == (0, 1), again.log
    assert generated + parts == in_all  # none twice
    assert phases.digests(TRAIN) == undisturbed.digests(TRAIN)


def test_a_crash_resumes_from_the_last_checkpoint_with_the_same_metrics(
    tmp_path: Path, questions: Path, undisturbed: Any, at_batch: Any
) -> None:
    import json

    phases = make(tmp_path, questions, SOLVER)
    at_batch(4, crash)
    ended = phases(TRAIN)
    assert (ended.code, ended.result.reason) == (3, "Crashed")
    assert ended.result.message == "OSError: the node lost its memory"
    assert phases.checkpoints(TRAIN) == [2]
    assert phases(TRAIN).result.resumed_from == 2
    assert phases.digests(TRAIN) == undisturbed(SOLVER, TRAIN)
    rows = [json.loads(line) for line in phases.read(TRAIN, "metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]


def test_a_checkpoint_holds_no_pickle_but_torchs_own_formats_which_are_opened_as_weights_only(
    tmp_path: Path, questions: Path, at_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    phases = make(tmp_path, questions, SOLVER)
    at_batch(4, crash)
    phases(TRAIN)
    manifest = read_manifest(phases.store, checkpoint_prefix(phases.prefix(TRAIN), 2))
    assert manifest is not None and (manifest.key, manifest.phase) == (phases.step(TRAIN).key, "solver-train")
    names = {file.name for file in manifest.files}
    assert "training_args.bin" not in names
    assert {name for name in names if not name.endswith((".json", ".jinja"))} == {
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
    }

    opened: list[bool] = []
    load = torch.load

    def watched(*args: Any, **kwargs: Any) -> Any:
        opened.append(kwargs.get("weights_only", True))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", watched)
    assert phases(TRAIN).result.resumed_from == 2
    assert len(opened) >= 3 and all(opened)


@pytest.mark.parametrize(
    ("damaged", "resumed_from"),
    [((4,), 3), ((3, 4), None)],
    ids=["the newest", "all"],
)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, questions: Path, undisturbed: Any, at_batch: Any, damaged: tuple[int, ...], resumed_from: int | None
) -> None:
    # How often checkpoints are taken is not in the key: the output is the same step's.
    phases = make(tmp_path, questions, {"solver": {**SOLVER["solver"], "checkpointEvery": 1}})
    at_batch(5, crash)
    phases(TRAIN)
    assert phases.checkpoints(TRAIN) == [3, 4]  # two are kept
    for step in damaged:
        prefix = checkpoint_prefix(phases.prefix(TRAIN), step)
        manifest = read_manifest(phases.store, prefix)
        assert manifest is not None
        file = manifest.file("optimizer.pt")
        assert file is not None
        path = tmp_path / "store" / prefix / file.path
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    ended = phases(TRAIN)
    assert (ended.code, ended.result.resumed_from) == (0, resumed_from), ended.log
    for step in damaged:
        assert f"the checkpoint of update {step} is passed over" in ended.log and "optimizer.pt" in ended.log
    assert phases.digests(TRAIN) == undisturbed(SOLVER, TRAIN)


def test_a_checkpoint_without_a_readable_manifest_is_damaged_too(
    tmp_path: Path, questions: Path, undisturbed: Any, at_batch: Any
) -> None:
    phases = make(tmp_path, questions, SOLVER)
    at_batch(4, crash)
    phases(TRAIN)
    prefix = checkpoint_prefix(phases.prefix(TRAIN), 2)
    phases.store.put_bytes(f"{prefix}/MANIFEST.json", b"{\x00")
    ended = phases(TRAIN)
    assert (ended.code, ended.result.resumed_from) == (0, None), ended.log
    assert "the checkpoint of update 2 is passed over" in ended.log
    assert phases.digests(TRAIN) == undisturbed(SOLVER, TRAIN)


def denied(store: Any, prefix: str, *_: Any, **__: Any) -> Any:
    if "/checkpoints/" not in prefix:
        return None  # the step's own address, where nothing lies yet
    raise InputError("storage.uri s3://x: access is denied; allow s3:GetObject", reason="StoreCredentials")


@pytest.mark.parametrize(
    ("manifest", "fails", "reason"),
    [
        ('{"schemaVersion": 99}', None, "ManifestTooNew"),
        (None, "selfevo_trainer.grpo.checkpoints.fetch", "StoreCredentials"),
        (None, "selfevo_trainer.context.read_own_manifest", "StoreCredentials"),
    ],
    ids=["newer", "files denied", "manifest denied"],
)
def test_a_checkpoint_that_may_not_be_read_is_an_error_and_stays(
    tmp_path: Path,
    questions: Path,
    at_batch: Any,
    monkeypatch: pytest.MonkeyPatch,
    manifest: str | None,
    fails: str | None,
    reason: str,
) -> None:
    phases = make(tmp_path, questions, SOLVER)
    at_batch(4, crash)
    phases(TRAIN)
    if manifest is not None:
        phases.store.put_bytes(f"{checkpoint_prefix(phases.prefix(TRAIN), 2)}/MANIFEST.json", manifest.encode())
    with monkeypatch.context() as patch:
        if fails is not None:
            patch.setattr(fails, denied)
        ended = phases(TRAIN)
    assert (ended.code, ended.result.reason) == (2, reason), ended.log
    assert phases.checkpoints(TRAIN) == [2] and phases.manifest(TRAIN) is None


def test_a_store_that_fails_is_no_reason_to_train_again(
    tmp_path: Path, questions: Path, at_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import selfevo_trainer.grpo.checkpoints
    from selfevo_contract.errors import ServiceError

    phases = make(tmp_path, questions, SOLVER)
    at_batch(4, crash)
    phases(TRAIN)

    def fails(*_: Any, **__: Any) -> None:
        raise ServiceError("storage.uri file:///x: the store failed; try again later")

    with monkeypatch.context() as patch:
        patch.setattr(selfevo_trainer.grpo.checkpoints, "fetch", fails)
        ended = phases(TRAIN)
    assert (ended.code, ended.result.reason) == (3, "ServiceFailed")
    assert phases.checkpoints(TRAIN) == [2] and phases.manifest(TRAIN) is None


def test_the_challenger_resumes_exactly_and_asks_the_frozen_solver_only_for_the_parts_that_are_missing(
    tmp_path: Path, questions: Path, done: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.grpo_trainer import GRPOTrainer

    from selfevo_trainer.phases import challenger_train

    name = "challenger-train-1"
    expected = done({}, name).outcome(name)  # first: with whole steps as parts
    phases = make(tmp_path, questions, {})
    generate, rate = GRPOTrainer._generate_single_turn, challenger_train.ChallengerReward._rate
    generated: list[int] = []
    asked: list[tuple[int, int]] = []

    def generates(self: Any, *args: Any) -> Any:
        generated.append(self.state.global_step)
        return generate(self, *args)

    def rates(self: Any, texts: Any, mine: list[int], update: int) -> Any:
        asked.extend((update, number) for number in mine)
        if len(generated) == 2 and len({number for of, number in asked if of == update}) > 4:  # in the third part
            sigterm()
        return rate(self, texts, mine, update)

    monkeypatch.setattr(challenger_train, "PART", 2)
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generates)
    monkeypatch.setattr(challenger_train.ChallengerReward, "_rate", rates)
    ended = phases(name)
    assert ended.code == 143 and "in step 2 of" in ended.result.message, ended.log
    (place,) = [key for key in phases.objects(name, "checkpoints") if key.endswith("generated/00000002/MANIFEST.json")]
    update = generated[1]
    kept = [number for of, number in asked if of == update][:4]
    assert place.startswith(f"checkpoints/{update:08d}/")
    generated.clear(), asked.clear()

    again = phases(name)
    assert (again.code, again.result.resumed_from) == (0, 1), again.log
    assert update not in generated and asked[0][0] == update
    assert not {number for of, number in asked if of == update} & set(kept)
    assert phases.outcome(name) == expected


@pytest.mark.parametrize("name", [TRAIN, "challenger-train-1", "evaluate-0", "solver-rollout-1"])
def test_sigterm_in_the_final_commit_lets_it_finish(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from selfevo_store.file import FileStore

    phases = make(tmp_path, questions, {"rollout": {"shards": 1}, "challenger": {"grpo": {"maxSteps": 1}}})
    if name == "solver-rollout-1":
        assert phases("challenger-train-1").code == 0
        phases.store.delete_prefix(phases.prefix(name))
    upload, moments = FileStore.upload_file, []

    def stopped(self: FileStore, path: Path, key: str) -> Any:
        if "/checkpoints/" not in key and "/chunks/" not in key and not moments:
            moments.append(key)
            sigterm()
        return upload(self, path, key)

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "upload_file", stopped)
        ended = phases(name)
    assert moments and (ended.code, ended.result.outcome) == (0, "committed"), ended.log
    assert phases.manifest(name) is not None and phases.objects(name, "checkpoints") == []


def test_nothing_happens_between_the_last_step_and_the_commit(
    tmp_path: Path, questions: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    from selfevo_trainer.context import Context

    grader = Context.grader

    @contextlib.contextmanager
    def breaks_at_its_end(self: Context, grading: Any) -> Iterator[Any]:
        with grader(self, grading) as opened:
            yield opened
        crash()

    expected = undisturbed(SOLVER, TRAIN)  # first: it may have to be made, and not with what is put in next
    phases = make(tmp_path, questions, SOLVER)
    monkeypatch.setattr(Context, "grader", breaks_at_its_end)
    assert phases(TRAIN).code == 3
    assert phases(TRAIN).result.outcome == "found"
    assert phases.digests(TRAIN) == expected


@pytest.mark.parametrize("name", ["evaluate-0", "solver-rollout-1"])
def test_sigterm_where_nothing_can_be_saved_ends_at_once(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from selfevo_trainer.engines.transformers_engine import TransformersEngine

    phases = Phases(
        arithmetic(
            settings({"challenger": {"grpo": {"maxSteps": 0}}, "rollout": {"shards": 1}}, questions=questions),
            store=tmp_path / "store",
        ),
        tmp_path,
    )
    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "generate", lambda *_, **__: sigterm())
        ended = phases(name)
    assert (ended.code, ended.result.outcome, ended.result.reason) == (143, "terminated", "Terminated")
    assert "Traceback" not in ended.log and "stopped on request" in ended.result.message
    assert phases.objects(name) == [] and list((tmp_path / "work").iterdir()) == []
    assert phases(name).result.outcome == "committed"


def test_sigterm_while_a_model_is_loaded_is_not_taken_for_a_broken_model(
    tmp_path: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    phases = make(tmp_path, questions, SOLVER)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: sigterm())
    assert [phases(name).code for name in (TRAIN, "evaluate-0")] == [143, 143]


def test_kills_at_random_moments_of_a_whole_run_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kill

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(kill, "SMALL", KILLED)
    monkeypatch.setattr(kill, "ROLLOUT_KILLS", 2)
    # The server that forks imports torch when it is first asked: no phase's time, by which kills are spread.
    kill.preload()
    first = kill._FORKSERVER.Process(target=int)
    first.start()
    first.join()
    # With this seed one run takes all the kills, and each training some after its first checkpoints.
    result = kill.measure(kills=8, seed=3778, folder=tmp_path, say=lambda _: None)
    assert result["kills"] == 8
    assert result["attempts_resumed_from_a_checkpoint"] >= 1
    assert result["files_compared"] >= 14 and result["files_different"] == []
