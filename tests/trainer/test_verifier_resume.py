"""verifier-train that was stopped or killed goes on with the answers, the pairs and the checkpoint that it kept, and
ends with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases, crash, sigterm
from harness.nth_call import at_call
from harness.triad import Triad, through
from selfevo_contract.artifacts import MANIFEST_NAME, before_prefix
from selfevo_contract.judging import PAIRS
from selfevo_store import read_manifest

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
