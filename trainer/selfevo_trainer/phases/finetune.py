"""finetune: a model is trained on labelled data, supervised or by GRPO with true labels (docs/finetune.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from selfevo_contract.errors import InputError
from selfevo_contract.phases import FinetuneInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import HeldOut
from selfevo_trainer.answers.kinds import KindComparer
from selfevo_trainer.answers.labelled import target, truth
from selfevo_trainer.context import Context
from selfevo_trainer.grpo.dealing import schedule
from selfevo_trainer.grpo.train import TrainRequest, commit_training, train
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.data import held_out_questions, read_held_out
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.phases.solver_train import SUMMARY
from selfevo_trainer.prompts import encode, encode_text, for_trainer, messages
from selfevo_trainer.solver_rewards import SolverReward

FIELD = "spec.finetune.data"
SUPERVISED_SUMMARY = ("loss", "mean_token_accuracy", "entropy")


@dataclass
class Labelled:
    """What is trained on, and what of the data is left out."""

    rows: list[HeldOut] = field(default_factory=list)
    held_out: int = 0
    """Repeat a held-out question, or have too many words in a row in common with one."""
    too_long: int = 0
    """The prompt has more tokens than solver.maxPromptLength, or the answer more than solver.grpo.maxCompletionLength.
    """

    @property
    def metrics(self) -> dict[str, float]:
        counts = {"kept": len(self.rows), "dropped_held_out": self.held_out, "dropped_too_long": self.too_long}
        return {"questions": float(sum(counts.values())), **{name: float(count) for name, count in counts.items()}}


def labelled(context: Context, inputs: FinetuneInputs, tokenizer: Any) -> Labelled:
    """The data's rows that may be trained on, each with its true answer (grpo) or with what is learned of it (sft).

    Raises:
        InputError: it is not there, not as it has to be, or nothing of it is left.
    """
    rows = read_held_out(context, inputs.data, FIELD)
    forbidden = held_out_questions(context, inputs)
    found = Labelled()
    for number, row in enumerate(rows, 1):
        answer = truth(row.answer, inputs.answers)
        if answer is None:
            raise InputError(
                f"{FIELD}.uri is {inputs.data.uri!r}, whose row {number} has the answer {row.answer[:40]!r}, which is "
                f"no {inputs.answers}; correct it, or choose another kind in spec.finetune.answers"
            )
        if inputs.kind == "sft":
            answer = target(row.answer, inputs.answers)
        if forbidden.holds(row.question) or forbidden.overlaps(row.question):
            found.held_out += 1
        elif not _fits(tokenizer, inputs, row.question, answer):
            found.too_long += 1
        else:
            found.rows.append(HeldOut(question=row.question, answer=answer))
    if not found.rows:
        raise InputError(
            f"{FIELD}.uri is {inputs.data.uri!r}, and of its {len(rows)} rows none is left to train on: "
            f"{found.held_out} repeat a held-out question and {found.too_long} are too long; name other data, or raise "
            "spec.solver.maxPromptLength or spec.solver.grpo.maxCompletionLength"
        )
    return found


def _fits(tokenizer: Any, inputs: FinetuneInputs, question: str, answer: str) -> bool:
    prompt = encode(tokenizer, messages(inputs.prompt, question))
    if len(prompt) > inputs.max_prompt_length:
        return False
    written = encode_text(tokenizer, answer) if inputs.kind == "sft" else []
    return len(written) < inputs.grpo.max_completion_length  # and a token that ends it


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
