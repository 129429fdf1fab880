"""The examples in the docstrings of rewards."""

from __future__ import annotations

import doctest

import pytest

from selfevo_trainer import rewards
from selfevo_trainer.rewards import code, confidence, judged, paper, self_certainty


@pytest.mark.parametrize("module", [rewards, paper, code, confidence, judged, self_certainty])
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
