"""finetune: a model is trained on labelled data, supervised or by GRPO with true labels (docs/finetune.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from selfevo_contract.phases import FinetuneInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import HeldOut
from selfevo_trainer.answers.kinds import KindComparer
from selfevo_trainer.context import Context
from selfevo_trainer.grpo.dealing import schedule
from selfevo_trainer.grpo.train import TrainRequest, commit_training, train
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.labelled_data import labelled
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.phases.solver_train import SUMMARY
from selfevo_trainer.prompts import encode, encode_text, for_trainer, messages
from selfevo_trainer.solver_rewards import SolverReward

SUPERVISED_SUMMARY = ("loss", "mean_token_accuracy", "entropy")


def supervised(tokenizer: Any, inputs: FinetuneInputs, rows: Sequence[HeldOut]) -> Dataset:
    """Tokens and labels: the prompt as it is asked in training and evaluation, then the answer and its end."""

    def tokens(row: HeldOut) -> dict[str, Any]:
        asked = messages(inputs.prompt, row.question)
        prompt = encode(tokenizer, asked)
        answer = [*encode_text(tokenizer, row.answer), tokenizer.eos_token_id]
        return {
            "prompt": for_trainer(tokenizer, asked),
            "input_ids": prompt + answer,
            "labels": [-100] * len(prompt) + answer,
        }

    return Dataset.from_list([tokens(row) for row in rows])


def run(context: Context, inputs: FinetuneInputs) -> PhaseResult:
    """Train, commit, clear the checkpoints."""
    preflight.check(context, inputs)
    model_dir = fetch_model(context, inputs.model, "model")
    tokenizer = load_tokenizer(model_dir, inputs.loading)
    found = labelled(context, inputs, tokenizer)
    summary: tuple[str, ...] = SUMMARY if inputs.kind == "grpo" else SUPERVISED_SUMMARY
    rows = [found.rows[i] for i in schedule(len(found.rows), inputs.grpo, inputs.seed)]
    with context.grader(inputs.grading) as grader:
        if inputs.kind == "sft":
            reward, dataset = None, supervised(tokenizer, inputs, rows)
        else:
            assert inputs.reward is not None
            reward = SolverReward(inputs.reward.mode, KindComparer(inputs.answers, grader))
            dataset = Dataset.from_list(
                [
                    {"prompt": for_trainer(tokenizer, messages(inputs.prompt, row.question)), "label": row.answer}
                    for row in rows
                ]
            )
        request = TrainRequest(inputs=inputs, model_dir=model_dir, tokenizer=tokenizer, dataset=dataset, reward=reward)
        files, history = train(context, request)
        return commit_training(context, files, history, summary, found.metrics)
