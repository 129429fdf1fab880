"""The Solver: the role that answers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.names import Interval
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rewards import SolverRewardMode


class SolverReward(Closed):
    """What the Solver is paid for."""

    mode: SolverRewardMode = "paper"
    """`paper`: 1 for the label, else 0. `code`: 0.9 x accuracy + 0.1 x format. `judged`: by the judge of a run with
    verifier. Two need no label, and are arms to compare labels with. `confidence`: the share of the group's answers
    that are equal to it. `selfCertainty`: the mean over its tokens of KL(U || p), how far the policy's distribution p
    is from the uniform one U over the vocabulary."""


SOLVER_SYSTEM = "Reason step by step, and put your final answer within \\boxed{}."


class Solver(Closed):
    """The role that answers."""

    prompt: Prompt = Prompt(system=SOLVER_SYSTEM, user="{question}")
    """What it is asked, in training, rollout and evaluation."""
    max_prompt_length: Annotated[Whole, Field(ge=1, le=1_000_000)] = 2048
    """Longest prompt in tokens, the question in it. A longer question is worth nothing to the Challenger, is not
    answered in the rollout, and is dropped there as `too_long`."""
    grpo: Grpo = Grpo()
    """Its training."""
    reward: SolverReward = SolverReward()
    """What it is paid for."""
    engine: Engine = TransformersEngine()
    """How it generates in its phase."""
    checkpoint_every: Interval = "10m"
    """How often training's state goes to the store: a number of steps, or a duration such as 10m. By time, a checkpoint
    is taken at the first optimizer update after it, within a step too, or when a step's completions are generated, and
    never waits for the one before it. By steps, it is taken after each so many, and waits for the one before it: a kill
    costs at most so many steps."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.prompt.user.contains('{question}')",
            lambda solver: "{question}" in solver.prompt.user,
            "prompt.user never shows the question; put {question} into it",
        ),
    )
