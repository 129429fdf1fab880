"""``spec`` of a SelfEvolutionRun: what a person writes. Every field has a default, a bound and a description."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.budget import Budget
from selfevo_contract.spec.challenger import Challenger
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.evaluation import Evaluation
from selfevo_contract.spec.finetune import Finetune
from selfevo_contract.spec.fork import MOST_ITERATIONS, ForkFrom
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.guards import PROMOTING, Guards
from selfevo_contract.spec.model import Model
from selfevo_contract.spec.names import LabelName
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.publish import Publish
from selfevo_contract.spec.review import Review
from selfevo_contract.spec.rewards import JUDGED
from selfevo_contract.spec.rollout import Rollout
from selfevo_contract.spec.solver import Solver
from selfevo_contract.spec.storage import Storage
from selfevo_contract.spec.tracking import Tracker
from selfevo_contract.spec.verifier import Verifier

ROLES = ("challenger", "solver")
"""Fields of the roles that a reward pays."""


class RunSpec(Closed):
    """One self-evolution run."""

    iterations: Annotated[Whole, Field(ge=1, le=MOST_ITERATIONS)] = 3
    """Rounds of Challenger and Solver training; may be raised later."""
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of every random choice."""
    suspend: bool = False
    """Hold the run: no new step starts, running ones stop at a checkpoint."""
    model: Model
    """The base model."""
    storage: Storage
    """Where outputs go."""
    challenger: Challenger = Challenger()
    """The role that writes questions."""
    rollout: Rollout = Rollout()
    """How the curriculum is made."""
    solver: Solver = Solver()
    """The role that answers."""
    verifier: Verifier | None = None
    """The third role, for tasks without a checkable answer."""
    evaluation: Evaluation | None = None
    """Held-out scores."""
    exclude: Annotated[list[Data], Field(max_length=32)] = []
    """Data whose questions the Challenger may not ask, beside those of evaluation.tasks: worth nothing to it, and never
    in a curriculum."""
    finetune: Finetune | None = None
    """Training on labelled data after the last iteration."""
    publish: Publish | None = None
    """Where Solvers are published; nowhere when not given."""
    grading: Grading = Grading()
    """How answers are compared."""
    guards: Guards | None = None
    """When a run that goes wrong is stopped."""
    budget: Budget | None = None
    """What a run may cost."""
    tracking: Annotated[list[Tracker], Field(max_length=4)] = []
    """Where the run can be watched beside its own report (docs/tracking.md)."""
    review: Review | None = None
    """When the run waits for a person."""
    approved_iteration: Annotated[Whole, Field(ge=0, le=MOST_ITERATIONS)] | None = None
    """The last iteration that a person has approved, of those that spec.review lets wait."""
    parallel_steps: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Steps that may run at once, where the plan allows it."""
    backoff_limit: Annotated[Whole, Field(ge=0, le=100)] = 3
    """Times that a step is tried again after an external service failed."""
    pods: Pods = Pods()
    """Pods of every phase."""
    layout: Literal["auto"] | None = None
    """`auto` chooses for each role, by the memory of its GPUs (pods.gpuMemory), what makes its training fit, the first
    that does: gradientCheckpointing, smaller batches of the Challenger's engine, sharding, lora, and cpuOffload where
    pods.resources.limits.memory has room for it. What is written stays, and the choice stands in status.layout. When
    not given, everything is as it is written."""
    engines: Literal["auto"] | None = None
    """`auto` has frozen models answer by vLLM, in place of an engine of kind transformers, where pods name GPUs with
    room for it (pods.gpuMemory); their image needs vLLM. The choice stands in status.engines, and moves no step's key:
    the field may come and go. When not given, engines are as they are written."""
    queue: LabelName | None = None
    """A Kueue LocalQueue that the run's Jobs wait in."""
    priority_class: LabelName | None = None
    """A Kueue WorkloadPriorityClass of the run's Jobs; it orders the queue, and leaves the pods' own priority alone."""
    ttl_seconds_after_finished: Annotated[Whole, Field(ge=60, le=31_536_000)] = 86_400
    """Seconds that an ended Job, its pods and their logs are kept."""
    fork_from: ForkFrom | None = None
    """Start from an iteration of another run, which may be deleted as soon as status.fork is there."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.approvedIteration) || self.approvedIteration <= self.iterations",
            lambda spec: spec.approved_iteration is None or spec.approved_iteration <= spec.iterations,
            "approvedIteration is above iterations; lower it, or raise iterations with it",
        ),
        Rule(
            "!has(self.forkFrom) || self.forkFrom.iteration < self.iterations",
            lambda spec: spec.fork_from is None or spec.fork_from.iteration < spec.iterations,
            "forkFrom.iteration is not below iterations, which counts the other run's, too; lower it, or raise "
            "iterations",
        ),
        Rule(
            "!has(self.publish) || !(self.publish.to + '/').startsWith(self.storage.uri + "
            "(self.storage.uri.endsWith('/') ? '' : '/'))",
            lambda spec: (
                spec.publish is None or not f"{spec.publish.to}/".startswith(f"{spec.storage.uri.rstrip('/')}/")
            ),
            "publish.to lies in storage.uri, among the run's own outputs; choose another place",
        ),
        Rule(
            "!has(self.guards) || has(self.evaluation) || ("
            + " && ".join(f"self.guards.{name}.action != 'promoteBest'" for name in PROMOTING)
            + ")",
            lambda spec: spec.guards is None or spec.evaluation is not None or not spec.guards.promote_without_scores(),
            "a guard's action promoteBest needs evaluation, which tells the best iteration; add evaluation, or choose "
            "stop",
        ),
        Rule(
            " && ".join(f"has(self.verifier) == (self.{role}.reward.mode == '{JUDGED}')" for role in ROLES),
            lambda spec: all(
                (spec.verifier is not None) == (getattr(spec, role).reward.mode == JUDGED) for role in ROLES
            ),
            "challenger.reward.mode and solver.reward.mode are judged in a run with verifier, and in no other; set "
            "both, and verifier with them",
        ),
    )

    @property
    def has_adapters(self) -> bool:
        """Whether a role is an adapter on the base model."""
        return self.challenger.grpo.lora is not None or self.solver.grpo.lora is not None
