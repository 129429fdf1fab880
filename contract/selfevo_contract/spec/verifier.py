"""The third role: a judge of answers that nothing can check (docs/verifier.md)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Sha256, Whole
from selfevo_contract.rules import Keyed, Rule
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.judge_server import JudgeServer
from selfevo_contract.spec.lora import Lora
from selfevo_contract.spec.names import Interval
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.rubric import Rubric
from selfevo_contract.uris import ModelUri

PairMaker = Literal["decomposition", "swap", "corrupt", "role", "temporal"]
"""What makes pairs whose order is known by how they were made; each is one file of the trainer's ``pairs/``."""


REACH_TASKS = 64
"""Of the anchors, at most: those by which gate.reach judges how hard a task is."""


class RewardModel(Closed):
    """A reward model: a sequence classifier with one output."""

    uri: ModelUri
    """Where it lies: hf://owner/model@revision, s3://bucket/prefix, file:///path, or file:path beside the manifest."""
    digest: Sha256 | None = None
    """sha256 over the model's files; when given it is checked, and it identifies the model in place of the URI."""


class Anchors(Closed):
    """Pairs with a known order, by which judges are measured. No phase trains on them, but for the head's beginning."""

    data: Data
    """JSON lines with the columns question, chosen and rejected: chosen is the better answer."""
    begin: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Without verifier.model: the share of their questions by which a fresh score head begins; the rest stays
    sealed."""
    own: Annotated[Whole, Field(ge=0, le=10_000)] = 32
    """Tasks of an iteration's curriculum whose answers by the Solver become anchors beside these: an answer over itself
    cut short, and over itself repeated. No pair is made of these tasks."""


class Head(Closed):
    """How a fresh score head begins on a part of the anchors."""

    max_steps: Annotated[Whole, Field(ge=1, le=1_000_000)] = 100
    """Optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """AdamW's learning rate."""


class Gate(Closed):
    """Which made pairs are trained on."""

    length_ratio: Annotated[float, Field(ge=1, le=1000)] = 1.5
    """Most that the longer answer of a pair has of the shorter one's tokens: judges learn length before quality."""
    parts: bool = True
    """An answer composed of parts counts when the first judge, on most parts, finds the part's own answer better than
    another part's. It is asked about the parts, for about the whole it is wrong where the pair is of use."""
    reach: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A task is beyond what the anchors reach, and no pair of it counts, when its answers' mean score is below this
    quantile of those of 64 of the anchors' tasks, which the same Solver answers as often for the same judge. When not
    given, every task counts."""


class Promotion(Closed):
    """When a trained judge takes the place of the one before it."""

    standard_errors: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Its accuracy on the sealed anchors may be below the one before by so many standard errors of the paired
    difference and not by more; else the judge before stays."""
    length_correlation: Annotated[float, Field(ge=0, le=1)] | None = None
    """Beyond this correlation of its scores on the anchors with the answers' lengths it is not promoted, if the one
    before correlates less; 0.5 when not given, and 1 lets every judge pass."""

    @property
    def longest_correlation(self) -> float:
        """`length_correlation`. (A default would be a part of the keys of all runs.)"""
        return 0.5 if self.length_correlation is None else self.length_correlation


class Verifier(Closed):
    """The third role, for tasks without a checkable answer."""

    kind: Literal["reward", "rubric"] = "reward"
    """`reward`: a scalar reward model, trained on pairs by the Bradley-Terry loss. `rubric`: a strong model with
    criteria, which is never trained: of all other fields only rubric, anchors and curriculumShare count."""
    rubric: Rubric | None = None
    """Of kind rubric: its criteria, and the model that judges by them."""
    model: RewardModel | None = None
    """The first judge. When not given, the base with a fresh score head that begins on a part of the anchors."""
    anchors: Anchors | None = None
    """Pairs with a known order that judges are measured by. A judge that is trained needs them."""
    pairs: Annotated[list[PairMaker], Field(min_length=1, max_length=5), Keyed()] = ["decomposition", "swap", "corrupt"]
    """What makes the pairs that it is trained on. One that is right on less than half of the judge's errors is
    dropped."""
    tasks: Annotated[Whole, Field(ge=1, le=1_000_000)] = 256
    """Tasks of an iteration's curriculum that each maker makes a pair of; all there are when there are fewer."""
    gate: Gate = Gate()
    """Which of the pairs are trained on."""
    head: Head = Head()
    """How a fresh score head begins."""
    max_steps: Annotated[Whole, Field(ge=0, le=1_000_000)] = 8
    """Optimizer steps an iteration; with 0 the first judge is kept, frozen."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-7
    """AdamW's learning rate."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the steps in which the learning rate rises to it."""
    batch_size: Annotated[Whole, Field(ge=1, le=1_000_000)] = 64
    """Pairs in one step."""
    per_device_train_batch_size: Annotated[Whole, Field(ge=1, le=65536)] = 8
    """Pairs that go through the model at once."""
    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Weight of the loss that keeps scores around zero."""
    lora: Lora | None = None
    """Train a low-rank adapter, and the whole score head with it; the judge that is stored is merged."""
    replay: Annotated[
        float,
        Field(ge=0, lt=1),
        # A rule, for the API server takes the bound of a whole number for a whole number: 0 would pass.
        Rule("self >= 0.5", lambda share: share >= 0.5, "replay is below a half; write 0.5 or more"),
    ] = 0.5
    """Share of earlier iterations' pairs among those trained on; all there are when there are fewer."""
    max_length: Annotated[Whole, Field(ge=8, le=1_000_000)] = 6144
    """Most tokens of a task and its answer together; a longer answer is cut at its end."""
    promotion: Promotion = Promotion()
    """When a trained judge takes the place of the one before."""
    curriculum_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a rollout's tasks that enter the curriculum: those whose answers' scores spread most."""
    engine: Engine = TransformersEngine()
    """How the roles write the answers that pairs are made of."""
    server: JudgeServer | None = None
    """A server, with GPUs of its own, by which the judge scores in both roles' training and in the rollout. When not
    given, each process of these phases reads the judge itself, on its own GPU."""
    checkpoint_every: Interval = "10m"
    """How often its training's state goes to the store, as solver.checkpointEvery."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.rubric) == (has(self.kind) && self.kind == 'rubric')",
            lambda verifier: (verifier.rubric is not None) == (verifier.kind == "rubric"),
            "a verifier of kind rubric needs rubric, and no other has it; set kind to rubric with it, or remove it",
        ),
        Rule(
            "has(self.anchors) || (has(self.kind) && self.kind == 'rubric')",
            lambda verifier: verifier.anchors is not None or verifier.kind == "rubric",
            "a judge that is trained needs anchors, by which it is measured; put the pairs' file into anchors.data",
        ),
        Rule(
            "!(has(self.kind) && self.kind == 'rubric') || !(has(self.model) || has(self.lora) || has(self.server))",
            lambda verifier: (
                verifier.kind != "rubric"
                or (verifier.model is None and verifier.lora is None and verifier.server is None)
            ),
            "model, lora and server are of a judge that is trained, and one of kind rubric is not; remove them",
        ),
    )

    @property
    def sealed(self) -> Anchors:
        """The anchors of a judge that is trained, which has them."""
        assert self.anchors is not None
        return self.anchors

    @property
    def is_trained(self) -> bool:
        """Whether it is a model of this run: begun, trained, and asked by its phases."""
        return self.kind == "reward"

    @property
    def is_beside(self) -> bool:
        """Whether the processes that ask it hold it, each on its own GPU."""
        return self.is_trained and self.server is None


TRAINING_ONLY = (
    "pairs",
    "tasks",
    "gate",
    "max_steps",
    "learning_rate",
    "warmup",
    "replay",
    "promotion",
    "curriculum_share",
)
"""Fields that say nothing of how the first judge begins."""
