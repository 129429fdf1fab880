"""What a report says of labels, and of the controls that a run has."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import RUBRIC, TRIAD, make_run
from selfevo.report.page import REASONS
from selfevo.report.payment import about_votes, controls
from selfevo.report.samples import samples_of
from selfevo_contract.judging import CheckedScoredQuestion
from selfevo_contract.rows import CurriculumRow
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


def test_scored_answers_are_no_answers_without_a_box() -> None:
    scored = CheckedScoredQuestion(question="fox bell", share=0.5, scores=(0.25, 0.75), spread=0.25, dropped=None)
    found = samples_of(1, [scored], [CurriculumRow(question="fox bell", answer="", share=0.5)], 2)
    assert [(sample.unboxed, sample.label, sample.votes) for sample in found.kept] == [(0, "", ())]
