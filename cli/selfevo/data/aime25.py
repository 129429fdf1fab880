"""AIME of 2025, both papers: 30 problems. Answers are whole numbers, one of them written in degrees.

Columns as the data set's card lists them: problem, answer, id.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain

DATA_SET = DataSet(
    name="aime25",
    repository="math-ai/aime25",
    split="test",
    questions=30,
    answers="math",
    group="math",
    columns=("problem", "answer"),
    read=plain,
)
