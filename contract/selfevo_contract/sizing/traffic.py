"""Bytes that a step writes to the object store and reads from it (docs/sizing.md, Traffic to the store). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfevo_contract.phases import (
    CHALLENGER_TRAIN,
    PHASES,
    VERIFIER_TRAIN,
    BaseModelRef,
    ChallengerTrainInputs,
    FinetuneInputs,
    HeldOutInputs,
    SolverRolloutInputs,
    SolverTrainInputs,
    VerifierTrainInputs,
)
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.fit import checkpoint_bytes
from selfevo_contract.sizing.hours import Lengths, Took, pods_in_all
from selfevo_contract.sizing.speeds import TEXT
from selfevo_contract.sizing.work import questions_of
from selfevo_contract.spec.grpo import Grpo
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
    refs = (getattr(step.inputs, field) for field in step.type.models)
    read = pods_in_all(step, spec) * sum(_model_bytes(ref, spec, model) for ref in refs if ref is not None)
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
        case VerifierTrainInputs():
            return Traffic(models=4 * model.parameters, rows=TEXT.value * took.tokens, read=read)
        case HeldOutInputs() as inputs if spec.storage.keep_answers != "votes":
            tokens = sum(
                questions_of(task.name)
                * (1 + inputs.samples_of(task))
                * lengths.of(inputs.sampling_of(task).max_completion_length)
                for task in inputs.tasks
            )
            return Traffic(rows=TEXT.value * tokens, read=read)
    return Traffic(read=read)


def checkpoints(grpo: Grpo, every: str | int, generating: float = 0, training: float = 0) -> int:
    """How many checkpoints a training takes: after its last step comes the model itself.

    Args:
        generating: hours of the phase in which completions are written. There is no checkpoint in that time: one by
            time is taken at the next optimizer update.
        training: hours in which weights are trained.
    """
    if isinstance(every, int):
        return max(0, grpo.max_steps - 1) // every
    interval = max(seconds_of(every), 1e-3) / 3600
    in_a_step = 1 + int(training / max(1, grpo.max_steps) / interval)
    return max(0, min(int((generating + training) / interval), grpo.max_steps * in_a_step, grpo.updates - 1))


def model_bytes(grpo: Grpo, model: Architecture) -> int:
    """Of what a training commits: all weights or an adapter, in float32."""
    return checkpoint_bytes(grpo, model) // 3


def _model_bytes(ref: object, spec: RunSpec, model: Architecture) -> int:
    """Of a model that a step starts from: the base in `model.dtype`; else as its step saved it, in float32."""
    base = (4 if spec.model.dtype == "float32" else 2) * model.parameters
    if isinstance(ref, BaseModelRef):
        return base
    if getattr(ref, "phase", "") == VERIFIER_TRAIN.name:  # taken for as large as the base
        return 4 * model.parameters
    role = spec.challenger if getattr(ref, "phase", "") == CHALLENGER_TRAIN.name else spec.solver
    return model_bytes(role.grpo, model) + (0 if role.grpo.lora is None else base)
