"""MMLU-Pro (arXiv 2406.01574): 12,032 questions with up to ten options.

Columns as lighteval reads them: huggingface/lighteval, src/lighteval/tasks/tasks/mmlu_pro.py. Options that say ``N/A``
are left out at the end, as the benchmark's own script leaves them out; letters stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfevo.data.base import DataSet, text_of, with_options


def _read(question: object, options: Sequence[object] | None, letter: object) -> tuple[str, str] | None:
    kept = list(options or [])
    while kept and text_of(kept[-1]) == "N/A":
        kept.pop()
    return with_options(question, kept, letter)


DATA_SET = DataSet(
    name="mmlu-pro",
    repository="TIGER-Lab/MMLU-Pro",
    split="test",
    questions=12_032,
    answers="choice",
    group="general",
    columns=("question", "options", "answer"),
    read=_read,
)
