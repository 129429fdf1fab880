"""Whether a judge with criteria puts pairs of a known order in that order. It may change behind its address: it is
asked in each iteration."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from selfevo_contract.artifacts import ANCHOR_CHUNKS
from selfevo_contract.canonical import derive_seed
from selfevo_contract.judging import AGREED, AGREED_COUNT, AGREED_ERROR, ANCHORS, COUNTED, JUDGE, AnchorRow
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.rubric import Rubric
from selfevo_trainer.chunks import Chunks, cut
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.anchors import Anchor, read_pairs
from selfevo_trainer.judges.pairwise import PairwiseJudge
from selfevo_trainer.judges.rubric import RubricJudge

AT_ONCE = 16
"""Pairs that are committed together."""


@dataclass(frozen=True)
class Agreement:
    """What a rollout's files and metrics say of anchors."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)


def ask_anchors(context: Context, rubric: Rubric, data: Data, seed: int, counted: Mapping[str, float]) -> Agreement:
    """The judge's order of ``rubric.anchor_pairs`` pairs of ``data``. Those that an earlier attempt asked are kept.

    Args:
        counted: what the step has asked of the judge so far.

    Raises:
        InputError: the pairs cannot be read; as of `RubricJudge.rewards` and `PairwiseJudge.compare`.
        ServiceError: the endpoint or the store fails.
    """
    pairs = read_pairs(context, data)
    draw = random.Random(derive_seed(seed, "anchors"))
    asked = [pairs[i] for i in sorted(draw.sample(range(len(pairs)), min(rubric.anchor_pairs, len(pairs))))]
    chunks = Chunks(context, ANCHOR_CHUNKS, ANCHORS)
    found = chunks.read(range(len(asked)))
    before = _added(counted, chunks.counted(JUDGE))
    context.progress("asking about anchors", len(found), len(asked))
    kind = RubricJudge if rubric.pairwise is None else PairwiseJudge
    with closing(kind.open(context, rubric, counted=before)) as judge:
        for numbers in cut([number for number in range(len(asked)) if number not in found], AT_ONCE):
            with context.clock.during("judging"):
                rows = _ask(judge, [asked[number] for number in numbers])
            chunks.commit(numbers, rows, judge.spent())
            found |= dict(zip(numbers, rows, strict=True))
            context.progress("asking about anchors", len(found), len(asked))
    chunks.read(range(len(asked)))  # for what they say of time and tokens
    rows = [found[number] for number in range(len(asked))]
    total = _added(counted, chunks.counted(JUDGE))
    return Agreement({**total, **measured(rows)}, ANCHORS.write(context.workdir, rows), chunks.timings())


def measured(rows: Sequence[AnchorRow]) -> dict[str, float]:
    """Metrics of pairs that were asked; of a tie the judge is not right, and one without a score does not count.

    >>> measured([AnchorRow(question="q", chosen="a", rejected="b", source="data", after=x) for x in (0.5, 0.0, None)])
    {'anchors/count': 2.0, 'anchors/accuracy': 0.5, 'anchors/error': 0.35355339059327373}
    """
    margins = [row.after for row in rows if row.after is not None]
    if not margins:
        return {AGREED_COUNT: 0.0}
    right = sum(margin > 0 for margin in margins) / len(margins)
    return {AGREED_COUNT: float(len(margins)), AGREED: right, AGREED_ERROR: (right * (1 - right) / len(margins)) ** 0.5}


def _ask(judge: RubricJudge | PairwiseJudge, pairs: Sequence[Anchor]) -> list[AnchorRow]:
    if isinstance(judge, PairwiseJudge):
        compared = judge.compare([pair.question for pair in pairs], [[pair.chosen, pair.rejected] for pair in pairs])
        return [_row(pair, *found.shares) for pair, found in zip(pairs, compared, strict=True)]
    tasks = [pair.question for pair in pairs for _ in range(2)]
    scores = judge.rewards(tasks, [answer for pair in pairs for answer in (pair.chosen, pair.rejected)])
    return [_row(pair, *scores[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)]


def _row(pair: Anchor, chosen: float | None, rejected: float | None) -> AnchorRow:
    margin = None if chosen is None or rejected is None else chosen - rejected
    return AnchorRow(question=pair.question, chosen=pair.chosen, rejected=pair.rejected, source="data", after=margin)


def _added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in COUNTED}
