"""Questions of earlier curricula beside a curriculum's own (`rollout.replay`; docs/method.md, "Replay"). Pure.

Why: a Solver that is trained on its frontier alone forgets what lies behind it, and then labels worse there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from selfevo_contract.rows import CurriculumRow
from selfevo_contract.spec.rollout import Replay
from selfevo_trainer.answers.extraction import normalise_question


@dataclass(frozen=True)
class Pool:
    """What an earlier rollout left to draw from."""

    rows: Sequence[CurriculumRow] = ()
    labels: str | None = None
    """Its rollout.labels, which are another run's where this one is a fork of it."""


def replayed(
    own: Sequence[CurriculumRow], pool: Sequence[CurriculumRow], replay: Replay, seed: int
) -> list[CurriculumRow]:
    """Rows of ``pool``, drawn without replacement, that make ``replay.share`` of a curriculum with ``own``; all there
    are when there are fewer. A question that ``own`` has is not drawn.

    >>> rows = [CurriculumRow(question=text, answer="1", share=0.5) for text in "abcdef"]
    >>> [row.question for row in replayed(rows[:2], rows, Replay(share=0.6), 0)]
    ['f', 'd', 'c']
    >>> replayed(rows[:2], rows[:2], Replay(), 0)
    []
    """
    left = _others(own, pool)
    # r / (own + r) = share; a share as it is written, so that 0.6 of five is three.
    count = round(len(own) * replay.share / (1 - replay.share))
    drawn = random.Random(seed).sample(left, min(count, len(left)))
    return [row.model_copy(update={"replayed": True}) for row in drawn]


def newest(own: Sequence[CurriculumRow], pool: Sequence[CurriculumRow], size: int) -> list[CurriculumRow]:
    """The next pool: the newest ``size`` rows of ``pool`` and ``own``, oldest first. Of one question the newest row."""
    return [*_others(own, pool), *own][-size:]


def _others(own: Sequence[CurriculumRow], pool: Sequence[CurriculumRow]) -> list[CurriculumRow]:
    taken = {normalise_question(row.question) for row in own}
    return [row for row in pool if normalise_question(row.question) not in taken]
