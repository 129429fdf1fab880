"""verifier-train that was stopped or killed goes on with the answers, the pairs and the checkpoint that it kept, and
ends with the same bytes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases, crash, sigterm
from harness.nth_call import at_call
from harness.triad import Triad, through
from selfevo_contract.artifacts import MANIFEST_NAME, before_prefix
from selfevo_contract.errors import ServiceError
from selfevo_contract.judging import PAIRS, PairRow
from selfevo_store import new_write_id, read_manifest
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.anchors import Anchor, Anchors
from selfevo_trainer.pairs.writing import KeptWriter
from selfevo_trainer.process.signals import StopRequest

pytestmark = pytest.mark.slow

STEP = "verifier-train-1"
TRAINED: dict[str, Any] = {"maxSteps": 4, "learningRate": 1e-3, "checkpointEvery": 1}


@pytest.fixture(scope="module")
def done(triad: Triad) -> dict[str, Any]:
    """What the training makes when nothing happens to it."""
    phases = triad.variant(**TRAINED)
    through(phases, STEP)
    return phases.outcome(STEP)


@pytest.fixture
def phases(triad: Triad, done: dict[str, Any]) -> Phases:
    """The same, to be done again."""
    made = triad.variant(**TRAINED)
    made.store.delete_prefix(made.prefix(STEP))
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the roles were asked to write for."""
    from selfevo_trainer.pairs.writing import EngineWriter

    uses: list[str] = []
    real = EngineWriter.__call__

    def writes(self: EngineWriter, questions: Any, use: str) -> list[str]:
        uses.append(use)
        return real(self, questions, use)

    monkeypatch.setattr(EngineWriter, "__call__", writes)
    return uses


def at_pass(monkeypatch: pytest.MonkeyPatch, number: int, happen: Callable[[], None]) -> None:
    from selfevo_trainer.judges.train import JudgeTrainer

    at_call(monkeypatch, JudgeTrainer, "training_step", number, happen)


def kept(phases: Phases) -> set[str]:
    """What is kept of what was made before the training."""
    found = [key.split("/") for key in phases.objects(STEP, "checkpoints/before") if key.endswith(MANIFEST_NAME)]
    return {each[2] for each in found}


def test_a_judges_training_is_stopped_twice_and_killed(
    done: dict[str, Any], phases: Phases, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfevo_trainer.engines.transformers_engine import TransformersEngine

    with monkeypatch.context() as patch:
        at_call(patch, TransformersEngine, "generate", 2, sigterm)  # after the anchors, while tasks are answered
        ended = phases(STEP)
    assert (ended.code, ended.result.outcome) == (143, "terminated"), ended.log
    assert (asked, kept(phases)) == (["anchors", "answers"], {"solver-anchors"})

    with monkeypatch.context() as patch:
        at_pass(patch, 2, sigterm)
        ended = phases(STEP)
    assert ended.code == 143 and "Traceback" not in ended.log
    assert ended.result.message == "stopped on request after step 2 of 4; the checkpoint is committed"
    assert (asked, kept(phases)) == (["anchors", "answers", "answers"], {"solver-anchors", "solver-answers", "pairs"})

    with monkeypatch.context() as patch:
        at_pass(patch, 2, crash)
        ended = phases(STEP)
    assert (ended.code, ended.result.reason) == (3, "Crashed")
    assert phases.checkpoints(STEP) == [2, 3]

    again = phases(STEP)
    assert (again.code, again.result.outcome, again.result.resumed_from) == (0, "committed", 3), again.log
    assert [line.done for line in again.progress if line.doing == "training"] == [3, 4, 4]
    assert len(asked) == 3  # nothing is written again
    assert phases.outcome(STEP) == done
    assert phases.objects(STEP, "checkpoints") == []


def test_pairs_that_are_damaged_are_made_again_and_trained_on_from_the_beginning(
    done: dict[str, Any], phases: Phases, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_pass(patch, 3, crash)
        assert phases(STEP).code == 3
    assert phases.checkpoints(STEP)
    place = before_prefix(phases.prefix(STEP), "pairs")
    manifest = read_manifest(phases.store, place)
    assert manifest is not None
    file = manifest.file(PAIRS.name)
    assert file is not None
    path = Path(phases.run.spec.storage.uri.removeprefix("file://")) / place / file.path
    path.write_bytes(path.read_bytes()[:-1])
    again = phases(STEP)
    assert (again.code, again.result.resumed_from) == (0, None), again.log
    assert "what was kept of pairs is passed over and made again" in again.log and asked == ["anchors", "answers"]
    assert phases.outcome(STEP) == done


def test_what_was_kept_is_not_used_with_other_anchors(
    triad: Triad, phases: Phases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their digest is not in the spec, so that the step's key stays."""
    with monkeypatch.context() as patch:
        at_pass(patch, 3, crash)
        assert phases(STEP).code == 3
    assert phases.checkpoints(STEP) and kept(phases) == {"solver-anchors", "solver-answers", "pairs"}
    anchors = triad.anchors.read_text()
    try:
        fewer = anchors.splitlines()[:-6]
        triad.anchors.write_text("".join(f"{line}\n" for line in fewer))
        again = phases(STEP)
        assert (again.code, again.result.resumed_from) == (0, None), again.log
        assert "what was kept of pairs is passed over and made again: spec.verifier.anchors.data had other" in again.log
        made, pairs = phases.outcome(STEP), phases.rows(STEP, PAIRS)
        phases.store.delete_prefix(phases.prefix(STEP))
        through(phases, STEP)
        assert phases.outcome(STEP) == made
        phases.store.delete_prefix(phases.prefix(STEP))
        known = [{"question": row["question"], "chosen": "a", "rejected": "b"} for row in pairs if not row["dropped"]]
        triad.anchors.write_text("".join(f"{line}\n" for line in [*fewer, *map(json.dumps, known)]))
        ended = phases(STEP)
        assert ended.code == 2 and "of which a pair to train on is made" in ended.result.message
        assert phases.objects(STEP) == []
    finally:
        triad.anchors.write_text(anchors)


def test_a_disk_too_small_for_a_judges_checkpoint_is_refused_before_anything_is_written(
    phases: Phases, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
    for each, step in ((phases, STEP), (Triad(tmp_path).variant(), "verifier-train-0")):
        ended = each(step)
        assert (ended.code, ended.result.reason) == (2, "DiskTooSmall"), ended.log
        assert "on a disk of 1e-08 GB, and a checkpoint of verifier-train takes" in ended.result.message
        assert each.objects(step) == asked == []


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[tuple[Context, Context]]:
    """Two of one step at the same time."""
    phases = Triad(tmp_path).variant()

    def attempt() -> Context:
        context = Context.create(phases.config(STEP), phases.store, StopRequest(), None, time.time())
        context.workdir = tmp_path / f"work-{new_write_id()}"
        return context

    yield attempt(), attempt()


def test_of_two_attempts_both_go_on_with_the_answers_of_the_faster(attempts: tuple[Context, Context]) -> None:
    slow, fast = attempts

    def faster(questions: Sequence[str], use: str) -> list[str]:
        return [f"{question}, fast" for question in questions]

    def slower(questions: Sequence[str], use: str) -> list[str]:
        assert KeptWriter(fast, "solver", faster)(questions, use) == ["a, fast", "b, fast"]
        return [f"{question}, slow" for question in questions]

    assert KeptWriter(slow, "solver", slower)(["a", "b"], "answers") == ["a, fast", "b, fast"]

    def others(questions: Sequence[str], use: str) -> list[str]:
        KeptWriter(fast, "solver", faster)(["c"], use)
        return slower(questions, "other")

    with pytest.raises(ServiceError, match="has just kept of solver-swapped is gone or cannot be used; try again"):
        KeptWriter(slow, "solver", others)(["a", "b"], "swapped")
    assert KeptWriter(slow, "solver", faster)(["a", "b"], "swapped") == ["a, fast", "b, fast"]


def test_of_two_attempts_both_go_on_with_the_pairs_of_the_faster(
    attempts: tuple[Context, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfevo_trainer.phases import verifier_train

    slow, fast = attempts
    inputs: Any = slow.config.inputs
    anchors = Anchors((), (Anchor("q", "a", "b"),))

    def prepared(context: Context) -> Any:
        return verifier_train.prepared(context, inputs, inputs.judge, verifier_train.Tasks({}, 4), anchors)

    def judged(context: Context, *_: Any) -> Any:
        if context is slow:
            prepared(fast)
        name = "slow" if context is slow else "fast"
        sealed = [verifier_train.anchor_row(each) for each in anchors.sealed]
        return [PairRow(question="t", chosen=name, rejected="b", maker="swap")], sealed

    monkeypatch.setattr(verifier_train, "write_pairs", lambda *_: None)
    monkeypatch.setattr(verifier_train, "judged_before", judged)
    rows, sealed = prepared(slow)
    assert ([row.chosen for row in rows], [row.question for row in sealed]) == (["fast"], ["q"])


def test_a_head_that_begins_with_an_adapter_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "verifier-train-0"
    lora = {"rank": 4, "dropout": 0.1}
    phases = Triad(tmp_path).variant(lora=lora, head={"maxSteps": 3, "learningRate": 1e-2}, checkpointEvery=1)
    through(phases, name)
    made = phases.outcome(name)
    phases.store.delete_prefix(phases.prefix(name))
    with monkeypatch.context() as patch:
        at_pass(patch, 2, sigterm)
        ended = phases(name)
    assert ended.code == 143, ended.log
    again = phases(name)
    assert (again.code, again.result.resumed_from) == (0, 2), again.log
    assert phases.outcome(name) == made
