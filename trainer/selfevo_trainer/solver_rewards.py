"""TRL's reward functions of the Solver's training, over the formulas of `selfevo_trainer.rewards`: they take what TRL
hands over, so that a group's answers may lie in several processes. TRL itself is not imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from statistics import fmean
from typing import Any

from selfevo_contract.phases import SolverTrainInputs
from selfevo_contract.spec.rewards import CONFIDENCE, SELF_CERTAINTY
from selfevo_contract.spec.well_formed import Check
from selfevo_trainer.answers.extraction import last_boxed
from selfevo_trainer.answers.grades import extract_and_grade
from selfevo_trainer.answers.voting import Comparer, Vote
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.judges import open_judge
from selfevo_trainer.judges.base import Judge, Scorer
from selfevo_trainer.judges.pairwise import Compared, PairwiseJudge
from selfevo_trainer.judges.rubric import mean
from selfevo_trainer.judges.scoring import open_scorer
from selfevo_trainer.prompts import completion_text
from selfevo_trainer.ratings import tokens_in
from selfevo_trainer.rewards import agreed_reward, certain_reward, scored_reward, solver_reward
from selfevo_trainer.rewards.base import Distributions, RewardFunction
from selfevo_trainer.well_formed import vote_well_formed


class SolverReward:
    """TRL reward function: the answer against the label. Shapes: B completions in, B rewards out."""

    __name__ = "solver"

    def __init__(self, mode: str, grader: Comparer) -> None:
        self.mode = mode
        self.grader = grader

    def __call__(self, completions: list[Any], label: list[str], log_metric: Any = None, **_: Any) -> list[float]:
        boxed, correct = extract_and_grade([completion_text(each) for each in completions], label, self.grader)
        if log_metric is not None:
            log_metric("accuracy", sum(correct) / len(correct))
        return [solver_reward(self.mode, correct=right, boxed=has) for right, has in zip(correct, boxed, strict=True)]


class JudgedReward:
    """TRL reward function: what a judge says of the answer. Shapes: B completions in, B rewards out."""

    __name__ = "solver"

    def __init__(self, mode: str, judge: Judge) -> None:
        self.mode = mode
        self.judge = judge

    def __call__(self, completions: list[Any], question: list[str], log_metric: Any = None, **_: Any) -> list[float]:
        scores = self.judge.score(question, [completion_text(each) for each in completions])
        if log_metric is not None:
            log_metric("score", sum(scores) / len(scores))
        return [scored_reward(self.mode, score) for score in scores]


class RubricReward:
    """TRL reward function: what a judge with criteria says of the answer. Shapes: B completions in, B rewards out.

    An answer without a score is paid the mean of its group's, so that nothing is learnt from it.
    """

    __name__ = "solver"

    def __init__(self, judge: Scorer) -> None:
        self.judge = judge

    def __call__(
        self, completions: list[Any], question: list[str], trainer_state: Any = None, log_metric: Any = None, **_: Any
    ) -> list[float]:
        self.judge.goes_on(tokens_in(getattr(trainer_state, "log_history", [])))
        scores = self.judge.rewards(question, [completion_text(each) for each in completions])
        # Of several processes each has a part of the batch, and a group may lie in two. Groups of one question are one.
        groups: dict[str, list[float]] = {}
        for text, score in collective.all_gather(list(zip(question, scores, strict=True))):
            if score is not None:
                groups.setdefault(text, []).append(score)
        means = {text: fmean(found) for text, found in groups.items()}
        rewards = [means.get(text, 0.0) if one is None else one for text, one in zip(question, scores, strict=True)]
        if log_metric is not None:
            log_metric("score", fmean(rewards))
            for name, value in self.judge.spent().items():
                log_metric(name, value)
        return rewards


class PairwiseReward:
    """TRL reward function: the answer's share of wins over others of its group, by a judge with criteria. Shapes: B
    completions in, B rewards out.

    An answer without a comparison is paid the mean of its group's, so that nothing is learnt from it.
    """

    __name__ = "solver"

    def __init__(
        self, judge: PairwiseJudge, group: int, judging: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """
        Args:
            group: answers to each prompt, which stand together in the batch of all processes.
            judging: the judge is asked within it.
        """
        self.judge = judge
        self.group = group
        self.judging = judging

    def __call__(
        self, completions: list[Any], question: list[str], trainer_state: Any = None, log_metric: Any = None, **_: Any
    ) -> list[float]:
        self.judge.goes_on(tokens_in(getattr(trainer_state, "log_history", [])))
        batch = collective.all_gather(list(zip(question, map(completion_text, completions), strict=True)))
        groups = [batch[start : start + self.group] for start in range(0, len(batch), self.group)]
        compared = dict(collective.dealt_out(list(enumerate(groups)), self._compared))
        rewards: list[float] = []
        for number in range(len(groups)):
            shares = compared[number].shares
            level = mean(shares)
            rewards += [(level or 0.0) if share is None else share for share in shares]
        if log_metric is not None:  # of the whole batch, the same in all processes
            if comparisons := sum(group.comparisons for group in compared.values()):
                log_metric("ties", sum(group.ties for group in compared.values()) / comparisons)
            for name, value in self.judge.spent().items():
                log_metric(name, value)
        first = collective.rank() * len(completions)
        return rewards[first : first + len(completions)]

    def _compared(self, groups: list[tuple[int, list[tuple[str, str]]]]) -> list[tuple[int, Compared]]:
        tasks, texts = [group[0][0] for _, group in groups], [[text for _, text in group] for _, group in groups]
        with self.judging():
            found = self.judge.compare(tasks, texts)
        return [(number, one) for (number, _), one in zip(groups, found, strict=True)]


class ConfidenceReward:
    """TRL reward function: how much of the group gives the same answer. Shapes: B completions in, B rewards out."""

    __name__ = "solver"

    def __init__(self, mode: str, well_formed: Sequence[Check] | None, grader: Comparer) -> None:
        self.mode = mode
        self.well_formed = well_formed
        self.grader = grader

    def __call__(self, completions: list[Any], question: list[str], log_metric: Any = None, **_: Any) -> list[float]:
        boxes = [last_boxed(completion_text(each)) for each in completions]
        # Of several processes each has a part of the batch, and a group may lie in two. Groups of one question are one.
        groups: dict[str, list[tuple[int, str | None]]] = {}
        for place, (text, box) in enumerate(collective.all_gather(list(zip(question, boxes, strict=True)))):
            groups.setdefault(text, []).append((place, box))
        asked = [(text, [box for _, box in group]) for text, group in groups.items()]
        votes = dict(collective.dealt_out(asked, self._votes))
        rewards: dict[int, float] = {}
        for text, group in groups.items():
            sizes = [size for _, size in votes[text].classes]
            for (place, _box), which in zip(group, votes[text].class_of, strict=True):
                rewards[place] = agreed_reward(self.mode, None if which is None else sizes[which] / len(group))
        if log_metric is not None:
            log_metric("majority_share", sum(vote.share for vote in votes.values()) / len(votes))
        first = collective.rank() * len(completions)
        return [rewards[place] for place in range(first, first + len(completions))]

    def _votes(self, asked: list[tuple[str, list[str | None]]]) -> list[tuple[str, Vote]]:
        texts = [text for text, _ in asked]
        votes, _, _ = vote_well_formed(self.well_formed, texts, [boxes for _, boxes in asked], self.grader)
        return list(zip(texts, votes, strict=True))


class SelfCertaintyReward:
    """TRL reward function: how sure the policy was of the answer's tokens. Shapes: B completions in, B rewards out."""

    __name__ = "solver"

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.policy: Distributions | None = None

    def __call__(self, prompts: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        assert self.policy is not None  # training asks for no reward before it has it
        return [certain_reward(self.mode, each) for each in self.policy.from_uniform(prompts, completion_ids)]


@contextmanager
def open_reward(context: Context, inputs: SolverTrainInputs) -> Iterator[RewardFunction]:
    """By the judge of a run with a Verifier, by the policy itself, by agreement, else by labels."""
    if inputs.judge is not None:
        with closing(open_judge(context, inputs.judge, inputs.loading, inputs.judge_length)) as judge:
            yield JudgedReward(inputs.reward.mode, judge)
        return
    size = context.rank.size
    if inputs.rubric is not None and inputs.rubric.pairwise is not None:
        group, groups = inputs.grpo.num_generations, inputs.grpo.prompts_per_step
        # Whole groups are dealt out, so that the first processes have more of them where they do not divide.
        most = math.ceil(groups / size) / groups
        with closing(PairwiseJudge.open(context, inputs.rubric, share=most)) as comparer:
            yield PairwiseReward(comparer, group, lambda: context.clock.during("judging"))
        return
    if inputs.rubric is not None:
        with closing(open_scorer(context, inputs, inputs.reward.mode, share=1 / size)) as scorer:
            yield RubricReward(scorer)
        return
    if inputs.reward.mode == SELF_CERTAINTY:
        yield SelfCertaintyReward(inputs.reward.mode)
        return
    with context.grader(inputs.grading) as grader:
        if inputs.reward.mode == CONFIDENCE:
            yield ConfidenceReward(inputs.reward.mode, inputs.well_formed, grader)
            return
        yield SolverReward(inputs.reward.mode, grader)
