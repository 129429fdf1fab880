"""A few questions of a rollout, chosen so that they show its range. Pure, and without chance: one run, one report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from selfevo.report.data import Sample, Samples, Votes
from selfevo_contract.judging import CheckedScoredQuestion
from selfevo_contract.rows import CheckedQuestion, CurriculumRow, InvalidCompletion

KEPT = 12
"""Of one iteration's curriculum, at most."""
OF_ALL = 60
"""Of all iterations' curricula, about: of many iterations each shows fewer."""
FEWEST = 3
DROPPED_PER_REASON = 2
CLASSES = 4
"""Classes of answers that one question shows; the rest is one line."""
INVALID = "invalid"
"""The reason of a completion that was not in the asked form: it never became a question."""
UNLABELLED = "unlabelled"
"""The reason of a question that passed every check and has no label: labels are the truth, and it is not known."""

Row = CheckedQuestion | InvalidCompletion


def shown_of(iterations: int) -> int:
    """How many of one iteration are shown, so that a page with many does not grow without bound.

    >>> shown_of(2), shown_of(10), shown_of(100)
    (12, 6, 3)
    """
    return max(FEWEST, min(KEPT, OF_ALL // max(1, iterations)))


T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """``count`` of ``items`` at even distances, the first and the last among them.

    >>> spread([0, 1, 2, 3, 4, 5, 6, 7, 8], 3)
    [0, 4, 8]
    """
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def samples_of(
    iteration: int, questions: Sequence[Row], curriculum: Sequence[CurriculumRow], samples: int, kept: int = KEPT
) -> Samples:
    """From the rows of solver-rollout's questions and curriculum; ``samples`` answers to each question."""
    labels = {row.question: row.answer for row in curriculum}
    trained: list[CheckedQuestion] = []
    by_reason: dict[str, list[Row]] = defaultdict(list)
    for row in questions:
        if isinstance(row, InvalidCompletion):
            by_reason[INVALID].append(row)
        elif row.dropped is not None:
            by_reason[row.dropped].append(row)
        elif row.question not in labels:
            by_reason[UNLABELLED].append(row)
        else:
            trained.append(row)
    by_share = sorted(trained, key=lambda row: row.share)
    return Samples(
        iteration=iteration,
        kept=tuple(_sample(row, samples, labels[row.question], None) for row in spread(by_share, kept)),
        dropped=tuple(
            _invalid(row) if isinstance(row, InvalidCompletion) else _sample(row, samples, None, reason)
            for reason, rows in sorted(by_reason.items(), key=lambda item: -len(item[1]))
            for row in spread(rows, DROPPED_PER_REASON if kept == KEPT else 1)
        ),
    )


def unusable_of(iteration: int, rows: Sequence[InvalidCompletion], count: int = KEPT) -> Samples:
    """Of completions none of which was a valid question."""
    return Samples(iteration, (), tuple(_invalid(row) for row in spread(rows, count)))


def _invalid(row: InvalidCompletion) -> Sample:
    return Sample(
        question=None,
        raw=row.raw,
        proposed=None,
        votes=(),
        others=None,
        unboxed=0,
        share=None,
        label=None,
        truth=None,
        right=None,
        dropped=INVALID,
    )


def _sample(row: CheckedQuestion, samples: int, label: str | None, dropped: str | None) -> Sample:
    classes = sorted(row.votes, key=lambda item: -item[1])
    # One class more than is shown takes no more room than the line that would stand for it.
    shown = classes if len(classes) <= CLASSES + 1 else classes[:CLASSES]
    rest = classes[len(shown) :]
    judged = label if dropped is None else row.majority
    return Sample(
        question=row.question,
        raw="",
        proposed=row.proposed,
        votes=tuple(Votes(answer, size) for answer, size in shown),
        others=Votes(f"{len(rest)} others", sum(size for _, size in rest)) if rest else None,
        # What a judge scores needs no box.
        unboxed=0 if isinstance(row, CheckedScoredQuestion) else max(0, samples - sum(size for _, size in classes)),
        share=row.share,
        label=label,
        truth=row.truth,
        right=None if row.truth is None or judged is None else judged == row.truth,
        dropped=dropped,
    )
