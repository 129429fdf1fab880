"""Kinds of answers of a held-out task, and numbers of JSON as truths."""

from __future__ import annotations

import doctest
import json
from types import SimpleNamespace

import pytest

from selfevo_contract.errors import InputError
from selfevo_contract.rows import HeldOut
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.evaluation import Task
from selfevo_trainer.answers import kinds
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.answers.kinds import KindComparer, truth_of
from selfevo_trainer.inputs import data
from selfevo_trainer.inputs.data import read_held_out
from selfevo_trainer.phases.evaluate import read_task
from selfevo_trainer.process.clock import Clock


@pytest.mark.parametrize("module", [kinds, data])
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize(
    ("kind", "truth", "right", "wrong"),
    [
        (
            "choice",
            "B. 42",
            ["B", "(B)", "b)", r"\\text{B}", r"\\textbf{(B)}", "B. 42", "B: 43", "42"],
            ["A", "A. 42", "43"],
        ),
        ("choice", "(C)", ["C", "C) 7"], ["7", "B"]),
        (
            "number",
            "20 - 2 = 18\\n#### 18",
            ["18", "18.0", r"\\$18", r"18\\text{ dollars}", "#### 18"],
            ["20", "2", "180"],
        ),
        ("number", "#### 1,234", ["1234", "1,234", r"1\\,234"], ["1"]),
        (
            "choice",
            "B",
            [
                "**B**",
                r"\\mathbf{\\text{(B)}}",
                r"\\boxed{B}",
                "Option B",
                "The answer is B",
                "B. 42",
                r"\\textbf{(B) } 42",
            ],
            ["B, C", "A and B", "(A),(B)", "AB", "A) B", "A. B", "D"],
        ),
        (
            "number",
            "1,234.50",
            ["1234.5", r"\\$1,234.50", "$1234.50", "**1234.5**", r"\\mathbf{1234.5}", "1234.50 dollars"],
            ["1234", "12345", "-1234.5", "1234, 5", "1.2345", "1234.5 cents, 2"],
        ),
        ("number", "$18", ["18", r"\\$18", "18 dollars", "$18.00"], ["18 cents", "19", "-18", "1 8"]),
        (
            "text",
            "New York",
            ["**New York**", r"\\mathbf{\\text{New York}}", '"NEW YORK"', "\u201cNew York\u201d"],
            ["NewYork", "New York City"],
        ),
        ("text", "New York", ["new york", r"\\text{New York}", "New  York."], ["York", "New Jersey"]),
        ("math", "1/2", ["0.5"], ["0.6"]),
    ],
)
def test_what_is_right(kind, truth, right, wrong):
    comparer = KindComparer(kind, ExactGrader())
    truth = truth_of(kind, truth.replace("\\n", "\n"))
    answers = [text.replace("\\\\", "\\") for text in right + wrong]
    assert comparer.equal_many([(answer, truth) for answer in answers]) == [True] * len(right) + [False] * len(wrong)


def context():
    return SimpleNamespace(clock=Clock())


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ("0.00001", "0.00001"),
        ("2.5e19", "25000000000000000000"),
        ("1e-7", "0.0000001"),
        ("10000000000000000.0", "10000000000000000.0"),
        ("12345678901234567890", "12345678901234567890"),
        ("-0.10", "-0.10"),
        ('"7"', "7"),
    ],
)
def test_numbers_are_read_as_written(tmp_path, literal, text):
    (tmp_path / "d.jsonl").write_text(f'{{"question": "q", "answer": {literal}}}\n')
    rows = read_held_out(context(), Data(uri=f"file://{tmp_path}/d.jsonl"), "f")
    assert rows == [HeldOut(question="q", answer=text)]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999999999", "true", "null", "[1]"])
def test_what_is_no_answer_is_refused(tmp_path, literal):
    (tmp_path / "d.jsonl").write_text(f'{{"question": "q", "answer": {literal}}}\n')
    with pytest.raises(InputError, match="line 1"):
        read_held_out(context(), Data(uri=f"file://{tmp_path}/d.jsonl"), "f")


def test_an_answer_of_another_kind_is_refused(tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"question": "q", "answer": "forty"}) + "\n")
    task = Task(name="t", data=Data(uri=f"file://{tmp_path}/d.jsonl"), answers="number")
    with pytest.raises(InputError, match="row 1 has the answer 'forty', which is no number"):
        read_task(context(), task, "f")
