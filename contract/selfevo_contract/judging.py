"""What the third role leaves in the store: rows, and which judge a step's output stands for (docs/data.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from selfevo_contract.artifacts import Manifest
from selfevo_contract.base import Sha256, Wire
from selfevo_contract.canonical import digest
from selfevo_contract.phases import StepModelRef
from selfevo_contract.rows import CheckedQuestion, InvalidCompletion, Question, Row, RowFile

JUDGE_FILE = "judge.json"
"""Of verifier-train: a `Verdict`."""
PROMOTED = "promoted"
"""Metric of verifier-train: 1 where its judge took the place of the one before, else 0."""
BEFORE, AFTER, ERROR = "anchors/before", "anchors/after", "anchors/error"
"""Metrics of verifier-train: accuracy on the sealed anchors of the judge before and of its own, and the standard error
of the paired difference."""
LENGTH_BEFORE, LENGTH_AFTER, BY_LENGTH = "anchors/length_before", "anchors/length_after", "refused/length"
"""Metrics of verifier-train: the correlation of scores with lengths on all anchors of the judge before and of its own,
and 1 where its own is why it was not promoted, else 0."""
BEYOND = "pairs/beyond_reach"
"""Metric of verifier-train with verifier.gate.reach: pairs that were dropped since their tasks are beyond what the
anchors reach."""
JUDGE = "judge/"
TOKENS, REQUESTS, MALFORMED, UNSCORED, ANSWERS = (
    f"{JUDGE}{name}" for name in ("tokens", "requests", "malformed", "unscored", "answers")
)
"""Metrics of a phase that asks a judge with criteria: tokens read and written, requests that were answered, answers
that are not the JSON they must be, and of the Solver's answers those without a score, and all."""
COUNTED = (TOKENS, REQUESTS, MALFORMED, UNSCORED, ANSWERS)
AGREED, AGREED_COUNT, AGREED_ERROR = "anchors/accuracy", "anchors/count", "anchors/error"
"""Metrics of a rollout whose judge has criteria, with verifier.anchors: the share of those pairs that it puts in their
order, how many of them have a score each, and the standard error of the share."""


BY_CHANCE = 2.0
"""Standard errors of a guess by which a judge's accuracy on its anchors must be above one half to show anything."""


def is_by_chance(share: float | None, count: float | None) -> bool:
    """Whether a trained judge that puts ``share`` of ``count`` anchors in their order shows no more than a guess would;
    False where either is not known. A fresh score head may begin there, and so does any judge with another's tokenizer.
    Not for a judge with criteria: it may tie, and a tie is not right, so that a half is no sign of a guess.

    >>> is_by_chance(0.558, 285), is_by_chance(0.821, 285), is_by_chance(1.0, 4), is_by_chance(0.2, 100)
    (True, False, True, True)
    """
    return share is not None and bool(count) and share - 0.5 <= BY_CHANCE * 0.5 / float(count or 1) ** 0.5


CHANCE = "no better than chance"
CHANCE_REMEDY = (
    "see that the judge has its own tokenizer and chat template, that its score head was trained for long enough, and "
    "that the anchors are of what it can judge, and enough of them"
)


class Verdict(Wire):
    """Which judge a verifier-train step stands for."""

    promoted: bool
    """The judge that this step trained, or began, takes the place of the one before."""
    holder: StepModelRef
    """The step whose output has the judge's files below ``model/``: this one when it is promoted, else the holder of
    the judge before."""
    digest: Sha256
    """The judge's digest: `digest_of` the holder's manifest. Scores belong to it, and to no other judge."""


def digest_of(manifest: Manifest) -> str:
    """A judge's digest: sha256 of the canonical JSON of {file name: its sha256} over the files below ``model/``."""
    return digest({file.name.removeprefix("model/"): file.sha256 for file in manifest.under("model")})


class PairRow(Row):
    """Two answers to a task whose order is known by how they were made."""

    left_out = frozenset({"replayed"})

    question: str
    chosen: str
    """The better answer."""
    rejected: str
    maker: str
    """E.g. ``swap``."""
    margin: float | None = None
    """Score of chosen less that of rejected, by the judge before; null when it was not asked."""
    judge: str | None = None
    """The digest of the judge that gave ``margin``."""
    dropped: str | None = None
    """Why it was not trained on: the gate's reason; null when it was."""
    replayed: bool = False
    """It was made in an earlier iteration."""


class AnchorRow(Row):
    """A sealed pair with what the judges before and after the training say of it. Nothing is trained on it."""

    question: str
    chosen: str
    rejected: str
    source: str
    """`data`: a row of verifier.anchors; `own`: made of the Solver's answers."""
    before: float | None = None
    """Score of chosen less that of rejected, by the judge before; null in iteration 0."""
    after: float | None = None
    """The same by the new judge, or by one with criteria, in 0..1, null where it gave no score; of a tie neither is
    right."""


class WrittenAnswer(Row):
    """What a role wrote for pairs, kept until the step is committed."""

    question: str
    text: str


Scores = Annotated[tuple[float, ...], Strict(False)]


class ScoredQuestion(Question):
    """A task of the Challenger with the Solver's answers and their scores, as the chunk of a judged rollout has it.

    ``share`` is the mean of the scores; ``majority`` is null and ``votes`` are empty.
    """

    scores: Scores = ()
    """Of each answer sigma(J), or its score by criteria, in order, those left out that a judge with criteria gave none;
    empty when it was not answered."""
    spread: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the scores."""
    judge: str | None = None
    """The digest of the judge that gave them."""

    def checked(self, dropped: str | None) -> CheckedScoredQuestion:
        """With the result of the curriculum's checks."""
        return CheckedScoredQuestion(**{**dict(self), "dropped": dropped})


class CheckedScoredQuestion(ScoredQuestion, CheckedQuestion):
    """The same as the whole rollout has it."""


PAIRS = RowFile[PairRow]("pairs.parquet", (PairRow,))
"""Of verifier-train: every pair of the iteration, those that the gate dropped too, then those replayed."""
PAIR_POOL = RowFile[PairRow]("pool.parquet", (PairRow,))
"""Of verifier-train: pairs of this and earlier iterations that passed, from which the next one replays."""
ANCHORS = RowFile[AnchorRow]("anchors.parquet", (AnchorRow,))
"""Of verifier-train, and of a rollout whose judge has criteria: the verdicts on each anchor that was asked."""
WRITTEN_ANSWERS = RowFile[WrittenAnswer]("written.parquet", (WrittenAnswer,))
"""Of what verifier-train keeps before it trains: a role's answers for one use."""
ANSWERED_SCORED = RowFile[ScoredQuestion | InvalidCompletion]("questions.jsonl", (ScoredQuestion, InvalidCompletion))
"""Of a judged rollout's chunk ``answers``."""
QUESTIONS_SCORED = RowFile[CheckedScoredQuestion | InvalidCompletion](
    "questions.parquet", (CheckedScoredQuestion, InvalidCompletion)
)
"""Of a judged rollout: its chunks' rows, in order."""
