"""Training on labelled data: what is learned, what is left out, and that a stop or a kill changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.inprocess import Phases, sigterm
from harness.nth_call import at_call
from harness.tiny import HELDOUT, recipe, settings, write_questions
from runs import arithmetic
from selfevo_contract.errors import ExitCode
from selfevo_contract.rows import METRICS
from selfevo_store import fetch_rows
from selfevo_trainer.answers.labelled import target, truth
from selfevo_trainer.inputs.labelled_data import READING

FINETUNE: dict[str, Any] = {
    "maxSteps": 4,
    "batch": 8,
    "perDeviceTrainBatchSize": 4,
    "learningRate": 3e-4,
    "checkpointEvery": 1,
}


def worked(count: int) -> list[dict[str, str]]:
    """Questions with answers that are worked by columns."""
    import random

    base, rng = recipe(), random.Random(7)
    taken = {base.normalise(question.text) for question in base.make_heldout()}
    found: list[dict[str, str]] = []
    while len(found) < count:
        question = base.draw_question(rng, 2)
        if base.normalise(question.text) not in taken:
            answer = f"{base.columns(question)}\\boxed{{{question.answer}}}"
            found.append({"question": question.text, "answer": answer})
    return found


def make(folder: Path, rows: Sequence[Any], over: dict[str, Any] | None = None) -> Phases:
    """The shipped base, labelled data of ``rows``, and four held-out questions."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "labelled.jsonl"
    data.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    finetune = {"data": {"uri": f"file://{data}"}, **FINETUNE, **(over or {})}
    spec = settings({"finetune": finetune}, questions=write_questions(folder / "heldout.jsonl", 4))
    return Phases(arithmetic(spec, store=folder / "store"), folder)


def updates(phases: Phases, step: str) -> list[dict[str, float]]:
    manifest = phases.manifest(step)
    assert manifest is not None
    rows = fetch_rows(phases.store, phases.prefix(step), manifest, METRICS)
    assert [(row.step, row.update) for row in rows] == [(n, n) for n in range(1, len(rows) + 1)]
    return [dict(row.metrics) for row in rows]


@pytest.mark.parametrize(
    ("kind", "answer", "learned", "compared"),
    [
        ("math", "1/2", r"\boxed{1/2}", "1/2"),
        ("math", r"As \boxed{3} is \boxed{4}, done.", r"As \boxed{3} is \boxed{4}, done.", "4"),
        ("number", "2 + 2 = 4\n#### 4", "2 + 2 = 4\n\\boxed{4}", "4"),
        ("number", "#### 1,018", r"\boxed{1,018}", "1,018"),
        ("choice", "B", r"\boxed{B}", "B"),
        ("choice", "neither", r"\boxed{neither}", None),
        ("text", "New York", r"\boxed{New York}", "New York"),
    ],
)
def test_an_answer_is_learned_with_a_box_and_compared_by_what_is_in_it(
    kind: str, answer: str, learned: str, compared: str | None
) -> None:
    assert (target(answer, kind), truth(answer, kind)) == (learned, compared)


@pytest.mark.slow
def test_supervised_training_learns_leaves_out_what_is_held_out_and_is_scored(tmp_path: Path) -> None:
    held_out = json.loads(HELDOUT.read_text().splitlines()[0])
    long = {"question": "1 + 1", "answer": "2" * 400}
    phases = make(tmp_path, [*worked(12), held_out, long])
    for step in ("evaluate-0", "finetune-0", "finetune-evaluate-0"):
        ended = phases(step)
        assert ended.code == 0
        read = [(line.done, line.total) for line in ended.progress if line.doing == READING]
        assert read == ([(0, 14), (14, 14)] if step == "finetune-0" else [])
    manifest = phases.manifest("finetune-0")
    assert manifest is not None
    counts = {name: manifest.metrics[name] for name in ("questions", "kept", "dropped_held_out", "dropped_too_long")}
    assert counts == {"questions": 14, "kept": 12, "dropped_held_out": 1, "dropped_too_long": 1}
    assert manifest.metrics["loss_last"] < manifest.metrics["loss_first"] < 1  # its own tokens, not letters of them
    assert {file.name for file in manifest.files} >= {"metrics.jsonl", "fingerprint.jsonl", "model/model.safetensors"}
    assert len(updates(phases, "finetune-0")) == 4
    scored = phases.manifest("finetune-evaluate-0")
    assert scored is not None and {"mean", "mean_gain", "mean_gain_stderr"} <= scored.metrics.keys()
    assert scored.parents["model"] == f"finetune/{manifest.key}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_sigterm_keeps_what_is_done_and_the_end_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from selfevo_trainer.grpo.dealing import DealingTrainer
    from selfevo_trainer.grpo.supervised import SupervisedTrainer

    rows = worked(10)
    undisturbed = make(tmp_path / "undisturbed", rows, {"kind": kind})
    assert undisturbed("finetune-0").code == 0
    trainer: Any = SupervisedTrainer if kind == "sft" else DealingTrainer
    at_call(monkeypatch, trainer, "training_step", 5, sigterm)  # of the passes, two an update and more for grpo
    phases = make(tmp_path / "stopped", rows, {"kind": kind})
    assert phases("finetune-0").code == int(ExitCode.TERMINATED)
    again = phases("finetune-0")
    assert again.code == 0 and again.result.resumed_from is not None, again.log
    assert phases.digests("finetune-0") == undisturbed.digests("finetune-0")
    assert not list(phases.store.list(f"{phases.prefix('finetune-0')}/checkpoints"))
    measured = "accuracy" if kind == "grpo" else "mean_token_accuracy"
    assert all(measured in row for row in updates(phases, "finetune-0"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "over", "sentence"),
    [
        ([], {}, "labelled.jsonl', which holds no rows; name a file with at least one"),
        (['{"question": "1 + 1"}\n'], {}, "whose line 1 has no column 'answer'; add it"),
        (["1 + 1 = 2\n"], {}, "whose line 1 is not JSON; write one object a line"),
        (
            [{"question": "1 + 1", "answer": "two"}],
            {"answers": "number"},
            "whose row 1 has the answer 'two', which is no number; correct it, or choose another kind in "
            "spec.finetune.answers",
        ),
        (
            [json.loads(line) for line in HELDOUT.read_text().splitlines()[:2]]
            + [{"question": "1", "answer": "1" * 99}],
            {},
            "and of its 3 rows none is left to train on: 2 repeat a held-out question and 1 are too long; name other "
            "data, or raise spec.solver.maxPromptLength or spec.solver.grpo.maxCompletionLength",
        ),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused_with_a_sentence(
    tmp_path: Path, rows: list[Any], over: dict[str, Any], sentence: str
) -> None:
    phases = make(tmp_path, rows, over)
    ended = phases("finetune-0")
    assert ended.code == int(ExitCode.INPUT)
    assert ended.result.message.startswith("spec.finetune.data.uri is 'file://") and sentence in ended.result.message
    assert phases.manifest("finetune-0") is None
