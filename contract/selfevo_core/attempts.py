"""What reconcile sees (attempts) and says (actions): a Job in a cluster, or a process on this machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from selfevo_contract.errors import ExitCode
from selfevo_contract.plan import Step
from selfevo_contract.process import PhaseResult
from selfevo_contract.status import StepProgress

KILLED = 137
"""Exit code of what SIGKILL ended."""
TAKEN_DOWN = (ExitCode.TERMINATED, KILLED)
"""Exit codes of a process that others ended, perhaps after it had reported its failure."""

# An attempt's name is a label's value and a host's name, both 63 at most; an indexed Job appends up to "-1023" to it.
NAME_LIMIT = 57


@dataclass(frozen=True)
class Blocker:
    """Why something does not go on, in a constant for programs and a sentence for people."""

    reason: str
    message: str
    stuck: bool = True
    """It will not go away by itself; a queue or a full cluster will."""


@dataclass(frozen=True)
class ObservedAttempt:
    """What is observed of one attempt at a step: a Job, or a process on this machine."""

    name: str
    step: str
    key: str
    number: int
    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    exit_code: int | None = None
    """Of the container that decided; None where none did."""
    culprit: str = ""
    """What failed in place of the trainer: a container that is not ours, or the pod as a whole. Its code is no word of
    the trainer's, and ``message`` says all of it."""
    result: PhaseResult | None = None
    """The termination message; of an indexed attempt, the one that committed the step."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str = ""
    """Why it ended, a constant of `reasons`, where the surroundings know better than its exit code says."""
    message: str = ""
    """What is known of its end when it left no result, e.g. ``OOMKilled``."""
    log: str | None = None
    failures: int = 1
    """How often it failed, when it failed: a Job tries again by itself."""
    waiting: Blocker | None = None
    """Why it does not run: not yet, or (state Running) not any more."""
    outdated: bool = False
    """It would have another pod if it were started now: the spec has changed since."""
    stopping: bool = False
    """It has been asked to end, and is still there."""
    progress: StepProgress | None = None
    """How far it is, where that is known."""
    gpus: int = 0
    """GPUs that it holds now, in all of its pods."""
    gpus_each: int = 0
    """GPUs of one pod."""
    tokens: int = 0
    """Tokens that its processes say to have generated, of one that has ended."""
    spans: tuple[tuple[datetime, datetime], ...] = ()
    """From when to when each of its pods has run, of one that has ended and where it is known."""

    @property
    def live(self) -> bool:
        return self.state in ("Pending", "Running")

    @property
    def held(self) -> bool:
        """It is known to wait for its start. A pod that begins is not worth a write, so all else counts as running."""
        return self.state == "Pending" and self.waiting is not None

    @property
    def works(self) -> bool:
        """As far as is known, it goes on."""
        return self.state == "Running" and self.waiting is None and not self.stopping


@dataclass(frozen=True)
class Start:
    """Create the attempt ``name``; when it exists already, this is done."""

    step: Step
    number: int
    name: str


@dataclass(frozen=True)
class Stop:
    """End the attempt ``name`` by SIGTERM; when it has ended already, this is done."""

    name: str
    reason: str


Action = Start | Stop


def attempt_name(run: str, step: Step, attempt: int) -> str:
    """The attempt's name, the same in every reconcile: ``demo-solver-train-2-1f0c33aa-1``.

    A run name that is too long gives way to its beginning and its digest.
    """
    tail = f"{step.name}-{step.key[:8]}-{attempt}"
    name = f"{run}-{tail}"
    if len(name) <= NAME_LIMIT:
        return name
    mark = hashlib.sha256(run.encode()).hexdigest()[:8]
    head = run[: NAME_LIMIT - len(tail) - len(mark) - 2].rstrip("-")
    return f"{head}-{mark}-{tail}" if head else f"r{mark}-{tail}"


def verdict_of(code: int | None, result: PhaseResult | None) -> int | None:
    """The container's exit code, or the trainer's: a container may be killed after its trainer reported a failure."""
    if result is None:
        return code
    taken_down = code in TAKEN_DOWN and result.outcome == "failed"
    return result.exit_code if code is None or taken_down else code


def stamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, with milliseconds: as text, in the order of time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_stamp(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
