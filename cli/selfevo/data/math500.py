"""MATH-500: 500 problems of Hendrycks' MATH (arXiv 2103.03874), chosen by «Let's verify step by step» (2305.20050).

Columns as lighteval reads them: huggingface/lighteval, src/lighteval/tasks/tasks/math_500.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain

DATA_SET = DataSet(
    name="math500",
    repository="HuggingFaceH4/MATH-500",
    split="test",
    questions=500,
    answers="math",
    group="math",
    columns=("problem", "answer"),
    read=plain,
)
