"""All that is on the screen, as it stands at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from selfevo.watching.trail import Trail
from selfevo_contract.plan import Plan
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import RunStatus

Focus = Literal["", "log", "questions"]


@dataclass(frozen=True)
class Asked:
    """A question of a rollout and how its answers voted."""

    text: str
    share: float
    """Of the answers, those that agree with most."""
    votes: Sequence[int]
    """Answers of each class of equal ones, the largest first."""
    dropped: str = ""
    """Why it is not in the curriculum."""


@dataclass(frozen=True)
class Questions:
    """The newest questions of the newest rollout."""

    title: str = ""
    rows: Sequence[Asked] = ()
    why: str = ""
    """Why there are none."""


@dataclass(frozen=True)
class Scene:
    """What a picture is made of."""

    name: str
    status: RunStatus = field(default_factory=RunStatus)
    plan: Plan | None = None
    spec: RunSpec | None = None
    remark: str = ""
    """What the status alone does not tell, such as who drives the run."""
    trail: Trail = field(default_factory=Trail)
    questions: Questions = field(default_factory=Questions)
    note: str = ""
    """The newest word to whoever sits at the keys."""
    focus: Focus = ""
    """What has the whole screen."""
