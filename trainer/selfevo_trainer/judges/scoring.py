"""The judge of a run with a Verifier, of either kind, as what pays: rewards in 0..1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfevo_contract.phases import ChallengerTrainInputs, SolverRolloutInputs, SolverTrainInputs
from selfevo_trainer.context import Context
from selfevo_trainer.judges import open_judge
from selfevo_trainer.judges.base import Judge, Scorer
from selfevo_trainer.judges.rubric import RubricJudge
from selfevo_trainer.rewards import scored_reward


@dataclass(frozen=True)
class ByHead:
    """By a model with a score head: see `Scorer`."""

    judge: Judge
    mode: str
    """Of the reward."""

    @property
    def digest(self) -> str:
        """See `Scorer.digest`."""
        return self.judge.digest

    def rewards(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """See `Scorer.rewards`."""
        return [scored_reward(self.mode, score) for score in self.judge.score(tasks, answers)]

    def goes_on(self, tokens: float) -> None:
        """See `Scorer.goes_on`."""

    def spent(self) -> dict[str, float]:
        """See `Scorer.spent`."""
        return {}

    def close(self) -> None:
        """See `Scorer.close`."""
        self.judge.close()


@dataclass(frozen=True)
class _Timed:
    scorer: Scorer
    context: Context

    @property
    def digest(self) -> str:
        return self.scorer.digest

    def rewards(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        with self.context.clock.during("judging"):
            return self.scorer.rewards(tasks, answers)

    def goes_on(self, tokens: float) -> None:
        self.scorer.goes_on(tokens)

    def spent(self) -> dict[str, float]:
        return self.scorer.spent()

    def close(self) -> None:
        self.scorer.close()


def open_scorer(
    context: Context,
    inputs: ChallengerTrainInputs | SolverRolloutInputs | SolverTrainInputs,
    mode: str,
    *,
    share: float = 1.0,
    counted: Mapping[str, float] = {},
) -> Scorer:
    """The judge that ``inputs`` name.

    Args:
        share: this process's of the step's budget of tokens, of a judge with criteria.
        counted: what earlier attempts of it have asked.

    Raises:
        InputError: there is no such judge, or it cannot be loaded; the criteria are not as they must be.
        ServiceError: the store cannot be reached.
    """
    if inputs.rubric is not None:
        return _Timed(RubricJudge.open(context, inputs.rubric, share=share, counted=counted), context)
    assert inputs.judge is not None
    return ByHead(open_judge(context, inputs.judge, inputs.loading, inputs.judge_length), mode)
