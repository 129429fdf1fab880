"""The rules before math-verify: one example of each, and what each leaves alone."""

from __future__ import annotations

import doctest
import subprocess
import sys
import time
from fractions import Fraction

import pytest

from selfevo_trainer.answers import arithmetic, commands, forms, lists, units, values, words
from selfevo_trainer.answers.arithmetic import exact_value
from selfevo_trainer.answers.forms import MAX_CHARS, RULES, answer_form
from selfevo_trainer.answers.values import compare


@pytest.mark.parametrize(
    "module",
    [arithmetic, commands, forms, lists, units, values, words],
)
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_each_rule_has_an_example():
    assert [rule.__name__ for rule in RULES if ">>>" not in (rule.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1101_2", Fraction(13)),
        ("12_2", None),  # no such digit
        ("A_{12}", None),  # a name with an index
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"0.12\ldots", None),  # nothing repeats
        ("2^{3}^{2}", None),
        (r"10^{-400}", Fraction(1, 10**400)),
        (r"10^{10^{10}}", None),  # too large to be written out
        (r"9^{9^{9}}", None),
        ("1/0", None),
        ("0^{0}", None),
        ("1.2.3", None),
        ("x", None),
        ("(" * 500 + "1" + ")" * 500, None),
    ],
)
def test_exact_value(text, value):
    assert exact_value(text) == value


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("x+1", "1+x", None),
        ("5 cm", "5", True),
        ("5 cm", "50 mm", True),
        ("5 km north", "5", False),
        ("0.333333", "1/3", True),
        ("0.333333", "0.3333333", False),  # both are exact
        ("0.0000003", "1/3000000", False),
        ("", "5", False),
        ("1,234", "1, 234", False),
    ],
)
def test_compare(a, b, equal):
    assert compare(a, b).equal is compare(b, a).equal is equal


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "{",
        "^(",
        "sqrt(",
        r"\text{",
        r"\mathbf{",
        "1 ",
        "9^",
        "1,",
        "_2",
        "٣",
        "√(",
        "abs(",
        "=",
        "\ue000",
        " a.",
        r"\mathbf{\text{",
        "$",
        "cosx",
        ",x=1",
    ],
)
def test_hostile_answers_take_no_time(piece):
    text = (piece * MAX_CHARS)[:MAX_CHARS]
    started = time.process_time()
    compare(text, text[:-1] + "7")
    compare(piece * 300_000, "7")
    assert time.process_time() - started < 5


def test_marks_of_words_cannot_be_forged():
    assert answer_form("5 \ue000cm\ue001") == answer_form("5cm")


def test_rules_need_no_torch_and_no_parser():
    code = (
        "import sys, selfevo_trainer.answers.values; print({'torch', 'sympy', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("2023-01-02", "2023-02-01", False),  # the difference is 2020 both times
        ("2023-01-02", "2020", False),
        ("2023-01-02", "2023-1-2", True),
        ("1/2/2023", "01/02/2023", True),
        ("1/2/2023", "2/1/2023", False),
        ("31.12.1999", "30.12.1999", False),
        ("12-10-2", "0", True),  # no year, so a difference
        ("1/2/3", "1/6", True),
    ],
)
def test_a_date_is_no_arithmetic(a, b, equal):
    assert compare(a, b).equal is compare(b, a).equal is equal
