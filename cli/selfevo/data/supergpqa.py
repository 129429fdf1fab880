"""SuperGPQA (arXiv 2502.14739): 26,529 questions of 285 subjects with up to ten options.

Columns as the benchmark's own script reads them: SuperGPQA/SuperGPQA, eval/eval.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, with_options

DATA_SET = DataSet(
    name="supergpqa",
    repository="m-a-p/SuperGPQA",
    split="train",
    questions=26_529,
    answers="choice",
    group="general",
    columns=("question", "options", "answer_letter"),
    read=with_options,
)
