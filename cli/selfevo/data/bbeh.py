"""BIG-Bench Extra Hard (arXiv 2502.19187): 4,520 questions of 23 tasks. Answers are short texts.

Columns as lighteval reads those of the same rows: huggingface/lighteval,
src/lighteval/tasks/tasks/bigbench_extra_hard.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain

DATA_SET = DataSet(
    name="bbeh",
    repository="BBEH/bbeh",
    split="train",
    questions=4520,
    answers="text",
    group="general",
    columns=("input", "target"),
    read=plain,
)
