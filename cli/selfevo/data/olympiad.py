"""OlympiadBench (arXiv 2402.14008): its 674 mathematical problems in English, text only, with a checkable answer.

``final_answer`` is a list; several answers are one, with commas between them, as the benchmark's own grader takes them.
Columns as atropos reads them: NousResearch/atropos, environments/math_server.py.
"""

from __future__ import annotations

from selfevo.data.base import DataSet, plain, text_of


def _read(question: object, final: object) -> tuple[str, str] | None:
    answers = [text_of(answer) for answer in (final if isinstance(final, list) else [final])]
    return plain(question, ", ".join(answer for answer in answers if answer))


DATA_SET = DataSet(
    name="olympiad",
    repository="math-ai/olympiadbench",
    split="test",
    questions=674,
    answers="math",
    group="math",
    columns=("question", "final_answer"),
    read=_read,
)
