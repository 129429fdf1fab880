"""What a completion says, whatever is in it."""

from __future__ import annotations

import string
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile_answers import hostile_answers
from selfevo_trainer.answers.extraction import (
    ParsedQuestion,
    canonical_number,
    extract_question,
    last_boxed,
    normalise_answer,
    normalise_question,
    parse_challenger,
)

BRACED = st.text(alphabet=r"{}\ab5 ", max_size=40)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{  7 }", "7"),
        (r"\boxed {7}", "7"),
        ("\\boxed\n{7}", "7"),
        # Printed braces do not group.
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        # Over-escaped, as models write inside JSON.
        (r"\\boxed{5}", "5"),
        # The inner one opens last.
        (r"\boxed{x = \boxed{3}}", "3"),
        # Cut off: the last balanced one counts.
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{1} then \boxed{\frac{1}{2}", "1"),
        (r"{{{ \boxed{1}", "1"),
        (r"}}} \boxed{1} }}}", "1"),
        (r"\boxed{ {1 } and \boxed{2}", "2"),
        # Nothing.
        ("42", None),
        ("", None),
        (r"\boxed", None),
        (r"\boxed 5", None),
        (r"\boxed{", None),
        (r"\boxed{5", None),
        (r"\boxed{}", None),
        (r"\boxed{   }", None),
        # An empty last box says nothing; no earlier one takes its place.
        (r"\boxed{5} \boxed{}", None),
        (r"\fbox{5}", None),
        (r"\boxedx{5}", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


@given(BRACED, st.text(alphabet=r"\ab5 {}", max_size=20))
def test_a_box_appended_to_any_text_is_the_last(text, content):
    found = last_boxed(text.removesuffix("\\") + rf" \boxed{{{content}}}")
    if content.strip() and not set(content) & set("{}\\"):
        assert found == content.strip()
    if found is not None:
        assert found == found.strip() != ""


@pytest.mark.parametrize(
    ("completion", "question"),
    [
        ("<question>What is 1+1?</question>", "What is 1+1?"),
        ("<question>\n two\nlines \n</question>", "two\nlines"),
        ("<question>a</question><question>b</question>", "b"),
        ("<question>draft <question>b</question>", "b"),
        ("<question>a</question> rest </question>", "a"),
        ("<question>a</question><question>cut", "a"),
        ("<question></question>", None),
        ("<question>  </question>", None),
        ("<question>a</question><question> </question>", None),
        ("<question>a", None),
        ("a</question>", None),
        ("</question>a<question>", None),
        ("<Question>a</Question>", None),
        ("", None),
    ],
)
def test_extract_question(completion, question):
    assert extract_question(completion) == question


@pytest.mark.parametrize(
    ("completion", "parsed"),
    [
        ("<question>1+1?</question>\n\\boxed{2}", ParsedQuestion("1+1?", "2")),
        ("\\boxed{2} <question>1+1?</question>", ParsedQuestion("1+1?", "2")),
        ("<question>1+1?</question>", None),
        ("\\boxed{2}", None),
        ("<question>1+1?</question> \\boxed{}", None),
        ("<question> </question> \\boxed{2}", None),
    ],
)
def test_a_challengers_completion_needs_both(completion, parsed):
    assert parse_challenger(completion) == parsed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1 + 1?", "what is\n1+1?"),
        ("Straße", "STRASSE"),
        ("４２", "42"),
        ("eﬃcient", "EFFICIENT"),
        ("e\u0301", "\u00e9"),
        ("a\u00a0b\u2003c", "abc"),
        ("x²", "x2"),
    ],
)
def test_questions_that_differ_in_layout_have_one_form(one, other):
    assert normalise_question(one) == normalise_question(other)


@given(st.text(max_size=60))
def test_normalising_a_question_twice_changes_nothing(text):
    form = normalise_question(text)
    assert normalise_question(form) == form
    assert not any(character.isspace() for character in form)


@given(st.text(alphabet=string.printable, max_size=60))
def test_the_short_cut_for_ascii_is_the_same_form(text):
    assert normalise_question(text) == normalise_question(text + "é").removesuffix("é")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        # Plain numbers have one spelling.
        ("5", "5"),
        ("+5", "5"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("- 5", "-5"),
        ("007", "7"),
        ("-0", "0"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("5.000", "5"),
        ("1,000", "1000"),
        ("-1,234,567.80", "-1234567.8"),
        ("1{,}000", "1000"),
        (r"1,\!000", "1000"),
        ("$5$", "5"),
        ("$$5$$", "5"),
        (r"\(5\)", "5"),
        (r"\[ 5 \]", "5"),
        (" 5 .", "5"),
        # Layout.
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\tfrac {1} {2}", r"\frac{1}{2}"),
        (r"\left( 1 + x \right)", "(1+x)"),
        (r"\left. x \right|", "x|"),
        (r"5\,\text{cm}", r"5\text{cm}"),
        (r"\displaystyle x", "x"),
        ("x = 3.", "x=3"),
        # Kept, because joining or rewriting would make another answer.
        ("1 1/2", "1 1/2"),
        ("1 000", "1 000"),
        ("1, 234", "1, 234"),
        ("1,23", "1,23"),
        ("12,34,567", "12,34,567"),
        (r"\pi r", r"\pi r"),
        ("5! !", "5! !"),
        ("x²", "x²"),
        ("٤٢", "٤٢"),
        ("A", "A"),
        ("50%", "50%"),
        ("...", "..."),
        ("$5", "$5"),
        (r"\$5", r"\$5"),
        ("$5$ or $6$", "$5$or$6$"),
        (r"\leftarrow x", r"\leftarrow x"),
        (r"1 \\ 2", r"1\\2"),
        # Never empty.
        ("$$", "$$"),
        (".", "."),
        (r"\,", r"\,"),
    ],
)
def test_normalise_answer(text, form):
    assert normalise_answer(text) == form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1 1/2", "11/2"),
        ("1,234", "1, 234"),
        ("1,23", "123"),
        ("1 2", "12"),
        ("x²", "x2"),
        ("5", "-5"),
        ("A", "a"),
        ("1.5", "15"),
        ("1 .5", "1.5"),
        ("0.1", "0.01"),
        ("10", "1"),
        ("5! !", "5!!"),
        (r"\{1\}", "1"),
        ("[1,2)", "(1,2)"),
        (r"\frac{1}{23}", r"\frac{12}{3}"),
        ("50%", "50"),
        (r"\sqrt{2}x", r"\sqrt{2x}"),
        ("$$", "."),
    ],
)
def test_different_answers_keep_different_forms(one, other):
    assert normalise_answer(one) != normalise_answer(other)


@given(st.text(alphabet=r"\frac{}12.,+- $()xl%~!", max_size=30))
def test_a_form_is_never_empty_for_an_answer(text):
    assert bool(normalise_answer(text)) == bool(text.strip())


@pytest.mark.slow
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4), st.decimals(allow_nan=False, allow_infinity=False))
def test_plain_numbers_are_equal_exactly_when_their_forms_are(a, b):
    one, other = f"{a:f}", f"{b:f}"
    assert (canonical_number(one) == canonical_number(other)) == (a == b)


@pytest.mark.parametrize("text", ["", "+", "-", ".", "1/2", "1e5", "--1", "1.2.3", "1,00", "x", "٤٢", "1\n", "∞"])
def test_what_is_no_plain_number(text):
    assert canonical_number(text) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        *(text for text in hostile_answers(Path("/nonexistent")).values() if len(text) > 100_000),
        "{" * 1_000_000,
        r"\boxed{" * 140_000,
        r"\boxed " * 140_000,
        r"\boxed{" + "1" * 1_000_000 + "}",
        "<question>" * 100_000,
        "</question>" * 90_000,
        "<question></question>" * 50_000,
        "\u0301\u0323" * 500_000,  # quadratic in unicodedata.normalize: ten minutes
        "\u0f73" * 500_000,  # so too, and its combining class is 0
    ],
    ids=lambda text: f"{text[:12]!r}",
)
def test_a_megabyte_takes_linear_time(text):
    started = time.process_time()
    for function in (parse_challenger, last_boxed, normalise_question, normalise_answer):
        function(text)
    assert time.process_time() - started < 10


def test_reading_completions_and_voting_need_no_torch():
    modules = "answers.extraction, answers.grading, answers.voting, curriculum, rewards"
    imports = "; ".join(f"import selfevo_trainer.{module}" for module in modules.split(", "))
    code = f"import sys; {imports}; print(sorted({{'torch', 'sympy', 'math_verify', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
