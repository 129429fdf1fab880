r"""What a completion says: its question, its boxed answer, and the forms in which texts are compared.

Everything here reads hostile text (docs/design.md, decision 8), so every function is one pass without recursion and
without backtracking: linear time on megabytes, whatever they hold. Nothing here decides that two answers are
mathematically equal; that is ``grading.py``. ``normalise_answer`` only removes differences that cannot change the
mathematics.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# In order: an opening box; any escaped character (\{ and \} are printed braces and do not group; \\ is a line break);
# a brace. The escape leaves a following \boxed alone, so that over-escaped text (\\boxed{5}) still holds a box.
_BRACES = re.compile(r"\\boxed\s*\{|\\(?!\\boxed)[\s\S]|[{}]")


def last_boxed(text: str) -> str | None:
    r"""The stripped content of the last balanced ``\boxed{...}``; None when there is none or when it is empty.

    "Last" is by where the box opens, so the inner one of two nested boxes counts. A box that never closes (a completion
    cut at its maximum length) is no box: an earlier balanced one then counts. An empty last box is an answer that says
    nothing; no earlier one takes its place (docs/method.md: "non-empty ... the last of each counts").

    >>> last_boxed(r"first \boxed{1}, better \boxed{\frac{1}{2}}, and cut: \boxed{\frac{1}")
    '\\frac{1}{2}'
    """
    opened: list[int | None] = []  # where the content of each open group starts; None for a group that is no box
    last: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        kind = token.group()
        if kind == "{":
            opened.append(None)
        elif kind == "}":
            start = opened.pop() if opened else None
            if start is not None and (last is None or start > last[0]):
                last = (start, token.start())
        elif kind.startswith("\\boxed"):
            opened.append(token.end())
    if last is None:
        return None
    return text[last[0] : last[1]].strip() or None


_QUESTION, _QUESTION_END = "<question>", "</question>"


def extract_question(completion: str) -> str | None:
    """The stripped text of the last ``<question>...</question>``; None when there is none or when it is empty.

    >>> extract_question("<question>old</question> no: <question> What is 2+2? </question>")
    'What is 2+2?'
    """
    last_end = completion.rfind(_QUESTION_END)
    if last_end < 0:
        return None
    start = completion.rfind(_QUESTION, 0, last_end)
    if start < 0:
        return None
    start += len(_QUESTION)
    return completion[start : completion.index(_QUESTION_END, start)].strip() or None


@dataclass(frozen=True)
class ParsedQuestion:
    """A valid completion of the Challenger. ``answer`` is its own; the label is the Solver's majority, not this."""

    question: str
    answer: str


def parse_challenger(completion: str) -> ParsedQuestion | None:
    r"""A Challenger's completion, or None when it is invalid (docs/method.md, "Challenger reward").

    Valid: holds a non-empty ``<question>...</question>`` and a non-empty ``\boxed{...}``; the last of each counts.
    """
    question, answer = extract_question(completion), last_boxed(completion)
    if question is None or answer is None:
        return None
    return ParsedQuestion(question, answer)


def normalise_question(text: str) -> str:
    """The form in which duplicates and held-out questions are found: NFKC, casefold, all whitespace removed.

    Two questions that differ only in layout, in case or in compatibility characters (full-width digits, ligatures)
    have one form. Deliberately lossy: a missed duplicate costs more than a wrongly dropped question.
    """
    if text.isascii():
        return "".join(text.lower().split())
    # Again, because folded or joined characters can compose anew (Unicode 3.13, NFKC_Casefold).
    return unicodedata.normalize("NFKC", _stream_safe("".join(folded_words(text))))


def folded_words(text: str) -> list[str]:
    """What stands between blanks, in compatibility form (NFKC) and without case."""
    if text.isascii():
        return text.lower().split()
    return unicodedata.normalize("NFKC", _stream_safe(text)).casefold().split()


_MAX_MARKS = 30  # the bound of Unicode's Stream-Safe Text Format (UAX #15); no orthography comes near it


def _stream_safe(text: str) -> str:
    """Breaks up runs of combining marks.

    Python's canonical ordering sorts each run by insertion, in quadratic time: 80,000 marks take 3.4 s, 1 MB of them
    ten minutes. A COMBINING GRAPHEME JOINER ends a run without changing what is compared.
    """
    parts: list[str] = []
    run = 0
    for character in text:
        run = run + 1 if unicodedata.category(character)[0] == "M" else 0
        if run > _MAX_MARKS:
            parts.append("\u034f")
            run = 1
        parts.append(character)
    return "".join(parts)


# One alternative per rewrite; what an alternative does not name stays as it is. `\\` comes first: in "\\ ," the second
# backslash belongs to a line break, not to a space command.
_REWRITES = re.compile(
    r"""(?P<keep>\\\\)
      | (?P<space>\\[,;:!>\ ] | \\displaystyle(?![A-Za-z]) | ~)
      | (?P<delimiter>\\(?:left|right)(?![A-Za-z])\.?)
      | (?P<frac>\\[dtc]frac(?![A-Za-z]))
      | (?P<comma>\{,\} | ,\\!)
      | (?P<minus>\u2212)
    """,
    re.VERBOSE,
)
_REWRITTEN = {"space": " ", "delimiter": "", "frac": r"\frac", "comma": ",", "minus": "-"}

# Between two of these a space means something: "1 1/2" is not "11/2", "1, 234" is not "1,234", "\pi r" not "\pir".
_WORDLIKE = re.compile(r"[\w.,]")
# Nor between two equal ones of these: (5!)! is not the double factorial 5!!.
_DOUBLES = frozenset("!|*<>=:'")

_MATH_MARKS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))

# Plain numbers. [0-9] and not \d: \d also matches the digits of every other script.
_PLAIN = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]+))?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


def normalise_answer(text: str) -> str:
    r"""The form of an answer for the cheap exact match: equal forms mean equal answers, never the other way round.

    Removed: math marks around the whole (``$..$``, ``\(..\)``), space commands, ``\left``/``\right``,
    ``\displaystyle``, a final full stop, and whitespace, except one space where joining its neighbours would make
    another text (``1 1/2``).
    ``\dfrac`` is ``\frac``. A plain number gets its one spelling: ``+05.50`` and ``5.5``, ``1,000`` and ``1000``,
    ``-0`` and ``0``; therefore two plain numbers are equal exactly when their forms are, however many digits they have.

    Kept apart on purpose, and left to the grader: case, Unicode lookalikes (``x²``), decimal commas, percent signs,
    units, ``1, 234``.
    """
    form = text.strip()
    form = _without_math_marks(form)
    form = _REWRITES.sub(lambda match: _REWRITTEN.get(match.lastgroup or "", match.group()), form)
    form = _join(form.split())
    if form.endswith(".") and not form.endswith(".."):
        form = form[:-1].rstrip()
    form = canonical_number(form) or form
    # An answer of nothing but marks ("$$", ".") keeps its own text, or all of them would be one answer.
    return form or text.strip()


def canonical_number(text: str) -> str | None:
    """The one spelling of a plain number, or None. On text, so exact and linear however many digits there are.

    >>> canonical_number("-0012.500"), canonical_number("1,000,000"), canonical_number("1/2")
    ('-12.5', '1000000', None)
    """
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals = match[1], match[2], match[3]
    if not whole and decimals is None:
        return None
    digits = whole.lstrip("0") or "0"
    if decimals is not None and (decimals := decimals.rstrip("0")):
        digits += "." + decimals
    return "-" + digits if sign == "-" and digits != "0" else digits


def _without_math_marks(text: str) -> str:
    for opening, closing in _MATH_MARKS:
        inner = text[len(opening) : -len(closing)]
        if (
            len(text) > len(opening) + len(closing)
            and text.startswith(opening)
            and text.endswith(closing)
            and not text.endswith("\\" + closing)  # an escaped mark is printed: \$5\$
            and opening not in inner  # several formulas: "$5$ or $6$"
            and closing not in inner
        ):
            return inner.strip()
    return text


def _join(words: list[str]) -> str:
    parts: list[str] = []
    for word in words:
        if parts:
            left, right = parts[-1][-1], word[0]
            if (_WORDLIKE.match(left) and _WORDLIKE.match(right)) or (left == right and left in _DOUBLES):
                parts.append(" ")
        parts.append(word)
    return "".join(parts)
