"""The modes of reward, by name; their formulas are the trainer's, one mode a file."""

from __future__ import annotations

from typing import Literal

RewardMode = Literal["paper", "code", "judged"]
JUDGED = "judged"
"""The mode of a run with a Verifier: its judge's scores pay."""
