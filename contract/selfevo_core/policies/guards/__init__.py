"""The guards, one a file (docs/guards.md). Each reads what steps have measured, and nothing else: whatever a run does
not have, it does not need. What follows from them is `guarding`."""

from __future__ import annotations

from collections.abc import Sequence

from selfevo_core.policies.guards.base import Guard
from selfevo_core.policies.guards.consensus import CONSENSUS
from selfevo_core.policies.guards.diversity import DIVERSITY
from selfevo_core.policies.guards.entropy import ENTROPY
from selfevo_core.policies.guards.flips import FLIPS
from selfevo_core.policies.guards.held_out import HELD_OUT
from selfevo_core.policies.guards.in_band import IN_BAND
from selfevo_core.policies.guards.kl import KL
from selfevo_core.policies.guards.label_accuracy import LABEL_ACCURACY
from selfevo_core.policies.guards.length import LENGTH
from selfevo_core.policies.guards.malformed import MALFORMED
from selfevo_core.policies.guards.reward_gap import REWARD_GAP
from selfevo_core.policies.guards.similarity import SIMILARITY
from selfevo_core.policies.guards.truncation import TRUNCATION
from selfevo_core.policies.guards.zero_spread import ZERO_SPREAD

__all__ = ["GUARDS", "Guard"]

GUARDS: Sequence[Guard] = (
    HELD_OUT,
    FLIPS,
    CONSENSUS,
    LABEL_ACCURACY,
    REWARD_GAP,
    MALFORMED,
    DIVERSITY,
    SIMILARITY,
    IN_BAND,
    TRUNCATION,
    ENTROPY,
    ZERO_SPREAD,
    KL,
    LENGTH,
)
"""In the order of `spec.guards`. Of several that trip at once, the first one's action is taken."""
