"""What a report says of labels, and of the controls that a run has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.runs import RUBRIC, TRIAD, make_run
from selfevo.report.collect import collect
from selfevo.report.page import REASONS
from selfevo.report.payment import about_votes, controls
from selfevo.report.samples import samples_of
from selfevo_contract.artifacts import ManifestDraft, step_prefix
from selfevo_contract.judging import QUESTIONS_SCORED, CheckedScoredQuestion
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.plan import plan
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_store import commit, open_store
from selfevo_trainer import curriculum

RANDOM = "with random labels (spec.rollout.labels: random)"
UNTRAINED = "with an untrained Challenger (spec.challenger.grpo.maxSteps: 0)"


@pytest.mark.parametrize(
    ("changes", "votes", "controlled"),
    [
        ({}, "the majority and becomes the label.", [RANDOM, UNTRAINED]),
        ({"spec__challenger__grpo__maxSteps": 0}, "the majority and becomes the label.", [RANDOM]),
        (
            {"spec__rollout__labels": "committee"},
            "becomes the label where the Solver of the iteration before has the same one.",
            [RANDOM, UNTRAINED],
        ),
        (
            {"spec__rollout__labels": "truth", "spec__rollout__oracle": {"kind": "arithmetic"}},
            "the majority, but labels are the truth in this run.",
            [RANDOM, UNTRAINED],
        ),
        (
            {"spec__solver__reward": {"mode": "confidence"}},
            "becomes the label; the Solver is paid without it (confidence).",
            ["paid by labels (spec.solver.reward.mode: code)", UNTRAINED],
        ),
        (
            TRIAD,
            "A judge scored the 4 sampled answers to each; there are no votes and no labels in this run.",
            ["with a frozen judge (spec.verifier.maxSteps: 0)", UNTRAINED],
        ),
        (RUBRIC, "there are no votes and no labels in this run.", [UNTRAINED]),
    ],
)
def test_labels_and_controls_are_those_of_the_run(changes: dict[str, Any], votes: str, controlled: list[str]) -> None:
    spec = make_run(**changes).spec
    assert about_votes(spec).endswith(votes) and controls(spec) == controlled


def test_every_reason_has_words() -> None:
    assert REASONS.keys() >= {*curriculum.COMMITTEE_REASONS, *curriculum.SCORED_REASONS}


@pytest.mark.parametrize("scores", [(0.25, 0.75), (0.0, 0.0), ()])
def test_scored_answers_are_no_answers_without_a_box(scores: tuple[float, ...], tmp_path: Path) -> None:
    share = sum(scores) / 2
    row = CheckedScoredQuestion(question="fox bell", share=share, scores=scores, dropped=None)
    kept = CurriculumRow(question="fox bell", answer="", share=share)
    found = samples_of(1, [row], [kept], 2)
    assert [(sample.unboxed, sample.label, sample.votes) for sample in found.kept] == [(0, "", ())]

    run = make_run(**TRIAD)
    steps = plan(run.spec)
    step = next(step for step in steps.steps if isinstance(step.inputs, SolverRolloutInputs))
    store = open_store((tmp_path / "store").as_uri())
    draft = ManifestDraft(
        key=step.key,
        phase=step.phase,
        iteration=1,
        attempt="a",
        metrics={},
        timings={},
        parents={},
        inputs=step.inputs.wire(),
        versions={},
    )
    files = {**QUESTIONS_SCORED.write(tmp_path, [row]), **CURRICULUM.write(tmp_path, [kept])}
    commit(store, step_prefix(run.metadata.namespace, step.phase, step.key), files, draft)
    [read] = collect(run, steps, store).samples
    assert read == found
