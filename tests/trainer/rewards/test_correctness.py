"""The Solver's reward."""

from __future__ import annotations

from typing import get_args

import pytest

from selfevo_contract.spec.challenger import ChallengerReward
from selfevo_contract.spec.solver import SolverReward
from selfevo_trainer.rewards import MODES, solver_reward


@pytest.mark.parametrize(
    ("mode", "correct", "boxed", "reward"),
    [
        ("paper", True, True, 1.0),
        ("paper", False, True, 0.0),
        ("paper", False, False, 0.0),
        ("code", True, True, 1.0),
        ("code", False, True, 0.1),
        ("code", False, False, 0.0),
    ],
)
def test_table(mode, correct, boxed, reward):
    value = solver_reward(mode, correct=correct, boxed=boxed)
    assert isinstance(value, float)
    assert value == pytest.approx(reward)


def test_correct_without_a_box_is_an_error():
    with pytest.raises(ValueError, match="without a box"):
        solver_reward("paper", correct=True, boxed=False)


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="'papers' is unknown"):
        solver_reward("papers", correct=True, boxed=True)


def test_the_modes_of_a_manifest_are_those_of_the_registry():
    challengers = tuple(name for name, mode in MODES.items() if mode.challenger is not None)
    assert get_args(ChallengerReward.model_fields["mode"].annotation) == challengers
    assert get_args(SolverReward.model_fields["mode"].annotation) == tuple(MODES)
