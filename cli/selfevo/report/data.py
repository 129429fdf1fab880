"""What a report says, as plain data. Shares and scores are 0..1, times are seconds; None is "not there (yet)"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selfevo.report.flips import Flips
from selfevo_contract.artifacts import Manifest
from selfevo_contract.plan import Plan, Step
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.scores import Results, Score
from selfevo_contract.status import Fork, GuardStatus
from selfevo_core.policies.forking import fork_line


@dataclass(frozen=True)
class Scored:
    """One model on a task, on the tasks of a group or on all of them; tasks count alike."""

    name: str
    group: str | None
    scores: Mapping[str, Score]
    """By the names of `selfevo_contract.scores`, those that each of the tasks has."""
    gain: Score | None
    """In the run's metric, over the base; paired by question. None for the base, or while the base has no score."""
    questions: int
    samples: int | None
    """Sampled answers to each question; None where tasks differ."""
    tokens: float
    """Mean length of a sampled answer."""

    @property
    def passed(self) -> Score | None:
        """pass@k with k all samples."""
        return self.scores.get(f"pass@{self.samples}")


@dataclass(frozen=True)
class Evaluation:
    """One model on the held-out tasks."""

    total: Scored
    groups: tuple[Scored, ...]
    """Averages of the groups, in the order in which the tasks name them."""
    tasks: tuple[Scored, ...]

    @property
    def averages(self) -> tuple[Scored, ...]:
        """Of all tasks, and of each group."""
        return (self.total, *self.groups)

    @property
    def lines(self) -> tuple[Scored, ...]:
        """The tasks of each group with their average behind them, the tasks of no group, and the average of all."""
        grouped = [line for each in self.groups for line in (*(t for t in self.tasks if t.group == each.group), each)]
        alone = [task for task in self.tasks if task.group is None]
        return (*grouped, *alone, *([self.total] if len(self.tasks) > 1 else []))

    @property
    def mean(self) -> Score:
        return self.total.scores["mean"]

    @property
    def greedy(self) -> Score:
        return self.total.scores["greedy"]

    @property
    def gain(self) -> Score | None:
        return self.total.gain

    @property
    def questions(self) -> int:
        return self.total.questions

    def score(self, metric: str) -> Score:
        """What ``spec.evaluation.metric`` chooses; the mean where rows of another version do not tell it."""
        return self.total.scores.get(metric) or self.mean


@dataclass(frozen=True)
class Overlap:
    """How many of a rollout's valid questions have something in common with held-out ones."""

    same: int
    """Dropped as a held-out question itself."""
    dropped: int
    """Dropped for words in common."""
    words: Mapping[int, int]
    """Words in a row -> questions that share as many with one of them, dropped or not."""
    tasks: Mapping[int, Mapping[str, int]]
    """The same by task, those without one left out. A question may count for several tasks."""


@dataclass(frozen=True)
class Rollout:
    """The figures of one curriculum."""

    questions: int
    valid: int
    kept: int
    in_band: float | None
    majority_share: float | None
    distinct: float | None
    label_accuracy: float | None
    label_checked: int | None
    """Labels that an oracle compared; None where it says of all."""
    label_error: float | None
    """Standard error of label accuracy where a sample was compared; None where all labels were."""
    majority_accuracy: float | None
    malformed: float | None
    dropped: Mapping[str, int]
    """By reason, the frequent ones first; reasons without a question left out."""
    overlap: Overlap | None = None
    """None when nothing was held out."""


@dataclass(frozen=True)
class Iteration:
    """One line of the report's table. Number 0 is the base."""

    number: int
    evaluation: Evaluation | None
    evaluated: bool
    """Whether the plan evaluates it."""
    rollout: Rollout | None


@dataclass(frozen=True)
class Finetuned:
    """A model that was trained on labelled data after the last iteration."""

    number: int
    """The iteration that it started from; 0 is the base, the control."""
    before: Evaluation | None
    after: Evaluation | None
    over_control: Score | None
    """Its gain over the base that was trained on the same data; None of that one itself."""
    results: Mapping[str, Results] = field(default_factory=dict)
    """By task, question by question."""


@dataclass(frozen=True)
class Update:
    """TRL's metrics of one optimizer update. What is measured once a step stands with its first update."""

    iteration: int
    step: int
    """The step that it belongs to, from 1."""
    update: int
    """Its number in the phase, from 1."""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Votes:
    """One class of equal answers."""

    answer: str
    count: int


@dataclass(frozen=True)
class Sample:
    """One completion of the Challenger and what came of it. Its texts are a model's: hostile."""

    question: str | None
    """None when the completion was not in the asked form."""
    raw: str
    """The start of such a completion."""
    proposed: str | None
    """The Challenger's own answer."""
    votes: tuple[Votes, ...]
    """The largest classes first."""
    others: Votes | None
    """The classes too small to be shown, together: how many answers, in ``count``, and how many classes, in text."""
    unboxed: int
    """Answers without a box."""
    share: float | None
    label: str | None
    """What the Solver was trained on; None when dropped."""
    truth: str | None
    right: bool | None
    """Label, or majority where it was dropped, against the truth; None when the truth is not known."""
    dropped: str | None
    """Why, or None when it is in the curriculum."""


@dataclass(frozen=True)
class Samples:
    """A few questions of one iteration."""

    iteration: int
    kept: tuple[Sample, ...]
    dropped: tuple[Sample, ...]


@dataclass(frozen=True)
class PhaseTime:
    """Process seconds by activity; parallel shards and all iterations added up."""

    phase: str
    seconds: Mapping[str, float]
    gpu_hours: float | None = None
    """None where no manifest says it."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class StepRecord:
    """One step of the plan and what the store has of it."""

    step: Step
    uri: str
    manifest: Manifest | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By activity; shards added up."""
    progress: str = ""
    """How far a step without a manifest is, e.g. ``64 of 8000 questions answered``."""
    gpu_hours: float | None = None
    """Of a step that the run made, if its trainer recorded them."""

    @property
    def total(self) -> float | None:
        return sum(self.seconds.values()) if self.seconds else None


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    run: SelfEvolutionRun
    plan: Plan
    iterations: tuple[Iteration, ...]
    best: int | None
    """Number of the best iteration, as ``selfevo status`` has it; None without one."""
    challenger: tuple[Update, ...]
    solver: tuple[Update, ...]
    samples: tuple[Samples, ...]
    times: tuple[PhaseTime, ...]
    steps: tuple[StepRecord, ...]
    versions: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Package -> version -> names of the steps that ran with it."""
    failure: str = ""
    """Why the run failed; empty when it did not."""
    flips: tuple[Flips, ...] = ()
    """Each evaluated iteration against the one evaluated before it."""
    unusable: tuple[Samples, ...] = ()
    """What Challengers wrote in trainings that ended for want of one valid question."""
    results: Mapping[int, Mapping[str, Results]] = field(default_factory=dict)
    """By iteration and task, question by question; those after fine-tuning are not in it."""
    finetuned: tuple[Finetuned, ...] = ()
    """What was trained on labelled data at the end, the base last."""
    counts_gpus: bool = False
    """Whether the run's usage knows of its GPUs: a cluster's does."""

    @property
    def tied(self) -> tuple[int, ...]:
        """The other iterations with the very score of the best one, which is the first of them."""
        scores = {i.number: i.evaluation.score(self.metric).value for i in self.iterations if i.evaluation is not None}
        if self.best is None or self.best not in scores:
            return ()
        return tuple(n for n, value in scores.items() if n != self.best and value == scores[self.best])

    def iteration(self, number: int) -> Iteration:
        """The one with this number; a fork has none between the base and what it goes on from."""
        return next(iteration for iteration in self.iterations if iteration.number == number)

    @property
    def fork(self) -> str:
        """``goes on from iteration 2 of run math``; empty for a run that forks none."""
        asked = self.run.spec.fork_from
        return "" if asked is None else fork_line(Fork(run=asked.run, iteration=asked.iteration))

    @property
    def metric(self) -> str:
        return self.run.spec.evaluation.metric if self.run.spec.evaluation else "mean"

    @property
    def guards(self) -> tuple[GuardStatus, ...]:
        """What the guards say, where the run's status is known."""
        return tuple(self.run.status.guards) if self.run.status else ()

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens that were generated, by phase, where the run's usage has counted them."""
        usage = self.run.status.usage if self.run.status else None
        return {phase: used.tokens for phase, used in usage.phases.items() if used.tokens} if usage else {}

    @property
    def samples_of_each(self) -> str:
        """``8 samples``, or ``samples`` where tasks differ in their number."""
        evaluation = self.run.spec.evaluation
        counts = {task.samples or evaluation.samples for task in evaluation.tasks} if evaluation else set()
        return f"{counts.pop()} samples" if len(counts) == 1 else "samples"

    @property
    def missing(self) -> tuple[StepRecord, ...]:
        return tuple(record for record in self.steps if record.manifest is None)

    @property
    def newest_commit(self) -> str | None:
        return max((record.manifest.created_at for record in self.steps if record.manifest), default=None)
