"""What a report says of labels, and of the controls that a run has."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import RUBRIC, TRIAD, make_run
from selfevo.report.payment import about_votes, controls

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
