"""How a curriculum is made."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.names import LabelName
from selfevo_contract.spec.oracles import Oracle
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.sampling import Sampling
from selfevo_contract.spec.sharding import fewer_at_a_time
from selfevo_contract.spec.well_formed import Check


class Band(Closed):
    """Questions enter the curriculum when min <= majority share <= max (paper 0.25..0.75, code 0.3..0.8)."""

    min: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Smallest majority share."""
    max: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Largest majority share."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.min <= self.max",
            lambda band: band.min <= band.max,
            "min is above max; no question could enter, so swap or widen them",
            lambda band: f"min {band.min} is above max {band.max}; no question could enter, so swap or widen them",
        ),
    )

    def side(self, share: float) -> Literal["below", "in", "above"]:
        """Where a majority share lies; the bounds are in the band."""
        return "below" if share < self.min else "above" if share > self.max else "in"


OVERLAP_WORDS = (8, 13)
"""Words of the n-grams that questions are counted by, whatever is dropped."""


class Contamination(Closed):
    """Which questions repeat one that is held out: a task's, or one of exclude. They are worth nothing to the
    Challenger and never enter a curriculum, like held-out questions themselves."""

    words: Annotated[Whole, Field(ge=8, le=13)] = 13
    """Words in a row, without regard to case and punctuation, that a question may not have in common with a held-out
    one: 13 is what GPT-3's training data was filtered by (arXiv 2005.14165, appendix C), 8 the strictest. Overlaps of 8
    and of 13 are counted either way. Shorter questions are compared as a whole."""


Labels = Literal["majority", "committee", "random", "truth"]
VOTED: tuple[Labels, ...] = ("majority", "committee")
"""Those that are the Solver's own majorities, each of its own question."""


class Replay(Closed):
    """Questions of earlier curricula, with their labels, that a curriculum has beside its own."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Their share of the curriculum; all there are when there are fewer."""
    pool: Annotated[Whole, Field(ge=1, le=1_000_000)] = 10_000
    """How many of the newest are kept to draw from."""


class Rollout(Closed):
    """How a curriculum is made: the Challenger writes, the Solver answers, the majority labels."""

    questions: Annotated[Whole, Field(ge=1, le=10_000_000)] = 8000
    """Questions that the Challenger writes."""
    samples: Annotated[Whole, Field(ge=2, le=1024)] = 10
    """Answers that the Solver gives to each question."""
    band: Band = Band()
    """Majority shares that enter the curriculum."""
    min_curriculum: Annotated[Whole, Field(ge=1, le=10_000_000)] | None = None
    """Smallest curriculum that is trained on: with fewer questions the run stops with EmptyCurriculum, because training
    would go over the same few again and again. One in a hundred of the questions when not given, and at least one: a
    healthy rollout leaves many times that."""
    shards: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """Parts that are generated independently, each by a pod of its own. What is committed stays when it changes."""
    chunk_questions: Annotated[Whole, Field(ge=1, le=1_000_000)] = 64
    """Questions that a shard answers between two commits: what is lost at most when its pod is killed. The
    Challenger's questions are committed chunkQuestions x samples at a time, which are as many completions. Chunks of
    less than a minute are committed more often than is worth it."""
    min_shards: Annotated[Whole, Field(ge=1, le=1023)] | None = None
    """With how many shards at a time a Kueue queue may start that has no room for all; all or none when not given. A
    rollout that was started in part can be evicted once only: Kueue refuses the second time (docs/queues.md)."""
    answer_sampling: Sampling | None = None
    """Sampling of the answers; the Solver's own (solver.grpo) when not given."""
    labels: Labels = "majority"
    """Where labels come from. `committee`: the Solver of the iteration before answers as often, and a question on which
    the two majorities differ is dropped. `random` and `truth` are the control arms of an experiment."""
    well_formed: Annotated[list[Check], Field(max_length=8)] = []
    """What an answer must be to have a vote, as its question alone tells: an answer that one of these checks refuses
    counts among the samples and never wins, in the rollout and in the Challenger's reward. Without one a majority that
    is confidently wrong past what the Solver can do labels questions."""
    replay: Replay | None = None
    """Which part of a curriculum comes from earlier ones; nothing when not given."""
    oracle: Oracle | None = None
    """What says how many labels are right; training never sees it unless labels is `truth`, which needs one that knows
    the truth: arithmetic, sorting or data. Part of what a rollout is: with another oracle it is made anew."""
    contamination: Contamination = Contamination()
    """Which questions are dropped because a held-out one has the same words."""
    engine: Engine = TransformersEngine()
    """How both roles generate."""
    pods: Pods = Pods()
    """Pods of the phase, over spec.pods."""
    queue: LabelName | None = None
    """Another Kueue LocalQueue for this phase, whose pods are many and small; spec.queue when not given."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.labels != 'truth' || (has(self.oracle) && self.oracle.kind != 'endpoint')",
            lambda rollout: rollout.labels != "truth" or (rollout.oracle is not None and rollout.oracle.exact),
            "labels 'truth' needs an oracle that knows it, for example {kind: arithmetic}",
        ),
        Rule(
            "self.shards <= self.questions",
            lambda rollout: rollout.shards <= rollout.questions,
            "shards is above questions; lower shards",
            lambda rollout: f"shards {rollout.shards} is above questions {rollout.questions}; lower shards",
        ),
        fewer_at_a_time(lambda rollout: rollout.shards),
        Rule(
            "!has(self.minCurriculum) || self.minCurriculum <= self.questions",
            lambda rollout: (rollout.min_curriculum or 1) <= rollout.questions,
            "minCurriculum is above questions; lower minCurriculum",
            lambda rollout: (
                f"minCurriculum {rollout.min_curriculum} is above questions {rollout.questions}; lower minCurriculum"
            ),
        ),
    )

    @property
    def smallest_curriculum(self) -> int:
        """Questions that a curriculum must have: minCurriculum, or one in a hundred of the questions."""
        return self.min_curriculum or max(1, self.questions // 100)
