"""Minerva's 272 problems of university courses (OCWCourses, arXiv 2206.14858).

Columns as atropos reads them: NousResearch/atropos, environments/math_server.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain

DATA_SET = DataSet(
    name="minerva",
    repository="math-ai/minervamath",
    split="test",
    questions=272,
    answers="math",
    group="math",
    columns=("question", "answer"),
    read=plain,
)
