"""The labelled data of `finetune`: which of its rows are trained on, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import FinetuneInputs
from selfevo_contract.rows import HeldOut
from selfevo_trainer.answers.labelled import target, truth
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.data import held_out_questions, read_held_out
from selfevo_trainer.prompts import encode, encode_text, messages

FIELD = "spec.finetune.data"
READING = "reading labelled data"
REPORTED = 1000
"""After so many rows it is reported how far the reading is."""


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
        if number % REPORTED == 1:
            context.progress(READING, number - 1, len(rows))
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
    context.progress(READING, len(rows), len(rows))
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
