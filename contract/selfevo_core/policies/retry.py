"""A step whose attempt has failed is tried again after a while, which grows with every failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from selfevo_core.attempts import parse_stamp
from selfevo_core.policies.base import Decision, Hold, RunState


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a step is tried again: 10 s, 20 s, 40 s, ... 5 min."""

    base: timedelta = timedelta(seconds=10)
    cap: timedelta = timedelta(minutes=5)

    def delay(self, failures: int) -> timedelta:
        """After so many failures; before the first one as after it."""
        return min(self.cap, self.base * (1 << min(max(failures - 1, 0), 30)))


def retry(state: RunState, now: datetime) -> Decision | None:
    waits = {step.name: parse_stamp(state.steps[step.name].retry_at) for step in state.ready}
    return Decision(holds={name: Hold(until) for name, until in waits.items() if until is not None and until > now})
