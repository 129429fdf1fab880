"""What a rollout asks of the way in which its curriculum is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from selfevo_contract.rows import (
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    Question,
    RowFile,
    WrittenQuestion,
)
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.context import Context
from selfevo_trainer.curriculum import Selection
from selfevo_trainer.engines import Completion
from selfevo_trainer.judges.agreement import Agreement
from selfevo_trainer.replay import Pool


@dataclass(frozen=True)
class Marked:
    """A question with what its answers come to."""

    row: Question
    boxes: Sequence[str | None]
    """What stands in each answer's last box."""
    class_of: Sequence[int | None]
    """The class of each answer among the row's votes; None without one."""


class Marker(Protocol):
    """Marks answered questions."""

    def mark(self, written: Sequence[WrittenQuestion], answers: Sequence[Sequence[Completion]]) -> list[Marked]:
        """Each of ``written`` with what its answers come to, in order."""
        ...

    def spent(self) -> dict[str, float]:
        """What marking has cost since this was asked last, by the names of metrics."""
        ...


class Labelling(Protocol):
    """By votes, or by a judge's scores."""

    form: ClassVar[str]
    """What a valid completion of the Challenger holds, for messages."""
    answered: ClassVar[RowFile[Any]]
    """The chunks' rows."""
    questions: ClassVar[RowFile[Any]]
    """The whole rollout's."""

    @property
    def remedy(self) -> str:
        """What gives more questions to a curriculum that has too few, for messages."""
        ...

    def written(self, completion: str) -> WrittenQuestion | InvalidCompletion:
        """The row of a completion of the Challenger."""
        ...

    def unanswered(self, written: WrittenQuestion) -> Question:
        """The row of a question that was too long to be asked."""
        ...

    def open(self, context: Context, counted: Mapping[str, float]) -> AbstractContextManager[Marker]:
        """What marks answered questions. ``counted`` are the metrics of what is marked already, added up."""
        ...

    def select(self, valid: Sequence[Question], held_out: HeldOutQuestions) -> Selection:
        """Which of the valid questions enter the curriculum."""
        ...

    def curriculum(self, kept: Sequence[CheckedQuestion]) -> list[CurriculumRow]:
        """Those that entered, as they are trained on."""
        ...

    def replays(self, pool: Pool) -> list[CurriculumRow]:
        """Those of ``pool``, which may be of another run that this one goes on from, with labels as this run's are."""
        ...

    def agreement(self, context: Context, counted: Mapping[str, float]) -> Agreement:
        """How far what marks agrees with what is known. ``counted`` are the metrics of all that was marked."""
        ...

    def measure(self, valid: Sequence[Question], kept: Sequence[CheckedQuestion]) -> dict[str, float]:
        """Metrics beside those that every rollout has. ``kept`` are those of ``valid`` that entered."""
        ...
