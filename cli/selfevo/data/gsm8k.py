"""GSM8K (arXiv 2110.14168): 1,319 word problems. A row's answer is a solution with the number behind ``####``.

Columns as lighteval reads them: huggingface/lighteval, src/lighteval/tasks/tasks/gsm8k.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain, text_of

_MARK = "####"


def _read(question: object, answer: object) -> tuple[str, str] | None:
    _, mark, number = text_of(answer).rpartition(_MARK)
    return plain(question, number if mark else None)


DATA_SET = DataSet(
    name="gsm8k",
    repository="openai/gsm8k",
    config="main",
    split="test",
    questions=1319,
    answers="number",
    group="math",
    columns=("question", "answer"),
    read=_read,
)
