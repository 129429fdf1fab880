"""What a run asks of a judge with criteria (verifier.kind rubric): calls and tokens, beside its budget. Pure.

An upper limit, as `work` has it: every question is a valid one, and no answer is written twice. What is asked again,
because the judge's answer was not the JSON that it must be, is not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log10

from selfevo_contract.phases import ChallengerTrainInputs, SolverRolloutInputs, SolverTrainInputs
from selfevo_contract.plan_steps import Plan, Step
from selfevo_contract.sizing.hours import Lengths
from selfevo_contract.sizing.memory import PROMPT_TOKENS
from selfevo_contract.sizing.speeds import CRITERIA, TEXT, VERDICT
from selfevo_contract.spec.rubric import Pairwise, Rubric
from selfevo_contract.spec.run import RunSpec

LIMIT = "spec.verifier.rubric.endpoint.maxTokens"


@dataclass(frozen=True)
class Judged:
    """What one step asks."""

    step: Step
    answers: int
    calls: int
    tokens: float
    """Read and written."""


def judged(spec: RunSpec, steps: Plan, lengths: Lengths, done: Collection[str] = ()) -> list[Judged]:
    """Of each step that is not ``done`` and asks the judge, in the order of the plan; nothing in a run without one."""
    rubric = _rubric(spec)
    if rubric is None:
        return []
    left = [step for step in steps.steps if step.name not in done]
    return [found for step in left if (found := _of(step, rubric, lengths)) is not None]


def limit_of(spec: RunSpec) -> int | None:
    """Tokens that a step may ask the judge for at most; None without such a judge, and where nobody says."""
    rubric = _rubric(spec)
    return rubric.endpoint.max_tokens if rubric is not None else None


def _rubric(spec: RunSpec) -> Rubric | None:
    return spec.verifier.rubric if spec.verifier is not None else None


def warnings(spec: RunSpec, found: Sequence[Judged]) -> list[str]:
    """Budgets that a run cannot come to its end with: a sentence for each phase whose step asks for more."""
    rubric, limit = _rubric(spec), limit_of(spec)
    if rubric is None or limit is None:
        return []
    largest: dict[str, Judged] = {}
    for one in found:
        if one.tokens > max(limit, largest[one.step.phase].tokens if one.step.phase in largest else 0):
            largest[one.step.phase] = one
    return [
        f"{LIMIT} is {limit:,}, and {one.step.name} may ask the judge for about {_rounded(one.tokens):,} tokens in "
        f"{one.calls:,} calls: it would stop with JudgeBudgetExceeded; raise it to that, or lower "
        f"{_remedy(one, rubric)}"
        for one in largest.values()
    ]


def _remedy(one: Judged, rubric: Rubric) -> str:
    fields = {
        ChallengerTrainInputs: "challenger.reward.solverSamples",
        SolverRolloutInputs: "rollout.samples",
        SolverTrainInputs: "solver.grpo.promptsPerStep",
    }
    remedies = [f"verifier.rubric.votes ({rubric.votes})"] if rubric.votes > 1 else []
    if rubric.pairwise is not None and isinstance(one.step.inputs, SolverTrainInputs):
        remedies.append(f"verifier.rubric.pairwise.comparisons ({rubric.pairwise.comparisons})")
    return " or ".join([*remedies, fields[type(one.step.inputs)]])


def _of(step: Step, rubric: Rubric, lengths: Lengths) -> Judged | None:
    scored = compared = 0  # answers by themselves; pairs, each in both orders
    match step.inputs:
        case ChallengerTrainInputs(rubric=Rubric()) as inputs:
            answers = scored = inputs.grpo.max_steps * inputs.grpo.completions_per_step * inputs.reward.solver_samples
            longest = inputs.solver_sampling.max_completion_length
        case SolverRolloutInputs(rubric=Rubric()) as inputs:
            scored, longest = inputs.questions * inputs.samples, inputs.answer_sampling.max_completion_length
            anchors = rubric.anchor_pairs if inputs.anchors is not None else 0
            answers = scored + 2 * anchors
            if rubric.pairwise is not None:
                compared = anchors
            else:
                scored += 2 * anchors
        case SolverTrainInputs(rubric=Rubric()) as inputs:
            answers = inputs.grpo.max_steps * inputs.grpo.completions_per_step
            longest = inputs.grpo.max_completion_length
            if rubric.pairwise is not None:
                group = inputs.grpo.num_generations
                compared = answers // group * len(rubric.pairwise.pairs(group))
            else:
                scored = answers
        case _:
            return None
    alone, in_orders = scored * rubric.votes, 2 * compared * rubric.votes
    answer = lengths.of(longest)
    tokens = alone * call_tokens(rubric, answer) + in_orders * call_tokens(rubric, answer, rubric.pairwise)
    return Judged(step, answers, alone + in_orders, tokens)


def call_tokens(rubric: Rubric, answer: float, pairwise: Pairwise | None = None) -> float:
    """Tokens of one call about an answer of ``answer`` tokens, or two with ``pairwise``, read and written."""
    system, answers = (rubric.system, 1) if pairwise is None else (pairwise.system, 2)
    shown = answers * min(answer, rubric.max_characters / TEXT.value)
    asked = len(system) / TEXT.value + CRITERIA.value + PROMPT_TOKENS + shown
    return asked + min(VERDICT.value, rubric.max_completion_length)


def tokens_of(found: Iterable[Judged]) -> float:
    """Of all of them."""
    return sum(one.tokens for one in found)


def _rounded(tokens: float) -> int:
    """Up, to two digits.

    >>> _rounded(123_456), _rounded(99.5), _rounded(7)
    (130000, 100, 7)
    """
    unit = int(10 ** max(0, int(log10(max(tokens, 1))) - 1))
    return ceil(tokens / unit) * unit
