"""A Solver is published: its weights, a card and its curricula, to the hub or to a place in a store."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import BaseModelRef, Loading, ModelRef, PhaseType
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.guards import GuardAction


class Made(Wire):
    """What an iteration's step has made."""

    iteration: int
    key: Sha256


class HeldOutTask(Wire):
    """What Solvers are scored on."""

    name: str
    data: Data


class JudgedBy(Wire):
    """A judge with criteria, which pays a Solver and is not trained."""

    model: str
    """As its server knows it."""
    criteria: list[Data]
    pairwise: bool
    """It compares answers."""


class WatchedBy(Wire):
    """A guard that sees something of the run."""

    name: str
    action: GuardAction
    """What follows where its limit is crossed; `warn` where the run is too short for another."""


class PublishInputs(Wire):
    """Publication of one Solver."""

    phase: Literal["publish"] = "publish"
    to: str
    revision: str | None = None
    """A branch of the repository, or a folder of the place; None: its main branch, the place itself."""
    private: bool
    curriculum: bool
    iteration: int
    """The Solver's."""
    model: ModelRef
    base: BaseModelRef
    loading: Loading
    labels: str
    """What the curricula's labels are: rollout.labels."""
    unlabelled: Literal["confidence", "selfCertainty"] | None = None
    """The Solver's mode of reward, where it is paid without a label."""
    rubric: JudgedBy | None = None
    """Its judge, where that is not trained."""
    origin: Sha256 | None = None
    """Key of the Solver of another run that its own run went on from."""
    solvers: list[Made]
    """Trainings of Solvers up to its own, of its own run."""
    rollouts: list[Made]
    """Those whose curricula they were trained on."""
    scores: Sha256 | None = None
    """Key of its evaluation."""
    base_scores: Sha256 | None = None
    """Key of the base's."""
    tasks: list[HeldOutTask] = []
    """What these are about."""
    judge: Sha256 | None = None
    """Key of the step that made the judge of its iteration."""
    guards: list[WatchedBy] | None = None
    """What watched the run, those left out that are blind; no part of the key, for they may change, and what is
    published stays."""
    rollbacks: int = 0
    """How often the run had gone back before it."""


PUBLISH = PhaseType(
    inputs=PublishInputs,
    part="publish",
    metrics="publication",
    title="Publication",
    makes="Published {}",
    models=("model", "base"),
    steps=(("scores", "evaluate"), ("base_scores", "evaluate"), ("judge", "verifier-train")),
    closes=True,
    publishes=True,
)
"""The card is made of what the inputs name, and of nothing else: every attempt writes the same."""
