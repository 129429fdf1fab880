"""GSM8K (arXiv 2110.14168): 1,319 word problems. A row's answer is a solution with the number behind ``####``.

Columns as lighteval reads them: huggingface/lighteval, src/lighteval/tasks/tasks/gsm8k.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, Row, text_of

_MARK = "####"


def _read(row: Row) -> tuple[str, str] | None:
    question, solution = text_of(row["question"]), text_of(row["answer"])
    number = solution.rpartition(_MARK)[2].strip() if _MARK in solution else ""
    return (question, number) if question and number else None


DATA_SET = DataSet(
    name="gsm8k",
    repository="openai/gsm8k",
    config="main",
    split="test",
    answers="number",
    group="math",
    columns=("question", "answer"),
    read=_read,
)
