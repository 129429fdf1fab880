"""Completions against true answers or labels, by the comparison that the run asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from selfevo_contract.rows import Tally
from selfevo_contract.spec.grading import Grading
from selfevo_trainer.answers.extraction import last_boxed
from selfevo_trainer.answers.grading import Grader
from selfevo_trainer.answers.values import compare
from selfevo_trainer.answers.voting import Comparer
from selfevo_trainer.engines.base import Completion

Result = TypeVar("Result")


class ExactGrader:
    """Answers are equal when the rules say so (``values.compare``): numbers, choices, words, and quantities with
    their units. Formulas are equal only in one form. Starts no process."""

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """One verdict for each pair, in order."""
        return [compare(a, b).equal is True for a, b in pairs]

    def __enter__(self) -> ExactGrader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_grader(grading: Grading) -> Grader | ExactGrader:
    """The comparison that ``grading.method`` names, a context manager."""
    if grading.method == "exact":
        return ExactGrader()
    return Grader(
        timeout_s=grading.timeout_seconds,
        memory_mib=grading.memory_mebibytes,
        batch_timeout_s=grading.batch_timeout_seconds,
    )


def tally(completions: Iterable[Completion], verdicts: Mapping[str, int] | None = None, ill_formed: int = 0) -> Tally:
    """Counts of ``completions``, of the grader's verdicts on them (`verdicts_of`), and of those that had no vote for
    their form."""
    items = list(completions)
    return Tally(
        answers=len(items),
        unboxed=sum(last_boxed(item.text) is None for item in items),
        truncated=sum(item.truncated for item in items),
        ill_formed=ill_formed,
        **(verdicts or {}),
    )


def verdicts_of(comparer: Comparer, work: Callable[[], Result]) -> tuple[Result, dict[str, int]]:
    """What ``work`` returns, and the comparisons that meanwhile ran out of their time or the batch's, or crashed."""
    stats = getattr(comparer, "stats", None)
    before = (stats.timed_out + stats.over_budget, stats.crashed) if stats is not None else (0, 0)
    done = work()
    after = (stats.timed_out + stats.over_budget, stats.crashed) if stats is not None else (0, 0)
    return done, {"timed_out": after[0] - before[0], "crashed": after[1] - before[1]}


def extract_and_grade(texts: Sequence[str], truths: Sequence[str], comparer: Comparer) -> tuple[list[bool], list[bool]]:
    r"""Whether each text has an answer in a box, and whether that answer is right.

    Returns:
        (boxed, right), each of the length of ``texts``; what has no box is never compared and never right.
    """
    answers = [last_boxed(text) for text in texts]
    pairs = [(answer, truth) for answer, truth in zip(answers, truths, strict=True) if answer is not None]
    verdicts = iter(comparer.equal_many(pairs))
    boxed = [answer is not None for answer in answers]
    return boxed, [has and next(verdicts) for has in boxed]
