"""The majority of the Solver's answers labels a question, and the band filters (docs/method.md, "Voting")."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from selfevo_contract.canonical import derive_seed
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import (
    ANSWERED,
    QUESTIONS,
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    Question,
    RowFile,
    Tally,
    WrittenQuestion,
)
from selfevo_contract.rows_between import SecondedQuestion
from selfevo_contract.spec.rollout import VOTED
from selfevo_trainer.answers.extraction import parse_challenger
from selfevo_trainer.answers.voting import Comparer, Vote, expected_accuracy
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.context import Context
from selfevo_trainer.curriculum import ABOVE_BAND, BELOW_BAND, COMMITTEE_REASONS, REASONS, Candidate, Selection, select
from selfevo_trainer.engines import Completion
from selfevo_trainer.judges.agreement import Agreement
from selfevo_trainer.labelling.base import Marked, Marker
from selfevo_trainer.ratings import ByVotes, voted
from selfevo_trainer.replay import Pool
from selfevo_trainer.well_formed import voting


@dataclass(frozen=True)
class Voted:
    """See `Labelling`."""

    inputs: SolverRolloutInputs

    form: ClassVar[str] = ByVotes.form
    answered: ClassVar[RowFile[Any]] = ANSWERED
    questions: ClassVar[RowFile[Any]] = QUESTIONS

    @property
    def remedy(self) -> str:
        """See `Labelling.remedy`."""
        return f"widen spec.rollout.band ({self.inputs.band.min}..{self.inputs.band.max})"

    def written(self, completion: str) -> WrittenQuestion | InvalidCompletion:
        """See `Labelling.written`."""
        parsed = parse_challenger(completion)
        if parsed is None:
            return InvalidCompletion.of(completion)
        return WrittenQuestion(question=parsed.question, proposed=parsed.answer)

    def unanswered(self, written: WrittenQuestion) -> Question:
        """See `Labelling.unanswered`."""
        return self._question(written, Vote(None, 0, self.inputs.samples, ()), None)

    @contextmanager
    def open(self, context: Context, counted: Mapping[str, float]) -> Iterator[Marker]:
        """See `Labelling.open`."""
        with context.grader(self.inputs.grading) as grader:
            yield _ByGrader(self, context, grader)

    def agreement(self, context: Context, counted: Mapping[str, float]) -> Agreement:
        """See `Labelling.agreement`: nothing is known."""
        return Agreement()

    def marked(
        self, written: Sequence[WrittenQuestion], answers: Sequence[Sequence[Completion]], grader: Comparer
    ) -> list[Marked]:
        """See `Marker.mark`."""
        found = voted(self.inputs.well_formed, [row.question for row in written], answers, grader)
        agrees = self._agreement(written, [vote for _, vote, _ in found], grader)
        return [
            Marked(self._question(row, vote, counts, same), boxes, vote.class_of)
            for row, (boxes, vote, counts), same in zip(written, found, agrees, strict=True)
        ]

    def _agreement(
        self, written: Sequence[WrittenQuestion], votes: Sequence[Vote], grader: Comparer
    ) -> list[bool | None]:
        """Of each question whether the committee's majorities are equal; None without a committee."""
        if self.inputs.member is None:
            return [None] * len(votes)
        seconds = [getattr(row, "second", None) for row in written]
        both = [
            i
            for i, (vote, second) in enumerate(zip(votes, seconds, strict=True))
            if vote.answer is not None and second is not None
        ]
        equal = grader.equal_many([(votes[i].answer or "", seconds[i] or "") for i in both])
        same = {i for i, verdict in zip(both, equal, strict=True) if verdict}
        return [i in same for i in range(len(votes))]

    def _question(
        self, written: WrittenQuestion, vote: Vote, answers: Tally | None, agrees: bool | None = None
    ) -> Question:
        """The row of a valid question; ``answers`` are None when it was too long to be asked."""
        return Question(
            question=written.question,
            proposed=written.proposed,
            too_long=answers is None,
            answers=answers,
            majority=vote.answer,
            share=vote.share,
            votes=vote.classes,
            second=written.second if isinstance(written, SecondedQuestion) else None,
            second_share=written.second_share if isinstance(written, SecondedQuestion) else None,
            agrees=agrees,
        )

    def select(self, valid: Sequence[Question], held_out: HeldOutQuestions) -> Selection:
        """See `Labelling.select`."""
        candidates = [
            Candidate(row.question, row.majority, row.share, row.too_long, row.agrees is not False) for row in valid
        ]
        possible = REASONS if self.inputs.member is None else COMMITTEE_REASONS
        return select(candidates, band=self.inputs.band, held_out=held_out, possible=possible)

    def curriculum(self, kept: Sequence[CheckedQuestion]) -> list[CurriculumRow]:
        """See `Labelling.curriculum`. `random` deals the majority answers out anew; `truth` leaves out questions
        without one."""
        labels = [row.majority for row in kept]
        if self.inputs.labels == "random":
            random.Random(derive_seed(self.inputs.seed, "labels")).shuffle(labels)
        elif self.inputs.labels == "truth":
            labels = [row.truth for row in kept]
        return [
            CurriculumRow(question=row.question, answer=label, share=row.share, truth=row.truth)
            for row, label in zip(kept, labels, strict=True)
            if label is not None
        ]

    def replays(self, pool: Pool) -> list[CurriculumRow]:
        """See `Labelling.replays`. A task whose answers a judge scored has no label; those that were dealt out by
        chance are labels of a run that asks for it, and nobody else's; where votes are the labels, a label is one that
        may vote."""
        if (pool.labels == "random") != (self.inputs.labels == "random"):
            return []
        rows = [row for row in pool.rows if row.answer]
        if self.inputs.labels == "truth":
            return [row for row in rows if row.answer == row.truth]
        checks = self.inputs.well_formed if self.inputs.labels in VOTED else None
        return [row for row in rows if voting(checks, row.question, [row.answer]) == [row.answer]]

    def measure(self, valid: Sequence[Question], kept: Sequence[CheckedQuestion]) -> dict[str, float]:
        """See `Labelling.measure`. What the labels of ``kept`` will pay is known where the votes are the labels."""
        in_band = sum(self.inputs.band.side(row.share) == "in" and row.majority is not None for row in valid)
        agreed = (
            {} if self.inputs.member is None else {"agreed_share": sum(bool(row.agrees) for row in valid) / len(valid)}
        )
        foretold = self._foretold(valid) if self.inputs.labels in VOTED and kept else None
        return {
            **agreed,
            **({} if foretold is None else {"expected_accuracy": foretold}),
            "in_band_share": in_band / len(valid),
            "majority_share_mean": sum(row.share for row in valid) / len(valid),
        }

    def _foretold(self, valid: Sequence[Question]) -> float | None:
        """Of the questions that nothing but the band keeps out."""
        by_band = (None, BELOW_BAND, ABOVE_BAND)
        checked = [row for row in valid if isinstance(row, CheckedQuestion) and row.dropped in by_band]
        votes = ([size for _, size in row.votes] for row in checked if row.agrees is not False)
        return expected_accuracy(votes, self.inputs.samples, lambda share: self.inputs.band.side(share) == "in")


@dataclass(frozen=True)
class _ByGrader:
    labelling: Voted
    context: Context
    grader: Comparer

    def mark(self, written: Sequence[WrittenQuestion], answers: Sequence[Sequence[Completion]]) -> list[Marked]:
        with self.context.clock.during("grading"):
            return self.labelling.marked(written, answers, self.grader)

    def spent(self) -> dict[str, float]:
        return {}
