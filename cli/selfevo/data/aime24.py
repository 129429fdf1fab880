"""AIME of 2024, both papers: 30 problems. Answers are whole numbers, also written as ``025``.

Columns as lighteval reads them: huggingface/lighteval, src/lighteval/tasks/tasks/aime.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain

DATA_SET = DataSet(
    name="aime24",
    repository="HuggingFaceH4/aime_2024",
    split="train",
    questions=30,
    answers="math",
    group="math",
    columns=("problem", "answer"),
    read=plain,
)
