"""AMC 12 of 2023: 40 problems whose answers are numbers, without their choices.

Columns as atropos reads them: NousResearch/atropos, environments/math_server.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain

DATA_SET = DataSet(
    name="amc23",
    repository="math-ai/amc23",
    split="test",
    questions=40,
    answers="math",
    group="math",
    columns=("question", "answer"),
    read=plain,
)
