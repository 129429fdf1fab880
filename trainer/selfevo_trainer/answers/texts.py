"""Answers' full texts as rows, and of which questions they are kept (storage.keepAnswers). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from selfevo_contract.rows import TextRow
from selfevo_contract.spec.storage import SAMPLED_QUESTIONS
from selfevo_trainer.engines.base import Completion


def is_kept(keep: Literal["all", "sample", "votes"], number: int, questions: int) -> bool:
    """Whether all answers to the question ``number``, of as many ``questions``, are kept.

    The sample is every k-th completion of the Challenger. They are drawn independently, so it is a fair one; and it
    depends neither on chunks nor on shards.

    >>> [number for number in range(1500) if is_kept("sample", number, 1500)][-2:]
    [1494, 1497]
    """
    return keep == "all" or (keep == "sample" and number % -(-questions // SAMPLED_QUESTIONS) == 0)


def text_rows(
    number: int,
    question: str,
    group: Sequence[Completion],
    answers: Sequence[str | None],
    class_of: Sequence[int | None],
    right: Sequence[bool] | None = None,
) -> list[TextRow]:
    """The sampled answers to one question. Everything is M long, an item an answer.

    Args:
        answers: what stands in their boxes.
        class_of: as ``voting.Vote``.
        right: whether each is right, where that is known.
    """
    return [
        TextRow(
            number=number,
            sample=i,
            question=question,
            text=completion.text,
            answer=answer,
            vote=vote,
            right=None if right is None else right[i],
            tokens=completion.tokens,
            truncated=completion.truncated,
        )
        for i, (completion, answer, vote) in enumerate(zip(group, answers, class_of, strict=True))
    ]
