"""``status`` of a SelfEvolutionRun: the record of what was done. Written by the reconciler alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from selfevo_contract.packing import unpacked
from selfevo_contract.phases import PHASES, PhaseType

RunPhase = Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"]
StepState = Literal["Pending", "Running", "Succeeded", "Failed"]
GuardState = Literal["Blind", "Waiting", "Passing", "Warned", "Tripped"]


class _Status(BaseModel):
    # A status may come from a newer version of ourselves: unknown fields are left alone.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class Condition(_Status):
    """A Kubernetes condition (metav1.Condition)."""

    type: str
    """Ready, Reconciling, Stalled, Suspended, Complete or Failed; with spec.guards also GuardTripped."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: str
    """Why, as one CamelCase word for programs."""
    message: str = ""
    """Why, as a sentence for people."""
    observed_generation: int = 0
    """The metadata.generation that this is about."""
    last_transition_time: str
    """When status last changed."""


class AttemptStatus(_Status):
    """What one Job (or local process) of a step did."""

    name: str
    """Name of the Job."""
    step: str
    """Name of the step."""
    attempt: int
    """Its number among the step's attempts, from 1."""
    state: StepState
    """Pending, Running, Succeeded or Failed."""
    exit_code: int | None = None
    """What the container that decided ended with; the trainer: 0 done, 2 wrong input, 3 a service failed, 4 bad data,
    143 stopped. None where no container ended: the pod was refused or evicted."""
    reason: str = ""
    """Why it failed, as one CamelCase word."""
    message: str = ""
    """Why it failed, as a sentence."""
    started_at: str | None = None
    """When it started."""
    finished_at: str | None = None
    """When it ended."""
    log: str | None = None
    """Where its log lies."""
    gpus: int | None = None
    """GPUs that its pods hold now; none where they hold none."""


class StepProgress(_Status):
    """How far a running step is, by what its processes report. No decision hangs on it."""

    doing: str = ""
    """What it is doing: training, answering, ..."""
    done: int = 0
    """How much of that is done: questions, updates, samples."""
    total: int = 0
    """Of how many; of a step in shards, of all of them."""
    percent: int | None = None
    """The same in per cent."""
    tokens_per_second: float | None = None
    """Tokens that it generates a second, in all of its pods."""
    truncated_share: float | None = None
    """Share of its completions that ended at their limit."""
    ends_at: str | None = None
    """When it is done, by its pace so far."""
    metrics: dict[str, float] | None = None
    """The newest figures of a training, e.g. reward and kl of its last update; eight at most."""
    at: str = ""
    """When it reported this."""


class StepStatus(_Status):
    """One step of the plan. ``Succeeded`` and ``Failed`` are final for its key."""

    name: str
    """E.g. solver-train-2."""
    phase: str
    """What is done: challenger-train, solver-rollout, solver-train, verifier-train, evaluate, finetune,
    finetune-evaluate or publish."""
    iteration: int
    """The iteration that it belongs to."""
    key: str
    """Digest of all that determines its output, under which that lies in the store."""
    state: StepState = "Pending"
    """Pending, Running, Succeeded or Failed."""
    attempts: int = 0
    """Number of the newest attempt that was seen."""
    ended: int = 0
    """Attempts up to this one are accounted for: an ended Job that is seen again is not counted again, and the next
    attempt is this one's successor."""
    failures: int = 0
    """Attempts that count against backoffLimit."""
    reused: bool = False
    """The output was there already: an earlier run, or an earlier attempt, had committed it."""
    retry_at: str | None = None
    """When the next attempt starts."""
    started_at: str | None = None
    """When its first attempt started."""
    finished_at: str | None = None
    """When it succeeded or failed."""
    reason: str = ""
    """Why it failed, as one CamelCase word."""
    message: str = ""
    """Why it failed, as a sentence; of one that succeeded, that its figures are unknown."""
    metrics: dict[str, float] = {}
    """What it measured."""
    timings: dict[str, float] = {}
    """Seconds by what they were spent on."""
    progress: StepProgress | None = None
    """How far it is while it runs, at most every 30 seconds; of steps that take longer than that."""

    @property
    def type(self) -> PhaseType | None:
        """What is known of its phase; nothing where a newer version wrote the record."""
        return PHASES.get(self.phase)


class IterationStatus(_Status):
    """One iteration in a line."""

    iteration: int
    """Its number; 0 is the base."""
    score: float | None = None
    """Score of its Solver, by spec.evaluation.metric."""
    groups: dict[str, float] = {}
    """The same for each group of tasks: the average of those that have it as spec.evaluation.tasks[].group."""
    metrics: dict[str, float] = {}
    """What its steps measured, e.g. solver/reward."""
    model_uri: str | None = None
    """Where its Solver lies."""


class GuardStatus(_Status):
    """What a guard says of the run."""

    name: str
    """E.g. labelAccuracy."""
    state: GuardState
    """Blind, Waiting, Passing, Warned or Tripped. Blind without its signal, Waiting for its first."""
    iteration: int | None = None
    """The newest iteration that it has a measurement of."""
    value: float | None = None
    """That measurement."""
    baseline: float | None = None
    """What it is held against, where that is not the limit alone."""
    baseline_error: float | None = None
    """Its standard error, where it is known."""
    since: int | None = None
    """The first iteration that may be to blame for what is beyond the limit now."""
    last_beyond: int | None = None
    """The last iteration that was beyond the limit."""
    message: str = ""
    """What it measured, or why it is blind."""


class PhaseUsage(_Status):
    """What the steps of one phase have used."""

    hours: float = 0.0
    """Hours for which its attempts were at work, each by itself."""
    gpu_hours: float = 0.0
    """GPUs times hours."""
    tokens: int = 0
    """Tokens that its attempts have generated, as their processes report when they end well."""


class Usage(_Status):
    """What a run has used so far. It never falls."""

    counted_at: str
    """Until when it is counted. What runs is counted anew with every change of the status, at most five minutes later
    where there is a budget."""
    wall_hours: float = 0.0
    """Hours in which a step was at work; of steps beside each other, once."""
    gpu_hours: float = 0.0
    """GPUs of all pods, times the hours for which they had them."""
    tokens: int = 0
    """Tokens that were generated, as processes report when they end well."""
    dollars: float | None = None
    """gpuHours by spec.budget.dollarsPerGpuHour; none where there is no price."""
    phases: dict[str, PhaseUsage] = {}
    """The same by phase."""
    low: list[str] = []
    """Fields of spec.budget of which 80 % are used."""


class Rollback(_Status):
    """A run that went back to a good iteration, and goes on from there with another seed. Nothing was deleted."""

    iteration: int
    """The first iteration that is computed anew; the one before it was good."""
    guard: str
    """The guard that tripped."""
    message: str = ""
    """What it had measured."""
    at: str = ""
    """When."""
    abandoned: dict[str, str] = {}
    """Steps that were done and that the run does not build on any more, by name, with the keys under which they lie in
    the store."""


class Fork(_Status):
    """Where a run begins that goes on from another one (spec.forkFrom). It is found once; what becomes of the other run
    afterwards changes nothing."""

    run: str
    """Name of the other run."""
    iteration: int
    """The iteration of it that this run goes on from."""
    solver: str | None = None
    """Key of the step that made its Solver; none where that is the base."""
    challenger: str | None = None
    """Key of the step that made its Challenger; none where that is the base."""
    verifier: str | None = None
    """Key of the step that made its Verifier; none where it has none."""
    curriculum: str | None = None
    """Key of its rollout, from which spec.rollout.replay and spec.challenger.reward.memory take."""
    at: str = ""
    """When it was found."""


class FinetuneStatus(_Status):
    """What comes of spec.finetune."""

    iteration: int
    """The iteration whose Solver is trained: the best one, once all scores are known; 0 is the base."""
    score: float | None = None
    """Score of what became of it, by spec.evaluation.metric."""
    control_score: float | None = None
    """The same of the base, trained on the same data for as many steps."""
    model_uri: str | None = None
    """Where what became of it lies."""


class PublishStatus(_Status):
    """What comes of spec.publish."""

    best: int | None = None
    """With `what: best`, the iteration whose Solver is published, once all scores are known; 0 is the base, which is
    not."""
    iteration: int | None = None
    """The newest iteration whose Solver is published."""
    uri: str | None = None
    """Where that lies; spec.model.uri takes it."""


class RoleLayout(_Status):
    """How one role is trained."""

    lora: bool = False
    """As an adapter; all weights otherwise."""
    sharding: Literal["none", "fsdp"] = "none"
    """none, or fsdp where the processes share the model out among them, as in grpo.sharding."""
    cpu_offload: bool = False
    """Its shares lie in CPU memory, as in grpo.cpuOffload."""
    gradient_checkpointing: bool = False
    """As in grpo.gradientCheckpointing."""
    engine_batch_size: int | None = None
    """Of the Challenger: batchSize of the engine transformers, by which the frozen Solver answers, or would where
    spec.engines has vLLM answer."""


class Layout(_Status):
    """How both roles are trained on their pods' GPUs: what spec.layout auto has come to. It is chosen once."""

    challenger: RoleLayout
    """The role that writes questions."""
    solver: RoleLayout
    """The role that answers."""


class ChosenEngines(_Status):
    """Which kind of engine answers, part by part: what spec.engines auto comes to, by the run's pods as they are."""

    challenger: str
    """Of the frozen Solver in the Challenger's training."""
    rollout: str
    """Of both models in a rollout."""
    evaluation: str | None = None
    """Of the Solver in its evaluation."""


class RunStatus(_Status):
    """Where a run stands."""

    observed_generation: int = 0
    """The metadata.generation that this status is about."""
    schema_version: int | None = None
    """Version of the artifact schema by which its steps are planned; 1 where it is not recorded. An operator of another
    one lets what runs end, and starts nothing."""
    phase: RunPhase = "Pending"
    """Pending, Running, Suspended, Succeeded or Failed."""
    iteration: int = 0
    """The iteration being worked on."""
    score: float | None = None
    """Score of the newest evaluated Solver."""
    best: IterationStatus | None = None
    """The iteration whose Solver is the best so far; without evaluation the last one that is finished."""
    model_uri: str | None = None
    """The best Solver so far."""
    started_at: str | None = None
    """When the first step started."""
    finished_at: str | None = None
    """When the run succeeded or failed."""
    iterations: list[IterationStatus] = []
    """The last ten."""
    done: list[str] = []
    """Of a run of very many iterations, steps that are long done, each in a line: name, key in base64, scores."""
    steps: list[StepStatus] = []
    """Every step of the plan."""
    attempts: list[AttemptStatus] = []
    """The last twenty."""
    fork: Fork | None = None
    """Where the run begins, of one with spec.forkFrom; none as long as that is not known, and nothing is planned."""
    layout: Layout | None = None
    """How both roles are trained on their pods' GPUs, of a run with spec.layout auto."""
    engines: ChosenEngines | None = None
    """What answers for frozen models, of a run with spec.engines auto."""
    rollbacks: list[Rollback] = []
    """How often the run went back to a good iteration, in the order in which it did. They are part of its plan."""
    finetune: FinetuneStatus | None = None
    """What comes of spec.finetune, once it is known which Solver it is to train."""
    publish: PublishStatus | None = None
    """What comes of spec.publish, once something does."""
    guards: list[GuardStatus] = []
    """What each guard of spec.guards says."""
    watch: str = ""
    """The same in a word or two: passing, or which guards have warned or tripped."""
    judge: str = ""
    """Of a run with a Verifier: the iteration whose judge scores, and those whose judges were not promoted since."""
    usage: Usage | None = None
    """What the run has used so far, for spec.budget; none before anything ran."""
    conditions: list[Condition] = []
    """What is true of the run, in the form that Kubernetes' tools read."""

    @model_validator(mode="before")
    @classmethod
    def _unpacked(cls, data: Any) -> Any:
        """Whoever reads a status has all of its steps as records."""
        if not isinstance(data, Mapping) or not data.get("done"):
            return data
        steps = [*unpacked(data["done"]), *(data.get("steps") or [])]
        return {**data, "done": [], "steps": sorted(steps, key=lambda step: step["iteration"])}
