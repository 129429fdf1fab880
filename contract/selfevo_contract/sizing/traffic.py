"""Bytes that a step writes to the object store and reads from it (docs/sizing.md, Traffic to the store). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from selfevo_contract.phases import (
    PHASES,
    ChallengerTrainInputs,
    FinetuneInputs,
    HeldOutInputs,
    SolverRolloutInputs,
    SolverTrainInputs,
    VerifierTrainInputs,
)
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.fit import checkpoint_bytes, judge_checkpoint_bytes
from selfevo_contract.sizing.hours import Lengths, Took, pods_in_all
from selfevo_contract.sizing.speeds import TEXT
from selfevo_contract.sizing.weights import bytes_of, model_bytes, read_by
from selfevo_contract.sizing.work import questions_of
from selfevo_contract.spec.names import seconds_of
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.storage import SAMPLED_QUESTIONS


@dataclass(frozen=True)
class Traffic:
    """Bytes of one step."""

    checkpoints: float = 0
    models: float = 0
    """Committed ones."""
    rows: float = 0
    """Questions and the texts of answers, before they are compressed."""
    read: float = 0
    """Models, by every pod; none is in a node's cache."""

    @property
    def written(self) -> float:
        return self.checkpoints + self.models + self.rows


def traffic(took: Took, spec: RunSpec, model: Architecture, lengths: Lengths) -> Traffic:
    """Of the step that ``took`` is of, whose hours say how many checkpoints by time there are."""
    step = took.step
    part = getattr(spec, PHASES[step.phase].part)
    read = pods_in_all(step, spec) * sum(bytes_of(ref, spec, model) for ref in read_by(step))
    match step.inputs:
        case ChallengerTrainInputs() | SolverTrainInputs() | FinetuneInputs():
            grpo = step.inputs.grpo
            saved = checkpoints(grpo, part.checkpoint_every, took.generating, took.training) * checkpoint_bytes(
                grpo, model
            )
            return Traffic(saved, model_bytes(grpo, model), 0, read)
        case SolverRolloutInputs() as inputs:
            kept = {"all": inputs.questions, "sample": min(SAMPLED_QUESTIONS, inputs.questions), "votes": 0}
            tokens = inputs.questions * lengths.of(inputs.question_sampling.max_completion_length)
            answers = kept[spec.storage.keep_answers] * inputs.samples
            tokens += answers * lengths.of(inputs.answer_sampling.max_completion_length)
            return Traffic(rows=TEXT.value * tokens, read=read)
        case VerifierTrainInputs() as inputs:
            assert spec.verifier is not None
            head = inputs.settings.head.max_steps if inputs.settings.model is None else 0
            steps = JudgeSteps(head if inputs.judge is None else inputs.settings.max_steps)
            # Completions are written before the training.
            saved = checkpoints(steps, part.checkpoint_every, training=took.training)
            saved *= judge_checkpoint_bytes(spec.verifier, model)
            return Traffic(saved, models=4 * model.parameters, rows=TEXT.value * took.tokens, read=read)
        case HeldOutInputs() as inputs if spec.storage.keep_answers != "votes":
            tokens = sum(
                questions_of(task.name)
                * (1 + inputs.samples_of(task))
                * lengths.of(inputs.sampling_of(task).max_completion_length)
                for task in inputs.tasks
            )
            return Traffic(rows=TEXT.value * tokens, read=read)
    return Traffic(read=read)


class Steps(Protocol):
    """How long a training is."""

    @property
    def max_steps(self) -> int:
        """How many steps it has."""

    @property
    def updates(self) -> int:
        """How many optimizer updates it has."""


@dataclass(frozen=True)
class JudgeSteps:
    """Of a judge: a step is one update."""

    max_steps: int

    @property
    def updates(self) -> int:
        return self.max_steps


def checkpoints(steps: Steps, every: str | int, generating: float = 0, training: float = 0) -> int:
    """How many checkpoints a training takes: after its last step comes the model itself.

    Args:
        generating: hours of the phase in which completions are written. There is no checkpoint in that time: one by
            time is taken when a step's completions are there, in the first step too, between two parts of the answers
            to them, or at the next optimizer update.
        training: hours in which weights are trained.
    """
    if isinstance(every, int):
        return max(0, steps.max_steps - 1) // every
    interval = max(seconds_of(every), 1e-3) / 3600
    in_a_step = 1 + int(training / max(1, steps.max_steps) / interval)
    return max(0, min(int((generating + training) / interval), steps.max_steps * in_a_step, steps.updates))
