r"""Rules that rewrite an answer's text into one spelling, before anything compares it (docs/method.md, "Voting").

Every rule is a pure function of text to text, in ``RULES`` in the order in which they apply. A rule changes how an
answer is written and never what it says; what it cannot read it leaves alone. All are one pass or a bounded number of
passes over at most ``MAX_CHARS`` characters: the text is a model's, hence hostile.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from selfevo_trainer.answers.commands import FUNCTIONS, joined_functions, unwrapped
from selfevo_trainer.answers.extraction import normalise_answer
from selfevo_trainer.answers.words import WORD, is_unit, mark_words

MAX_CHARS = 2000
"""Longer answers are compared by their layout only (``normalise_answer``)."""

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()", strict=True))
_GREEK = (  # noqa: SIM905
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega"
).split()
_GREEK_LETTERS = dict(zip("αβγδεζηθικλμνξρστφχψω", _GREEK, strict=True))
_SYMBOLS = {
    "−": "-", "－": "-", "﹣": "-", "‐": "-", "‑": "-", "×": r"\times ", "✕": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ",
    "•": r"\cdot ", "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "𝜋": r"\pi ", "∞": r"\infty ",
    "°": r"^\circ ", "º": r"^\circ ",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "≈": r"\approx ",
    "∶": ":", "∑": r"\sum ", "∫": r"\int ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "Δ": r"\Delta ", "Ω": r"\Omega ",
    "…": r"\ldots ", "⋯": r"\ldots ", "\u2009": r"\,", "\u202f": r"\,", "\u2019": "'", "\u2032": "'", "\u2033": "''",
    "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "，": ",", "\u066b": ".",
}  # fmt: skip
_SYMBOL = re.compile("[" + re.escape("".join(_SYMBOLS) + "".join(_GREEK_LETTERS)) + "]")


def unicode_forms(text: str) -> str:
    r"""Characters that stand for LaTeX or for ASCII; an en dash between two digits is a range and stays.

    >>> unicode_forms("–3x²"), unicode_forms("1½"), unicode_forms("４２"), unicode_forms("√2"), unicode_forms("3–5")
    ('-3x^{2}', '1\\frac{1}{2}', '42', '\\sqrt{2}', '3–5')
    """
    if text.isascii():
        return text
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+", lambda m: "^{" + "".join(_SUPERSCRIPTS[c] for c in m[0]) + "}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎]+", lambda m: "_{" + "".join(_SUBSCRIPTS[c] for c in m[0]) + "}", text)
    text = re.sub(r"([0-9])\u0304", r"\\overline{\1}", text)
    text = _SYMBOL.sub(lambda m: _SYMBOLS.get(m[0]) if m[0] in _SYMBOLS else f"\\{_GREEK_LETTERS[m[0]]} ", text)  # type: ignore[arg-type,return-value]
    text = re.sub(r"(?<![\w)}\]])\s*[–—]\s*(?=[\w\\(.])", "-", text)
    text = "".join(map(_compatible, text))
    text = re.sub(r"([√∛])\s*\(([^()]*)\)", lambda m: _ROOTS[m[1]] + "{" + m[2] + "}", text)
    text = re.sub(r"([√∛])\s*(\{)", lambda m: _ROOTS[m[1]] + "{", text)
    return re.sub(
        r"([√∛])\s*([0-9]+(?:\.[0-9]+)?|[A-Za-z]|\\[A-Za-z]+)", lambda m: _ROOTS[m[1]] + "{" + m[2] + "}", text
    )


_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]"}


def _compatible(character: str) -> str:
    if character.isascii() or character in "√∛–—":
        return character
    if unicodedata.name(character, "").startswith("VULGAR FRACTION"):
        over = unicodedata.normalize("NFKC", character).split("\u2044")
        return rf"\frac{{{over[0]}}}{{{over[1]}}}" if len(over) == 2 and over[1] else character
    folded = unicodedata.normalize("NFKC", character)
    return folded if folded.isascii() else " " if character.isspace() else character


_SIZES = re.compile(
    r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|bf|it|rm|sf|tt"
    r"|bfseries|itshape|boldmath|quad|qquad|limits|nolimits)(?![A-Za-z])|\\[,;:!> \n]|\\color\s*\{[^{}]*\}"
    r"|\\phantom\{[^{}]*\}"
    r"|\\[hv]space\*?\{[^{}]*\}|\\(?:big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])"
)


def grouped_digits(text: str) -> str:
    r"""Groups of three digits, kept apart by a space of any kind or ``{,}``, are one number; else ``{,}`` is a point.

    >>> grouped_digits(r"12\,345"), grouped_digits("1 234"), grouped_digits("1 2"), grouped_digits("3{,}5")
    ('12345', '1234', '1 2', '3.5')
    """

    def join(match: re.Match[str]) -> str:
        parts = re.split(r"[^0-9]+", match[0])
        return "".join(parts) if parts[0].lstrip("0") else match[0]

    text = re.sub(r"\\!\s*", "", text)
    # Each separator alike: "1 234,567" is not one number.
    for separator in (r"\\[,;:! ]", "~", r"\{,\}", "'", " "):
        before = "0-9.,/_^" if separator == r"\{,\}" else "0-9.,/}_^"
        text = re.sub(
            rf"(?<![{before}])(?<![0-9]\s)[0-9]{{1,3}}(?:{separator}[0-9]{{3}})+(?![0-9/])(?! ?[0-9]+ ?/)", join, text
        )
    return re.sub(r"([0-9])\{,\}([0-9])", r"\1.\2", text)


def formatting(text: str) -> str:
    r"""Commands that change the typography of an answer, not its value.

    >>> formatting(r"\color{red}{42}"), formatting(r"\Large 42"), formatting(r"\mathbf{\pi}"), formatting(r"42\\")
    (' {42}', '  42', '\\pi', '42')
    """
    if "\\" not in text:
        return text
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])\.?", "", text)
    text = re.sub(r"\\(?:le|ge|ne)(?:q|qslant)(?![A-Za-z])", lambda m: m[0][:3] + " ", text)
    text = re.sub(r"\\(?:dots[a-z]?|cdots)(?![A-Za-z])", r"\\ldots", text)
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])", r"^\\circ ", text)
    text = re.sub(r"\\(?:varnothing|empty)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset ", text)
    text = re.sub(r"\\langle(?![A-Za-z])([^<>|()\[\]]*)\\rangle(?![A-Za-z])", r"(\1)", text)
    text = re.sub(r"\\dot\s*\{?([0-9])\}?([0-9]*)\\dot\s*\{?([0-9])\}?", r"\\overline{\1\2\3}", text)
    text = unwrapped(text)
    text = (
        re.sub(r"(?<!\\)((?:\\\\)*)" + _SIZES.pattern, lambda m: (m[1] or "") + " ", text)
        if "matrix" not in text
        else text
    )
    return re.sub(r"(?:\\\\|\s)+$", "", text)


def wrapping(text: str) -> str:
    r"""What stands around the whole: math marks, a full stop, braces, quotes, parentheses, a leading ``=``.

    >>> wrapping(r"\approx 3.14"), wrapping("{42}"), wrapping("(B)"), wrapping("(1,2)"), wrapping("**7**")
    ('3.14', '42', 'B', '(1,2)', '7')
    """
    for _ in range(6):
        before = text
        text = text.strip().strip('\u201c\u201d"`')
        text = re.sub(r"^(?:\\approx(?![A-Za-z])|\\simeq(?![A-Za-z])|=(?!=)|~=|~)\s*", "", text)
        text = re.sub(r"(?<=[^.\s])\s*[.;,]$|(?<=[^\\ ])~$", "", text)
        if len(text) > 2 and text[0] == text[-1] == "*" and "*" not in text[1:-1]:
            text = text[1:-1]
        if len(text) > 2 and text[:2] == text[-2:] == "**":
            text = text[2:-2]
        for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"), ("(", ")")):
            inner = text[len(opening) : -len(closing)]
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and not inner.endswith("\\")
                and _balanced(inner, opening, closing)
                and not (opening == "(" and ("," in inner or ";" in inner))
            ):
                text = inner
        if text == before:
            break
    return text


def _balanced(inner: str, opening: str, closing: str) -> bool:
    if len(opening) > 1 or opening == "$":
        return opening not in inner and closing not in inner
    depth = 0
    for character in inner:
        depth += (character == opening) - (character == closing)
        if depth < 0:
            return False
    return depth == 0


_PLAIN_FUNCTION = re.compile(rf"(?<![\\A-Za-z{{])(?<!\\[a-z])({'|'.join(FUNCTIONS)})(?=[\s(|0-9^_\\{{]|$)(?!\s*\}})")
_PLAIN_NAMES = re.compile(rf"(?<![\\A-Za-z])(pi|infty|{'|'.join(_GREEK)})(?![A-Za-z])")
_COMPARISONS = {"<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "=<": r"\le ", "=>": r"\ge ", "==": "="}


def plain_functions(text: str) -> str:
    r"""Functions, constants and operators as keyboards and programs write them.

    >>> plain_functions("2pi"), plain_functions("x**2"), plain_functions("sqrt(2)"), plain_functions("x^10")
    ('2\\pi ', 'x^{2}', '\\sqrt{2}', 'x^{10}')
    """
    text = re.sub(r"\s*\*\*\s*", "^", text)
    text = re.sub(r"(?<=[0-9])(\s*)[xX]\1(?=10\s*\^)", r"\\times ", text)
    text = re.sub(r"(?<![\w.\\}])([0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]{1,4})(?![\w.])", r"\1\\cdot 10^{\2}", text)
    text = re.sub(r"<=|>=|!=|=<|==", lambda m: _COMPARISONS[m[0]], text)
    text = re.sub(
        r"\\(?:arc|a)(sin|cos|tan)(?![A-Za-z])|(?<![\\A-Za-z])a(sin|cos|tan)(?=\()",
        lambda m: rf"\arc{m[1] or m[2]}",
        text,
    )
    text = re.sub(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty ", text)
    text = _PLAIN_NAMES.sub(r"\\\1 ", text)
    text = joined_functions(text)
    text = _PLAIN_FUNCTION.sub(lambda m: m[0] if is_unit(m[1], m) else rf"\{m[1]} ", text)
    text = _apply(text, re.compile(r"(?<![A-Za-z])\\?sqrt\s*(?=\()"), r"\sqrt{%s}")
    text = _apply(text, re.compile(r"(?<![A-Za-z])\\?cbrt\s*(?=\()"), r"\sqrt[3]{%s}")
    text = _apply(text, re.compile(r"(?<![\\A-Za-z])abs\s*(?=\()"), "|%s|")
    text = _apply(text, re.compile(r"\\exp\s*(?=\()"), "e^{%s}")
    text = _apply(text, re.compile(r"\^\s*(?=\()"), "^{%s}")
    text = re.sub(r"(?<![\\A-Za-z])sqrt\s*([0-9]+)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![A-Za-z])\\sqrt\s*([0-9])", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\s*([+-]?[0-9]+)(?![0-9]*\.[0-9])", r"^{\1}", text)
    return re.sub(r"(?<=[\w)}])\s*\*\s*(?=[\w(\\{])", r"\\cdot ", text)


def _apply(text: str, head: re.Pattern[str], form: str) -> str:
    """``head(...)`` with balanced parentheses, rewritten; at most 50 times."""
    for _ in range(50):
        match = head.search(text)
        if match is None:
            break
        depth, end = 0, -1
        for i in range(match.end(), len(text)):
            depth += (text[i] == "(") - (text[i] == ")")
            if depth == 0:
                end = i
                break
        if end < 0:
            break
        text = text[: match.start()] + form % text[match.end() + 1 : end] + text[end + 1 :]
    return text


_ANNOUNCING = (
    r"(?:(?:so|thus|hence|therefore|then)\b\s*,?\s*)?(?:(?:the|our|my)\s+)?(?:(?:final|correct|required|desired)\s+)*"
    r"(?:answer|value|result|solution|option|choice)\s*(?:is\s*:?|equals|:|=)|approximately(?![A-Za-z])"
)
_REMARK = re.compile(rf"^(\s*|\\(?:text|mathrm)\{{\s*)(?:{_ANNOUNCING})\s*(?=\S)", re.IGNORECASE)


def remarks(text: str) -> str:
    r"""Words that announce an answer.

    >>> remarks("The answer is 5"), remarks(r"\text{So the value is }5"), remarks(r"\text{about } 5")
    ('5', '\\text{}5', '\\text{about } 5')
    """
    return _REMARK.sub(r"\1", text)


def layout(text: str) -> str:
    """``extraction.normalise_answer``: spaces, ``\\dfrac``, the one spelling of a plain number."""
    return normalise_answer(text)


RULES: tuple[Callable[[str], str], ...] = (
    unicode_forms,
    grouped_digits,
    formatting,
    wrapping,
    remarks,
    plain_functions,
)


def answer_form(text: str) -> str:
    r"""All rules, one after the other: the spelling in which answers are compared. Never empty for an answer.

    >>> answer_form(r"\textbf{(B)}"), answer_form("x = 1,234"), answer_form(r"\frac{\pi}{2}")
    ('B', 'x=1,234', '\\frac{\\pi}{2}')
    """
    return layout(text) if len(text) > MAX_CHARS else _short_form(text)


@lru_cache(maxsize=1 << 14)  # a vote compares each answer with many others
def _short_form(text: str) -> str:
    form = text.strip()
    for rule in RULES:
        form = rule(form)
    form = mark_words(form).strip()
    whole = wrapping(form)
    if match := WORD.fullmatch(whole.strip()):
        whole = match[1]
    form = re.sub(r"\s*(\ue000|\ue001)\s*", r"\1", whole)
    return layout(form) or layout(text)
