"""SuperGPQA (arXiv 2502.14739): 26,529 questions of 285 subjects with up to ten options.

Columns as the benchmark's own script reads them: SuperGPQA/SuperGPQA, eval/eval.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, Row, text_of, with_options


def _read(row: Row) -> tuple[str, str] | None:
    return with_options(text_of(row["question"]), row["options"], text_of(row["answer_letter"]))


DATA_SET = DataSet(
    name="supergpqa",
    repository="m-a-p/SuperGPQA",
    split="train",
    answers="choice",
    group="general",
    columns=("question", "options", "answer_letter"),
    read=_read,
)
