"""How well the Solver does on a question, by its answers: what the Challenger is paid for. By votes, or by a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any, ClassVar, Literal, Protocol

from selfevo_contract.judging import TOKENS
from selfevo_contract.rows import Tally
from selfevo_contract.spec.well_formed import Check
from selfevo_trainer.answers.extraction import extract_question, last_boxed, parse_challenger
from selfevo_trainer.answers.grades import tally
from selfevo_trainer.answers.voting import Comparer, Vote
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.curriculum import quotes_markup, unfit
from selfevo_trainer.engines import Completion
from selfevo_trainer.judges.base import Scorer
from selfevo_trainer.well_formed import vote_well_formed


@dataclass(frozen=True)
class Rating:
    """What the Solver's answers to one question come to."""

    share: float
    """p: the majority share, or the mean of the answers' rewards."""
    counts: Tally
    valid: bool = True
    """False when the answers show that it is no question."""
    figures: dict[str, float] = field(default_factory=dict)
    """What is logged of it, as a mean over the batch's valid questions."""

    def wire(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"share": self.share, "counts": self.counts.wire(), "valid": self.valid, "figures": self.figures}

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> Rating:
        """What ``wire`` made."""
        fields = dict(wire)
        counts = Tally.model_validate(fields.pop("counts"))
        return cls(counts=counts, **fields)


class Rater(Protocol):
    """What is asked of a question, and what the answers to it are worth."""

    form: ClassVar[str]
    """What a valid completion of the Challenger holds, for messages."""

    def question(self, completion: str, held_out: HeldOutQuestions) -> str | None:
        """The question in a completion of the Challenger; None when it is invalid or not fit to be trained on."""
        ...

    def rate(self, questions: Sequence[str], answers: Sequence[Sequence[Completion]]) -> list[Rating]:
        """A rating of each question, in order."""
        ...

    def spent(self) -> dict[str, float]:
        """What rating has cost since this was asked last, by the names of metrics."""
        ...

    def goes_on(self, history: Sequence[Mapping[str, Any]]) -> None:
        """What training has logged so far, earlier attempts' rows too."""
        ...


def voted(
    well_formed: Sequence[Check] | None,
    questions: Sequence[str],
    answers: Sequence[Sequence[Completion]],
    grader: Comparer,
) -> list[tuple[list[str | None], Vote, Tally]]:
    """Of each question: what stands in the answers' last boxes, the vote on that, and counts of the answers."""
    boxes = [[last_boxed(completion.text) for completion in group] for group in answers]
    votes, refused, verdicts = vote_well_formed(well_formed, questions, boxes, grader)
    tallies = [tally(group, verdicts if i == 0 else None, refused[i]) for i, group in enumerate(answers)]
    return list(zip(boxes, votes, tallies, strict=True))


@dataclass(frozen=True)
class ByVotes:
    """By the majority share of the answers in boxes."""

    well_formed: Sequence[Check] | None
    unboxed: Literal["counts", "drops"]
    grader: Comparer

    form: ClassVar[str] = "<question>...</question> and \\boxed{...}"

    def question(self, completion: str, held_out: HeldOutQuestions) -> str | None:
        """See `Rater.question`: it has the Challenger's own answer in a box, too."""
        parsed = parse_challenger(completion)
        return None if parsed is None or unfit(parsed.question, held_out) is not None else parsed.question

    def rate(self, questions: Sequence[str], answers: Sequence[Sequence[Completion]]) -> list[Rating]:
        """See `Rater.rate`."""
        return [
            self._rating(vote, counts) for _, vote, counts in voted(self.well_formed, questions, answers, self.grader)
        ]

    def spent(self) -> dict[str, float]:
        """See `Rater.spent`."""
        return {}

    def goes_on(self, history: Sequence[Mapping[str, Any]]) -> None:
        """See `Rater.goes_on`."""

    def _rating(self, vote: Vote, counts: Tally) -> Rating:
        share = vote.boxed_share if self.unboxed == "drops" else vote.share
        return Rating(share, counts, not quotes_markup(vote.answer or ""), {"majority_share": vote.share})


@dataclass(frozen=True)
class ByJudge:
    """By the scores of a judge."""

    judge: Scorer

    form: ClassVar[str] = "<question>...</question>"

    def question(self, completion: str, held_out: HeldOutQuestions) -> str | None:
        """See `Rater.question`."""
        task = extract_question(completion)
        return None if task is None or unfit(task, held_out, checkable=False) is not None else task

    def rate(self, questions: Sequence[str], answers: Sequence[Sequence[Completion]]) -> list[Rating]:
        """See `Rater.rate`."""
        return [
            self._rating([score for score in scores if score is not None], group)
            for group, scores in zip(answers, self.scores(questions, answers), strict=True)
        ]

    def _rating(self, scores: Sequence[float], group: Sequence[Completion]) -> Rating:
        if not scores:  # the judge has scored none: the question earns nothing, and the Challenger is not at fault
            return Rating(1.0, scored_tally(group))
        figures = {"score": fmean(scores), "score_spread": pstdev(scores)}
        return Rating(fmean(scores), scored_tally(group), figures=figures)

    def spent(self) -> dict[str, float]:
        """See `Rater.spent`."""
        return self.judge.spent()

    def goes_on(self, history: Sequence[Mapping[str, Any]]) -> None:
        """See `Rater.goes_on`."""
        self.judge.goes_on(tokens_in(history))

    def scores(
        self, questions: Sequence[str], answers: Sequence[Sequence[Completion]]
    ) -> list[tuple[float | None, ...]]:
        """The reward of each answer to each question, in one call of the judge."""
        asked = [question for question, group in zip(questions, answers, strict=True) for _ in group]
        found = iter(self.judge.rewards(asked, [completion.text for group in answers for completion in group]))
        return [tuple(next(found) for _ in group) for group in answers]


def tokens_in(history: Sequence[Mapping[str, Any]]) -> float:
    """Tokens that a judge with criteria was asked for, by the rows that training has logged."""
    return sum(float(row.get(TOKENS, 0.0)) for row in history)


def scored_tally(group: Sequence[Completion]) -> Tally:
    """Counts of answers that need no box."""
    return Tally(answers=len(group), truncated=sum(completion.truncated for completion in group))
