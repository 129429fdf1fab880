"""solver-train: GRPO on Solver(t-1) over curriculum(t) (docs/method.md, iteration step 3)."""

from __future__ import annotations

from datasets import Dataset

from selfevo_contract.phases import SOLVER_ROLLOUT, SolverTrainInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import CURRICULUM, CurriculumRow
from selfevo_store import fetch_rows
from selfevo_trainer.context import Context
from selfevo_trainer.grpo.dealing import schedule
from selfevo_trainer.grpo.train import TrainRequest, commit_training, train
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.judges.rubric import totals
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.prompts import for_trainer, messages
from selfevo_trainer.solver_rewards import open_reward

SUMMARY = (
    "reward",
    "kl",
    "entropy",
    "completions/mean_length",
    "completions/clipped_ratio",
    "accuracy",
    "score",
    "ties",
    "majority_share",
    "frac_reward_zero_std",
)


def read_curriculum(context: Context, key: str) -> list[CurriculumRow]:
    """The questions and labels that solver-rollout ``key`` committed.

    Raises:
        InputError: it is not there.
    """
    with context.clock.during("store"):
        prefix, manifest = context.output_of(SOLVER_ROLLOUT.name, key, "trains on that curriculum")
        return fetch_rows(context.store, prefix, manifest, CURRICULUM)


def run(context: Context, inputs: SolverTrainInputs) -> PhaseResult:
    """Train, commit, clear the checkpoints."""
    preflight.check(context, inputs)
    model_dir = fetch_model(context, inputs.solver, "solver")
    curriculum = read_curriculum(context, inputs.curriculum)
    tokenizer = load_tokenizer(model_dir, inputs.loading)
    rows = [curriculum[i] for i in schedule(len(curriculum), inputs.grpo, inputs.seed)]
    dataset = Dataset.from_list(
        [
            {
                "prompt": for_trainer(tokenizer, messages(inputs.prompt, row.question)),
                "label": row.answer,
                "question": row.question,
            }
            for row in rows
        ]
    )
    with open_reward(context, inputs) as reward:
        request = TrainRequest(
            inputs=inputs,
            model_dir=model_dir,
            tokenizer=tokenizer,
            dataset=dataset,
            reward=reward,
        )
        files, history = train(context, request)
        spent = totals([row.metrics for row in history], context.rank.size)
        return commit_training(context, files, history, SUMMARY, spent)
