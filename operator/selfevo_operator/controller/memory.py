"""What the controller remembers of a run. It may be forgotten at any time: it saves calls and nothing else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

from selfevo_core.attempts import Blocker
from selfevo_operator.observed.snapshots import JobSnapshot

AT_ONCE = 0.0
_NO_PROGRESS_BASE_S, _NO_PROGRESS_CAP_S = 1.0, 60.0
_REFUSED_BASE_S, _REFUSED_CAP_S = 5.0, 300.0


@dataclass
class RunMemory:
    """Of one run."""

    wrote_at: datetime | None = None
    """When its status was written last."""
    doubted: int | None = None
    """Version of the run to which a status was written without an answer that says what it is now."""
    in_vain: int = 0
    """Reconciles in a row that acted, and after which the Jobs were as before."""
    asked_at: datetime | None = None
    """When Jobs of it that no list finds were asked for."""
    asked_for_recorded: bool = False
    """Jobs that its record has as live, and that no list shows, were asked for."""
    unreadable: Blocker | None = None
    """Why the end of one of its Jobs cannot be read, in this reconcile."""
    doubted_jobs: dict[str, JobSnapshot] = field(default_factory=dict)
    """By UID, Jobs that are to be asked for."""
    refusals: int = 0
    """Reconciles in a row in which the cluster refused a call, and trying again soon does not help."""

    def refused_wait(self) -> float:
        """Seconds to wait after the refusals."""
        return _growing(self.refusals, _REFUSED_BASE_S, _REFUSED_CAP_S)

    def no_progress_wait(self) -> float:
        """Seconds to wait after actions that changed nothing; none while something changes."""
        return _growing(self.in_vain, _NO_PROGRESS_BASE_S, _NO_PROGRESS_CAP_S)


Memories = defaultdict[str, RunMemory]
"""By the UID of the run."""


def _growing(times: int, base_s: float, cap_s: float) -> float:
    """Seconds to wait after ``times`` in a row; none after none."""
    return min(cap_s, base_s * (1 << min(times - 1, 10))) if times else AT_ONCE
