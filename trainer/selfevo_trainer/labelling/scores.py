"""A judge scores the Solver's answers, and the tasks whose scores spread most enter (docs/verifier.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, ClassVar

from selfevo_contract.judging import ANSWERED_SCORED, QUESTIONS_SCORED, ScoredQuestion
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import (
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    Question,
    RowFile,
    Tally,
    WrittenQuestion,
)
from selfevo_contract.spec.rewards import JUDGED
from selfevo_trainer.answers.extraction import extract_question, last_boxed
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.context import Context
from selfevo_trainer.curriculum import Selection, Task, select_tasks
from selfevo_trainer.engines import Completion
from selfevo_trainer.judges.agreement import Agreement, ask_anchors
from selfevo_trainer.judges.scoring import open_scorer
from selfevo_trainer.labelling.base import Marked, Marker
from selfevo_trainer.ratings import ByJudge, scored_tally
from selfevo_trainer.replay import Pool


@dataclass(frozen=True)
class Scored:
    """See `Labelling`."""

    inputs: SolverRolloutInputs

    form: ClassVar[str] = ByJudge.form
    answered: ClassVar[RowFile[Any]] = ANSWERED_SCORED
    questions: ClassVar[RowFile[Any]] = QUESTIONS_SCORED

    @property
    def remedy(self) -> str:
        """See `Labelling.remedy`."""
        return "raise spec.verifier.curriculumShare"

    def written(self, completion: str) -> WrittenQuestion | InvalidCompletion:
        """See `Labelling.written`."""
        task = extract_question(completion)
        return InvalidCompletion.of(completion) if task is None else WrittenQuestion(question=task)

    def unanswered(self, written: WrittenQuestion) -> Question:
        """See `Labelling.unanswered`."""
        return ScoredQuestion(question=written.question, proposed=written.proposed, share=0.0, too_long=True)

    @contextmanager
    def open(self, context: Context, counted: Mapping[str, float]) -> Iterator[Marker]:
        """See `Labelling.open`."""
        inputs = self.inputs
        with closing(open_scorer(context, inputs, JUDGED, share=1 / inputs.shards, counted=counted)) as judge:
            yield _Scoring(ByJudge(judge))

    def agreement(self, context: Context, counted: Mapping[str, float]) -> Agreement:
        """See `Labelling.agreement`: of a judge that is trained verifier-train tells it."""
        if self.inputs.rubric is None or self.inputs.anchors is None:
            return Agreement()
        return ask_anchors(context, self.inputs.rubric, self.inputs.anchors, self.inputs.seed, counted)

    def select(self, valid: Sequence[Question], held_out: HeldOutQuestions) -> Selection:
        """See `Labelling.select`."""
        assert self.inputs.curriculum_share is not None
        tasks = [Task(row.question, getattr(row, "spread", 0.0), row.too_long) for row in valid]
        return select_tasks(tasks, self.inputs.curriculum_share, held_out)

    def curriculum(self, kept: Sequence[CheckedQuestion]) -> list[CurriculumRow]:
        """See `Labelling.curriculum`: no answer is right."""
        return [CurriculumRow(question=row.question, answer="", share=row.share) for row in kept]

    def replays(self, pool: Pool) -> list[CurriculumRow]:
        """See `Labelling.replays`: without a label. What has one was asked for an answer that can be checked."""
        return [row for row in pool.rows if not row.answer]

    def measure(self, valid: Sequence[Question], kept: Sequence[CheckedQuestion]) -> dict[str, float]:
        """See `Labelling.measure`."""
        asked = [row for row in valid if isinstance(row, ScoredQuestion) and row.scores]
        if not asked:
            return {}
        return {
            "score_mean": fmean(row.share for row in asked),
            "score_spread_mean": fmean(row.spread for row in asked),
        }


@dataclass(frozen=True)
class _Scoring:
    by_judge: ByJudge

    def mark(self, written: Sequence[WrittenQuestion], answers: Sequence[Sequence[Completion]]) -> list[Marked]:
        scores = self.by_judge.scores([row.question for row in written], answers)
        marked = []
        for row, group, found in zip(written, answers, scores, strict=True):
            counted = tuple(score for score in found if score is not None)
            scored = _question(row, scored_tally(group), counted, self.by_judge.judge.digest)
            boxes = [last_boxed(completion.text) for completion in group]
            marked.append(Marked(scored, boxes, [None] * len(group)))
        return marked

    def spent(self) -> dict[str, float]:
        return self.by_judge.spent()


def _question(written: WrittenQuestion, answers: Tally, scores: tuple[float, ...], judge: str) -> ScoredQuestion:
    return ScoredQuestion(
        question=written.question,
        proposed=written.proposed,
        answers=answers,
        share=fmean(scores) if scores else 0.0,
        scores=scores,
        spread=pstdev(scores) if scores else 0.0,
        judge=judge,
    )
