"""A run that another version of the artifact schema has begun: what runs ends and is recorded, and nothing new starts.

A later step would go on from what was computed otherwise, under a key that says it was not (`skew`).
"""

from __future__ import annotations

from datetime import datetime

from selfevo_contract import reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_core.attempts import Blocker
from selfevo_core.policies.base import Decision, RunState


def plan_version(state: RunState, now: datetime) -> Decision | None:
    version = state.other_version
    if version is None:
        return None
    message = (
        f"the run was begun by a selfevo of artifact schema version {version} and this one has version "
        f"{SCHEMA_VERSION}, which computes other things under other keys; what ran has ended and is recorded, and "
        f"nothing new is started; go on with an operator and trainer of version {version}, or create the run anew "
        "under another name (docs/cluster.md, Upgrades)"
    )
    return Decision(starts_nothing=True, blocker=Blocker(reasons.PLAN_VERSION, message))
