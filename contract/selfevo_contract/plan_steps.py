"""The steps of a plan, and the plan: what `plan.plan` makes. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from selfevo_contract.phases import EVALUATE, PHASES, Inputs, ModelRef, Phase, PhaseType, StepModelRef
from selfevo_contract.spec.evaluation import Task
from selfevo_contract.status import RunStatus


@dataclass(frozen=True)
class Step:
    """One step: what it computes (``inputs``), under which key, and the steps that it waits for."""

    name: str
    """E.g. ``solver-train-2``; unique in the plan."""
    iteration: int
    inputs: Inputs
    key: str
    parents: tuple[str, ...]
    """Names of steps of this plan."""

    @property
    def phase(self) -> Phase:
        return self.inputs.phase

    @property
    def type(self) -> PhaseType:
        """What is known of its phase."""
        return PHASES[self.phase]

    @property
    def shards(self) -> int:
        """Parts that run independently."""
        return getattr(self.inputs, "shards", 1) if self.type.sharded else 1


@dataclass(frozen=True)
class Plan:
    """The steps, parents before children."""

    steps: tuple[Step, ...]
    solvers: tuple[ModelRef, ...]
    """Solver(0), Solver(1), ...: what each iteration ends with; index 0 is the base."""
    challengers: tuple[ModelRef, ...]
    """Challenger(0), Challenger(1), ..."""
    unscheduled: tuple[Step, ...] = ()
    """Evaluations between those that the spec asks for. One that is recorded, because it was the last one before
    ``iterations`` was raised, keeps its score; none is run."""
    rollbacks: int = 0
    """How many of the run's rollbacks are in it."""
    start: int = 0
    """The iteration that it goes on from; its own ones are those after it. Between the base and it, nothing is known of
    the models: the base stands there."""
    best: int | None = None
    """The iteration whose Solver is fine-tuned and published, as it is recorded; None, as before the scores are known:
    the last."""

    @cached_property
    def by_name(self) -> dict[str, Step]:
        return {step.name: step for step in self.steps}

    def making(self, iteration: int) -> list[Step]:
        """The steps that make the models of ``iteration``: without those that score them, publish or fine-tune."""
        own = (step for step in self.steps if step.iteration == iteration)
        return [step for step in own if not (step.type.scores or step.type.closes)]

    def keeping(self, done: Container[str]) -> Plan:
        """The plan in which those of ``unscheduled`` that ``done`` names are steps, each behind its Solver's training:
        for whoever shows what a run has."""
        kept = [step for step in self.unscheduled if step.name in done]
        if not kept:
            return self
        steps = list(self.steps)
        for step in kept:
            before = [n for n, it in enumerate(steps) if it.iteration <= step.iteration and not it.type.closes]
            steps.insert(max(before, default=-1) + 1, step)
        left = tuple(step for step in self.unscheduled if step.name not in done)
        return replace(self, steps=tuple(steps), unscheduled=left)

    def evaluation_of(self, iteration: int) -> Step | None:
        """The step that scores iteration ``iteration``'s Solver, if the plan has one."""
        return self.by_name.get(f"{EVALUATE.name}-{iteration}")


def as_asked(task: Task, fallback: Mapping[str, object]) -> Task:
    """A task as it is computed: what says the same as the fallback, and the group, move no key."""
    same = [name for name, value in fallback.items() if getattr(task, name) == value]
    return task.model_copy(update=dict.fromkeys([*same, "group"]))


def chosen_of(record: RunStatus) -> int | None:
    """The iteration that was found to be the best when all scores were known, where that is recorded."""
    if record.finetune is not None:
        return record.finetune.iteration
    return record.publish.best if record.publish is not None else None


def made_by(phase: Phase, key: str | None) -> StepModelRef | None:
    """What another run's step has made."""
    return None if key is None else StepModelRef(phase=phase, key=key)
