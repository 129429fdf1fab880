"""The modes of reward, by name; their formulas are the trainer's, one mode a file."""

from __future__ import annotations

from typing import Literal

RewardMode = Literal["paper", "code", "judged"]
CONFIDENCE = "confidence"
"""The Solver's mode that needs no label: it is paid for agreeing with itself."""
SELF_CERTAINTY = "selfCertainty"
"""The other one: it is paid for how sure it was of its tokens."""
WITHOUT_LABELS = (CONFIDENCE, SELF_CERTAINTY)
SolverRewardMode = Literal["paper", "code", "judged", "confidence", "selfCertainty"]
JUDGED = "judged"
"""The mode of a run with a Verifier: its judge's scores pay."""
