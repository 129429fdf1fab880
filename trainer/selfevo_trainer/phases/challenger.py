"""challenger-train: GRPO on Challenger(t-1) while the frozen Solver(t-1) answers (docs/method.md, iteration step 1)."""

from __future__ import annotations

from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset

from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import DataError
from selfevo_contract.inputs import ChallengerTrainInputs
from selfevo_contract.phases import PhaseResult
from selfevo_trainer.context import Context
from selfevo_trainer.data import excluded_questions
from selfevo_trainer.engines import Engine, open_engine
from selfevo_trainer.extraction import last_boxed, normalise_question, parse_challenger
from selfevo_trainer.grpo import commit_training, schedule, train
from selfevo_trainer.models import fetch_model, load_tokenizer
from selfevo_trainer.prompts import completion_text, for_trainer, messages
from selfevo_trainer.rewards.repetition import repetition_share
from selfevo_trainer.rewards.uncertainty import challenger_rewards
from selfevo_trainer.voting import Comparer, vote_many

SUMMARY = (
    "reward",
    "uncertainty",
    "repetition",
    "valid",
    "majority_share",
    "distinct",
    "kl",
    "entropy",
    "completions/mean_length",
    "completions/clipped_ratio",
)
_PATIENCE = 3
"""Batches without a single valid question after which training is given up."""


class ChallengerReward:
    """TRL reward function: uncertainty of the Solver less repetition. Shapes: B completions in, B rewards out."""

    __name__ = "challenger"

    def __init__(
        self, inputs: ChallengerTrainInputs, engine: Engine, grader: Comparer, excluded: frozenset[str]
    ) -> None:
        self.inputs = inputs
        self.engine = engine
        self.grader = grader
        self.excluded = excluded

    def __call__(self, completions: list[Any], trainer_state: Any, log_metric: Any = None, **_: Any) -> list[float]:
        reward = self.inputs.reward
        questions = [self._question(completion_text(completion)) for completion in completions]
        valid = [question for question in questions if question is not None]
        seed = derive_seed(self.inputs.seed, "answers", trainer_state.global_step)
        prompts = [messages(self.inputs.solver_prompt, question) for question in valid]
        answers = self.engine.generate(prompts, self.inputs.solver_sampling, reward.solver_samples, seed)
        votes = vote_many([[last_boxed(completion.text) for completion in group] for group in answers], self.grader)
        shares = iter(vote.share if vote.answer is not None else 0.0 for vote in votes)
        shares_B = [next(shares) if question is not None else None for question in questions]
        # |C|/B is over the batch of all processes; an invalid completion enters as the empty string.
        texts = [question or "" for question in questions]
        everyone = gather_object(texts)
        mine = _offset(len(texts), len(everyone))
        repetition_B = repetition_share(everyone, reward.repetition.distance)[mine : mine + len(texts)]
        rewards = challenger_rewards(reward.mode, shares_B, repetition_B, reward.repetition.weight)
        if log_metric is not None:
            log_metric("valid", len(valid) / len(questions))
            log_metric("repetition", float(repetition_B.mean()))
            log_metric("distinct", len({normalise_question(text) for text in valid}) / len(questions))
            if valid:
                paid = [
                    item.uncertainty for item, question in zip(rewards, questions, strict=True) if question is not None
                ]
                log_metric("uncertainty", sum(paid) / len(paid))
                log_metric("majority_share", sum(vote.share for vote in votes) / len(votes))
        return [item.total for item in rewards]

    def _question(self, text: str) -> str | None:
        parsed = parse_challenger(text)
        if parsed is None or normalise_question(parsed.question) in self.excluded:
            return None
        return parsed.question

    def check(self, history: list[dict[str, Any]]) -> None:
        """Raises DataError when the Challenger has not written one valid question in its first steps."""
        grpo = self.inputs.grpo
        shares = [row["valid"] for row in history if isinstance(row.get("valid"), int | float)]
        if len(shares) >= min(_PATIENCE, -(-grpo.max_steps // grpo.num_iterations)) and not any(shares):
            raise DataError(
                f"the Challenger wrote no valid question in {len(shares) * grpo.completions_per_step} "
                "completions (<question>...</question> and \\boxed{...}); change spec.challenger.prompt, raise "
                "spec.challenger.grpo.maxCompletionLength, or start from a model that follows the format",
                reason="NoValidQuestion",
            )


def _offset(local: int, total: int) -> int:
    if local == total:
        return 0
    import torch.distributed

    return local * torch.distributed.get_rank()


def run(context: Context) -> PhaseResult:
    """Train, commit, clear the checkpoints."""
    inputs = context.config.inputs
    assert isinstance(inputs, ChallengerTrainInputs)
    model_dir = fetch_model(context, inputs.challenger, "challenger")
    solver_dir = fetch_model(context, inputs.solver, "solver")
    excluded = excluded_questions(context, inputs.exclude)
    tokenizer = load_tokenizer(model_dir, inputs.loading)
    prompt = for_trainer(tokenizer, messages(inputs.prompt))
    dataset = Dataset.from_list([{"prompt": prompt} for _ in schedule(1, inputs.grpo, inputs.seed)])
    with context.clock.during("load"):
        engine = context.timed_engine(open_engine(context.config.engine, solver_dir, inputs.loading))
    with context.grader() as grader:
        reward = ChallengerReward(inputs, engine, grader, excluded)
        files, history = train(
            context,
            model_dir=model_dir,
            tokenizer=tokenizer,
            loading=inputs.loading,
            grpo=inputs.grpo,
            seed=inputs.seed,
            dataset=dataset,
            reward=reward,
            valid=reward.check,
        )
    return commit_training(context, files, history, SUMMARY)
