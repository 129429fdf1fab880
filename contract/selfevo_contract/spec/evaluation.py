"""Held-out scores."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Keyed, Rule, form
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling
from selfevo_contract.spec.sharding import fewer_at_a_time

_MOST = 1024
_IN_ALL = (
    "(self.tasks.map(task, has(task.shards) ? task.shards : 0).sum()"
    " + (self.tasks.exists(task, !has(task.shards)) ? self.shards : 0))"
)
"""`Evaluation.all_shards` in CEL."""

Name = Annotated[
    str,
    Field(max_length=40),
    form("[a-z0-9]([-a-z0-9]*[a-z0-9])?", "lower-case letters, digits and '-', with a letter or digit at both ends"),
]


class Task(Closed):
    """One held-out set of questions with answers."""

    name: Name
    """Name in metrics and reports."""
    data: Data
    """JSON lines with the columns question and answer."""
    answers: Literal["math", "choice", "number", "text"] | None = None
    """What its answers are; math when not given. `math`: compared as in training. `choice`: a letter, also as `B. 42`,
    `B) 42`, `(B)` or formatted; several letters are none. `number`: a number, grouped or not, with or without a unit or
    currency; of GSM8K's solutions, what follows `####`. `text`: words, without regard to case, blanks and formatting.
    The last three are compared by rules alone; math-verify is never asked."""
    group: Name | None = None
    """Kind of task, such as `math` or `general`: the status and the report show the average of each group's tasks."""
    samples: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    """Answers sampled for each of its questions, beside the greedy one; evaluation.samples when not given."""
    sampling: Sampling | None = None
    """Sampling of its answers; evaluation.sampling when not given."""
    prompt: Prompt | None = None
    """What the Solver is asked; solver.prompt when not given."""
    shards: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    """Parts that its questions are cut into, each answered by a pod of its own, beside those of evaluation.shards for
    the other tasks; when not given, its questions are shared out with theirs. For a task with many samples or long
    answers. Scores and answers are the same whatever it is."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.prompt) || self.prompt.user.contains('{question}')",
            lambda task: task.prompt is None or "{question}" in task.prompt.user,
            "prompt.user never shows the question; put {question} into it",
        ),
    )

    @property
    def answer_kind(self) -> Literal["math", "choice", "number", "text"]:
        """What its answers are. (A default in the schema of a list's items would be a difference to every manifest.)"""
        return self.answers or "math"


class Evaluation(Closed):
    """Scores of the base and of every iteration's Solver on held-out tasks."""

    tasks: Annotated[list[Task], Field(min_length=1, max_length=32), Keyed("name")]
    """What is asked."""
    samples: Annotated[Whole, Field(ge=1, le=1024)] = 8
    """Answers sampled for each question, beside the greedy one."""
    sampling: Sampling | None = None
    """Sampling of the answers; the Solver's own (solver.grpo) when not given."""
    metric: Literal["mean", "greedy", "maj"] = "mean"
    """What «best» goes by, averaged over tasks: `mean` over samples, `greedy` accuracy, or `maj`, the accuracy of the
    majority of the samples."""
    every: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    """Evaluate every so many iterations, and the last."""
    shards: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """Parts that the questions of all tasks without shards of their own are cut into, each answered by a pod of its
    own. Scores and answers are the same whatever it is; what is committed stays when it changes. With more shards than
    questions some have none."""
    chunk_questions: Annotated[Whole, Field(ge=1, le=1_000_000)] = 64
    """Questions of one task that a shard answers between two commits: what is lost at most when its pod is killed."""
    min_shards: Annotated[Whole, Field(ge=1, le=1023)] | None = None
    """With how many shards at a time a Kueue queue may start that has no room for all; all or none when not given. An
    evaluation that was started in part can be evicted once only: Kueue refuses the second time (docs/queues.md)."""
    engine: Engine = TransformersEngine()
    """How the Solver answers."""
    pods: Pods = Pods()
    """Pods of the phase, over spec.pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"{_IN_ALL} <= {_MOST}",
            lambda evaluation: evaluation.all_shards <= _MOST,
            f"the shards of all tasks together are more than {_MOST}; lower some",
            lambda evaluation: (
                f"the shards of all tasks together are {evaluation.all_shards}, more than {_MOST}; lower some"
            ),
        ),
        fewer_at_a_time(lambda evaluation: evaluation.all_shards, _IN_ALL),
    )

    @property
    def all_shards(self) -> int:
        """Pods that share its questions: those of tasks with shards of their own, and `shards` for the others."""
        own = [task.shards for task in self.tasks if task.shards is not None]
        return sum(own) + (self.shards if len(own) < len(self.tasks) else 0)
