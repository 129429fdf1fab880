"""The Challenger's reward, by the table in docs/method.md."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfevo_trainer.rewards import ChallengerReward, challenger_rewards
from selfevo_trainer.rewards.code import uncertainty as uncertainty_code
from selfevo_trainer.rewards.paper import uncertainty as uncertainty_paper

SHARES = st.none() | st.floats(0, 1)
REPETITION = st.floats(0, 1)


@pytest.mark.parametrize(
    ("p", "paper", "code"),
    [(0.0, 0.0, 0.0), (0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.75, 0.5, 0.25), (1.0, 0.0, 0.0), (0.125, 0.25, 0.125)],
)
def test_uncertainty(p, paper, code):
    assert (uncertainty_paper(p), uncertainty_code(p)) == (paper, code)


@given(st.floats(0, 1))
def test_uncertainty_is_symmetric_and_the_papers_is_twice_the_codes(p):
    assert uncertainty_paper(p) == pytest.approx(uncertainty_paper(1 - p))
    assert uncertainty_paper(p) == pytest.approx(2 * uncertainty_code(p))
    assert 0 <= uncertainty_paper(p) <= 1


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_an_error(p):
    with pytest.raises(ValueError, match="outside"):
        uncertainty_paper(p)
    with pytest.raises(ValueError, match="outside"):
        uncertainty_code(p)


@pytest.mark.parametrize(
    ("mode", "share", "repetition", "weight", "expected"),
    [
        ("paper", 0.5, 0.25, 1.0, ChallengerReward(1.0, 0.25, 0.75, valid=True)),
        ("paper", 1.0, 0.25, 1.0, ChallengerReward(0.0, 0.25, 0.0, valid=True)),  # no less than 0
        ("paper", 0.5, 0.25, 2.0, ChallengerReward(1.0, 0.5, 0.5, valid=True)),
        ("paper", None, 0.25, 1.0, ChallengerReward(0.0, 0.25, 0.0, valid=False)),
        ("code", 0.5, 0.25, 1.0, ChallengerReward(0.5, 0.25, 0.25, valid=True)),
        ("code", 1.0, 0.25, 1.0, ChallengerReward(0.0, 0.25, -0.25, valid=True)),  # less than 0
        ("code", None, 0.25, 1.0, ChallengerReward(0.0, 0.25, -1.25, valid=False)),
        ("code", 0.5, 0.25, 0.0, ChallengerReward(0.5, 0.0, 0.5, valid=True)),
    ],
)
def test_table(mode, share, repetition, weight, expected):
    assert challenger_rewards(mode, [share], [repetition], weight) == [expected]


@given(st.lists(st.tuples(SHARES, REPETITION), max_size=8), st.floats(0, 2))
def test_bounds(batch, weight):
    shares, repetition = [share for share, _ in batch], np.array([penalty for _, penalty in batch])
    for reward in challenger_rewards("paper", shares, repetition, weight):
        assert 0 <= reward.total <= 1
        assert isinstance(reward.total, float)
    for share, reward in zip(shares, challenger_rewards("code", shares, repetition, weight), strict=True):
        assert reward.valid == (share is not None)
        assert -1 - weight <= reward.total <= 0.5
        # An invalid completion is never worth more than a valid one with the same repetition.
        assert reward.valid or reward.total == -1 - reward.penalty


def test_rewards_and_repetition_of_different_batches_are_an_error():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        challenger_rewards("paper", [0.5, 0.5], [0.5])


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="'papers' is unknown"):
        challenger_rewards("papers", [], [])
