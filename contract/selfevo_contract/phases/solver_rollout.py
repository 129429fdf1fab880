"""The Challenger writes questions, the Solver answers them, and the votes become a curriculum."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Sha256, Wire
from selfevo_contract.phases.base import Loading, ModelRef, PhaseType, StepModelRef
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.oracles import Oracle
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rollout import Band, Contamination, Labels, Replay
from selfevo_contract.spec.rubric import Rubric
from selfevo_contract.spec.sampling import Sampling
from selfevo_contract.spec.well_formed import Check


class SolverRolloutInputs(Wire):
    """The Challenger writes questions, the Solver answers each, the vote labels, the band filters."""

    phase: Literal["solver-rollout"] = "solver-rollout"
    seed: int
    challenger: ModelRef
    solver: ModelRef
    loading: Loading
    questions: int
    samples: int
    shards: int
    """How many processes share the work; no part of the key, for it changes no row."""
    band: Band
    min_curriculum: int
    labels: Labels
    member: ModelRef | None = None
    """With labels committee: the other Solver that votes."""
    well_formed: list[Check] | None = None
    replay: Replay | None = None
    earlier: Sha256 | None = None
    """The rollout of the iteration before, whose pool this one replays from; None in the first one."""
    oracle: Oracle | None = None
    challenger_prompt: Prompt
    solver_prompt: Prompt
    max_prompt_length: int = 2048
    question_sampling: Sampling
    answer_sampling: Sampling
    grading: Grading
    exclude: list[Data]
    held_out: list[Data]
    """The data of the run's tasks, in their order."""
    contamination: Contamination
    judge: StepModelRef | None = None
    """Of a run with a Verifier: the verifier-train step whose judge scores the answers."""
    judge_length: int | None = None
    """verifier.maxLength."""
    rubric: Rubric | None = None
    """Of a run whose Verifier is of kind rubric: the criteria and the model that scores the answers by them."""
    anchors: Data | None = None
    """verifier.anchors, of which the rubric's judge is asked, too."""
    curriculum_share: float | None = None
    """Of a run with a Verifier: the share of the tasks that enter, those with the largest spread of scores."""

    @property
    def is_judged(self) -> bool:
        """Answers have scores of a judge, and no votes."""
        return self.judge is not None or self.rubric is not None


SOLVER_ROLLOUT = PhaseType(
    inputs=SolverRolloutInputs,
    part="rollout",
    metrics="rollout",
    title="Rollout",
    makes="Curriculum {}",
    models=("challenger", "solver", "member", "judge"),
    generates=(("challenger", ""), ("solver", "answer_sampling"), ("member", "answer_sampling")),
    steps=(("earlier", "solver-rollout"),),
    judged=True,
    sharded=True,
)
