"""The Challenger: the role that writes questions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.engines import Engine, TransformersEngine
from selfevo_contract.spec.grpo import ChallengerGrpo
from selfevo_contract.spec.names import Interval
from selfevo_contract.spec.pods import Pods
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.rewards import RewardMode
from selfevo_contract.spec.sampling import Sampling


class Repetition(Closed):
    """Penalty on questions that resemble others of the batch: |C|/B by BLEU clusters (docs/method.md)."""

    distance: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Clusters are cut at this average BLEU distance."""
    weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Factor of the share (lambda in the paper); 0 turns the penalty off."""


class Memory(Closed):
    """Penalty on questions that resemble those of earlier iterations: the share of them that lie near by BLEU
    (docs/method.md, "Memory")."""

    weight: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Factor of the share."""
    distance: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A question of an earlier iteration lies near when its BLEU distance is below this."""
    pool: Annotated[Whole, Field(ge=1, le=100_000)] = 2000
    """How many of the newest questions of earlier iterations are remembered."""


class ChallengerReward(Closed):
    """What the Challenger is paid for."""

    mode: RewardMode = "paper"
    """Formulas of the paper (arXiv 2508.05004) or of its public code, where they differ."""
    solver_samples: Annotated[Whole, Field(ge=2, le=1024)] = 10
    """Answers that the frozen Solver gives to each question."""
    repetition: Repetition = Repetition()
    """The repetition penalty."""
    memory: Memory | None = None
    """A penalty on what earlier iterations asked; none when not given."""
    unboxed: Literal["counts", "drops"] = "counts"
    """Answers without a box in the majority share: `counts` divides by all answers, so that they count as
    disagreement (R-Zero's reward); `drops` by those with a box, as R-Zero's code does where it labels."""


CHALLENGER_SYSTEM = (
    "You set problems for mathematics competitions. First think in private: choose a field at random (algebra, "
    "geometry, number theory, combinatorics, prealgebra, probability, statistics, calculus) and invent one new "
    "problem that challenges advanced high-school students, can be solved without pictures, and has exactly one answer "
    "that can be checked. Revise it until it is precise and hard. Then, outside of your private thoughts and with "
    "nothing after it, write exactly these two parts:\n"
    "<question>\nthe full statement of the problem on one or more lines\n</question>\n\n"
    "\\boxed{final answer}\n"
    "Keep the tags as they are, and do not show the solution."
)


CHALLENGER_USER = "Write one new, challenging problem now. Keep to the format exactly."


class Challenger(Closed):
    """The role that writes questions."""

    prompt: Prompt = Prompt(system=CHALLENGER_SYSTEM, user=CHALLENGER_USER)
    """What it is asked; R-Zero's request in our words."""
    grpo: ChallengerGrpo = ChallengerGrpo()
    """Its training."""
    reward: ChallengerReward = ChallengerReward()
    """What it is paid for."""
    question_sampling: Sampling | None = None
    """Sampling of the rollout's questions; when not given, that of its training with topP 0.95, which is the code's."""
    engine: Engine = TransformersEngine()
    """How the frozen Solver answers while the Challenger trains."""
    checkpoint_every: Interval = "10m"
    """How often training's state goes to the store: a number of steps, or a duration such as 10m. By time, a checkpoint
    is taken at the first optimizer update after it, within a step too, or when a step's completions are generated, and
    never waits for the one before it. By steps, it is taken after each so many, and waits for the one before it: a kill
    costs at most so many steps."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.grpo) && has(self.grpo.generation) && self.grpo.generation == 'vllm' && has(self.engine) && "
            "self.engine.kind == 'vllm' && !(has(self.grpo.vllmMode) && self.grpo.vllmMode == 'server'))",
            lambda challenger: not (challenger.grpo.colocated and challenger.engine.kind == "vllm"),
            "grpo.generation and engine.kind are both vllm, and one process holds one vLLM; choose engine.kind server, "
            "or grpo.vllmMode server",
        ),
    )
