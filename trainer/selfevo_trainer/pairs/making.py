"""An iteration's pairs: the Solver answers its tasks, every maker makes of them what it can, the gate drops."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.canonical import derive_seed
from selfevo_contract.judging import AnchorRow, PairRow
from selfevo_contract.phases import VerifierTrainInputs
from selfevo_trainer.context import Context
from selfevo_trainer.judges.base import Judge
from selfevo_trainer.pairs import MAKERS
from selfevo_trainer.pairs.base import Made, Sources
from selfevo_trainer.pairs.gate import gate
from selfevo_trainer.pairs.writing import KeptWriter, OnceWriter, once_opened, tokenizer_of


@dataclass(frozen=True)
class Written:
    """What was made of an iteration's tasks, not judged yet."""

    tasks: list[str]
    made: dict[str, list[Made]]
    """By maker."""
    lengths: dict[str, int]
    """Tokens of each answer."""
    own: list[AnchorRow]
    """Anchors of the Solver's own answers, to tasks that no pair is made of."""
    reach: list[tuple[str, str]]
    """Tasks of the anchors with the Solver's answers, where `gate.reach` asks for them."""


def write_pairs(
    context: Context, inputs: VerifierTrainInputs, questions: Sequence[str], reach: Sequence[str]
) -> Written:
    """Pairs of the curriculum's ``questions``, anchors of those that are kept back for them, and answers to the tasks
    ``reach``."""
    settings = inputs.settings
    order = random.Random(derive_seed(inputs.seed, "tasks")).sample(list(questions), len(questions))
    held = min(settings.sealed.own, len(order) // 4)
    tasks = order[held : held + settings.tasks]

    def other(role: str) -> KeptWriter | None:
        named = getattr(inputs, role) is not None
        return KeptWriter(context, role, OnceWriter(context, inputs, role)) if named else None

    with once_opened(context, inputs, "solver") as writer:
        solver = KeptWriter(context, "solver", writer)
        own = [
            row
            for task, text in zip(order[:held], solver(order[:held], "anchors"), strict=True)
            for row in own_anchors(task, text)
        ]
        reached = list(zip(reach, solver(reach, "reach"), strict=True)) if reach else []
        sources = Sources(
            tasks=tasks,
            answers=solver(tasks, "answers"),
            prompt=inputs.solver_prompt,
            seed=inputs.seed,
            solver=solver,
            challenger=other("challenger"),
            earlier=other("earlier_solver"),
        )
        made: dict[str, list[Made]] = {name: MAKERS[name](sources) for name in settings.pairs}
    return Written(tasks, made, _lengths(tokenizer_of(context, inputs, "solver"), made), own, reached)


def own_anchors(task: str, answer: str) -> list[AnchorRow]:
    """``answer`` over its first half, and over itself repeated: too short and too long, whoever judges.

    >>> [row.rejected for row in own_anchors("Write.", "a b c d")]
    ['a b', 'a b c d a b c d']
    """
    words = answer.split()
    if len(words) < 2:
        return []
    cut, twice = " ".join(words[: len(words) // 2]), f"{answer.strip()} {answer.strip()}"
    return [AnchorRow(question=task, chosen=answer, rejected=worse, source="own") for worse in (cut, twice)]


def rows_of(written: Written, inputs: VerifierTrainInputs, first: Judge | None) -> list[PairRow]:
    """A row for each pair, maker by maker, with the gate's decision."""
    rows = []
    for maker, made in written.made.items():
        reasons = gate(made, inputs.settings.gate, lambda text: written.lengths.get(text, len(text)), first)
        rows += [
            PairRow(
                question=written.tasks[pair.task],
                chosen=pair.chosen,
                rejected=pair.rejected,
                maker=maker,
                dropped=reason,
            )
            for pair, reason in zip(made, reasons, strict=True)
        ]
    return rows


def _lengths(tokenizer: Any, made: dict[str, list[Made]]) -> dict[str, int]:
    texts = {text.strip() for pairs in made.values() for pair in pairs for text in (pair.chosen, pair.rejected)}
    return {text: len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts}
