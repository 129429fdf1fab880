"""MMLU-Pro (arXiv 2406.01574): 12,032 questions with up to ten options.

Columns as lighteval reads them: huggingface/lighteval, src/lighteval/tasks/tasks/mmlu_pro.py. Options that say ``N/A``
are left out at the end, as the benchmark's own script leaves them out; letters stay what they are.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, Row, text_of, with_options


def _read(row: Row) -> tuple[str, str] | None:
    options = list(row["options"] or [])
    while options and text_of(options[-1]) == "N/A":
        options.pop()
    return with_options(text_of(row["question"]), options, text_of(row["answer"]))


DATA_SET = DataSet(
    name="mmlu-pro",
    repository="TIGER-Lab/MMLU-Pro",
    split="test",
    answers="choice",
    group="general",
    columns=("question", "options", "answer"),
    read=_read,
)
