"""What a step generates and trains, in sequences: it follows from its inputs alone (docs/method.md). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfevo_contract.phases import (
    ChallengerTrainInputs,
    FinetuneInputs,
    HeldOutInputs,
    Inputs,
    ModelRef,
    SolverRolloutInputs,
    SolverTrainInputs,
    VerifierTrainInputs,
)
from selfevo_contract.sizing.speeds import QUESTIONS
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.rewards import SELF_CERTAINTY
from selfevo_contract.spec.rollout import Rollout
from selfevo_contract.spec.verifier import REACH_TASKS

TASKS = {
    "math500": 500,
    "gsm8k": 1319,
    "amc23": 40,
    "aime24": 30,
    "aime25": 30,
    "minerva": 272,
    "olympiad": 674,
    "mmlu-pro": 12_032,
    "supergpqa": 26_529,
    "bbeh": 4_520,
}
"""Questions of the data sets of `selfevo data` (docs/held-out-data.md), by the names that tasks have by default."""


@dataclass(frozen=True)
class Asked:
    """Sequences that one model generates."""

    sequences: int
    longest: int
    """Tokens of a completion at most."""
    policy: Grpo | None = None
    """The settings by which a model in training generates; None for a frozen one, which the phase's engine answers
    for."""


@dataclass(frozen=True)
class Work:
    """Of one step."""

    asked: tuple[Asked, ...]
    trained: Grpo | None = None
    """How what the policy generated is trained on; None where nothing is trained."""
    given: int = 0
    """Sequences that are trained on as they stand in data."""
    scored: Asked | None = None
    """Answers that a judge reads, or the policy itself once more."""
    pairs: Asked | None = None
    """Answers that a judge is trained on."""

    @property
    def sequences(self) -> int:
        return sum(part.sequences for part in self.asked) + self.given


def work_of(inputs: Inputs) -> Work:
    """Every question is taken for a valid one, so that it is an upper limit: 10,240 + 102,400 sequences of the
    Challenger's training, 8,000 + 80,000 of the rollout and 38,400 of the Solver's training with R-Zero's settings."""
    match inputs:
        case ChallengerTrainInputs():
            written = inputs.grpo.max_steps * inputs.grpo.completions_per_step
            answers = written * inputs.reward.solver_samples
            return Work(
                (
                    Asked(written, inputs.grpo.max_completion_length, inputs.grpo),
                    Asked(answers, inputs.solver_sampling.max_completion_length),
                ),
                inputs.grpo,
                scored=_scored(inputs.judge, answers, inputs.solver_sampling.max_completion_length),
            )
        case SolverRolloutInputs():
            answers, longest = inputs.questions * inputs.samples, inputs.answer_sampling.max_completion_length
            voters = 1 if inputs.member is None else 2
            return Work(
                (
                    Asked(inputs.questions, inputs.question_sampling.max_completion_length),
                    Asked(voters * answers, longest),
                ),
                scored=_scored(inputs.judge, answers, longest),
            )
        case SolverTrainInputs():
            written = inputs.grpo.max_steps * inputs.grpo.completions_per_step
            longest = inputs.grpo.max_completion_length
            read = inputs.judge is not None or inputs.reward.mode == SELF_CERTAINTY
            return Work(
                (Asked(written, longest, inputs.grpo),), inputs.grpo, scored=Asked(written, longest) if read else None
            )
        case VerifierTrainInputs():
            return _of_a_judge(inputs)
        case FinetuneInputs() if inputs.kind == "sft":
            return Work((), inputs.grpo, inputs.grpo.updates * inputs.grpo.prompts_per_step)
        case FinetuneInputs():
            written = inputs.grpo.max_steps * inputs.grpo.completions_per_step
            return Work((Asked(written, inputs.grpo.max_completion_length, inputs.grpo),), inputs.grpo)
        case HeldOutInputs():
            return Work(
                tuple(
                    Asked(
                        questions_of(task.name) * (1 + inputs.samples_of(task)),  # the greedy one, too
                        inputs.sampling_of(task).max_completion_length,
                    )
                    for task in inputs.tasks
                )
            )
    return Work(())


def _scored(judge: ModelRef | None, answers: int, longest: int) -> Asked | None:
    return None if judge is None else Asked(answers, longest)


ANSWERS_OF = {"decomposition": 7, "swap": 0, "corrupt": 0, "role": 1, "temporal": 1}
"""Completions that a maker of pairs has written for a task, beside the Solver's own answer: a decomposition is at most
five parts, the split before them and what is composed of them."""


def _of_a_judge(inputs: VerifierTrainInputs) -> Work:
    settings, longest = inputs.settings, inputs.answer_sampling.max_completion_length
    if inputs.judge is None:  # the first one
        steps = settings.head.max_steps if settings.model is None else 0
        return Work((), pairs=Asked(2 * steps * settings.batch_size, longest))
    written = settings.tasks * (1 + sum(ANSWERS_OF[maker] for maker in settings.pairs)) + settings.sealed.own
    scored = 2 * settings.tasks * len(settings.pairs)
    if settings.gate.reach is not None:  # as often as a rollout answers a task, which is no input of this step
        reach = REACH_TASKS * int(Rollout.model_fields["samples"].default)
        written, scored = written + reach, scored + reach
    trained = Asked(2 * settings.max_steps * settings.batch_size, longest)
    return Work((Asked(written, longest),), scored=Asked(scored, longest), pairs=trained)


def questions_of(task: str) -> int:
    """Questions of a held-out task: known by its name, or guessed."""
    return TASKS.get(task, int(QUESTIONS.value))
