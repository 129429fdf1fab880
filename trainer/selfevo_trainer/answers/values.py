r"""What an answer says in numbers and words, and the verdicts that follow without a symbolic parser.

``compare`` is the whole of the ``exact`` method and the first stage of ``math-verify``. What it decides, it decides
exactly: rational arithmetic, words beside their quantities. What it leaves open is a pair of formulas without words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from selfevo_trainer.answers.arithmetic import BASED, exact_value
from selfevo_trainer.answers.forms import MAX_CHARS, answer_form
from selfevo_trainer.answers.lists import elements, joined_otherwise, numbers, parts, union, values_by_name
from selfevo_trainer.answers.units import MEANS_MORE, SCALES, unit_of
from selfevo_trainer.answers.words import WORD

_RELATIVE = Fraction(1_000_001, 10**12)
"""A decimal may differ from a fraction without an end by a millionth of it: 0.333333 is a third."""


@dataclass(frozen=True)
class Ruling:
    """What the rules say of two answers."""

    equal: bool | None
    """None: they are formulas, and a symbolic comparison of ``pair`` decides."""
    by: str
    """The rule, in a few words."""
    pair: tuple[str, str] = ("", "")


def compare(a: str, b: str) -> Ruling:
    """The rules' verdict on two answers, symmetric.

    >>> compare("1101_2", "13").equal, compare("5 km", "5 m").equal, compare("x+1", "1+x").equal
    (True, False, None)
    """
    return compare_forms(answer_form(a), answer_form(b))


def compare_forms(a: str, b: str) -> Ruling:
    """``compare`` for two results of ``answer_form``."""
    if max(len(a), len(b)) > MAX_CHARS:
        return Ruling(a == b, "too long for anything but its form")
    if not a or not b:
        return Ruling(False, "empty")
    if a == b:
        return Ruling(True, "same form")
    if re.sub(r"[\s{}]", "", a) == re.sub(r"[\s{}]", "", b) and not re.search(r"[0-9]\s+[0-9]|[\^_]|\\[a-z{}]", a + b):
        return Ruling(True, "same form without braces")
    if joined_otherwise(a, b):
        return Ruling(False, "joined by and, and by or")
    a, b = union(a), union(b)
    if (ruling := _compare_values(a, b)) is not None:
        return ruling
    if WORD.search(a) or WORD.search(b):
        return _compare_worded(a, b)
    return _compare_formulas(a, b)


def _compare_values(a: str, b: str) -> Ruling | None:
    """Variables with their values: by name, or in order where one side has no names; None where neither has."""
    one, other = values_by_name(a), values_by_name(b)
    if one is None and other is None:
        return None
    if one is not None and other is not None:
        if set(one) != set(other):
            return Ruling(False, "variables differ")
        pairs = [(one[name], other[name]) for name in sorted(one)]
    else:
        left, right = list(one.values()) if one else elements(a), list(other.values()) if other else elements(b)
        if left is None or right is None or len(left) != len(right):
            return None
        pairs = list(zip(left, right, strict=True))
    rulings = [_compare_formulas(x, y) for x, y in pairs]
    if any(ruling.equal is False for ruling in rulings):
        return Ruling(False, "values differ")
    if all(ruling.equal for ruling in rulings):
        return Ruling(True, "equal values")
    return Ruling(None, "values", (f"({','.join(x for x, _ in pairs)})", f"({','.join(y for _, y in pairs)})"))


# --- words


@dataclass(frozen=True)
class _Reading:
    quantities: tuple[str, ...]
    phrases: tuple[str, ...]
    """Beside them: phrases[i] stands after quantities[i]; one quantity may be empty."""


_MEGA = re.compile(r"^M(g|W|Hz|Pa|J|V|N|eV|m|L|B|b|mol)$")
"""Five Mg are not five mg: all else is compared in lower case."""
_EXPONENT = re.compile(r"\^\{?(-?[0-9])\}?(?![0-9])")


def _read(form: str) -> _Reading:
    form = re.sub("(?:,|)\\s*\ue000(?:and|or)\ue001\\s*", ",", form, flags=re.IGNORECASE)
    quantities: list[str] = []
    phrases: list[str] = []
    position = 0
    for match in WORD.finditer(form):
        between = form[position : match.start()].strip()
        word = _MEGA.sub(r"mega\1", match[1]).lower()
        exponent = _EXPONENT.match(between)
        if exponent and phrases:
            phrases[-1] += f"^{exponent[1]}"
            between = between[exponent.end() :].strip()
        if phrases and between in ("", "/", r"\cdot", "-", "."):
            phrases[-1] += {"": " ", "/": "/", r"\cdot": "*", "-": " ", ".": " "}[between] + word
        else:
            quantities.append(between)
            phrases.append(word)
        position = match.end()
    rest = form[position:].strip()
    exponent = _EXPONENT.match(rest)
    if exponent and phrases:
        phrases[-1] += f"^{exponent[1]}"
        rest = rest[exponent.end() :].strip()
    if rest.strip("."):
        quantities.append(rest)
        phrases.append("")
    return (
        _Reading(*zip(*map(_scaled, quantities, map(unit_of, phrases)), strict=True))
        if quantities
        else _Reading((), ())
    )


def _scaled(quantity: str, unit: str) -> tuple[str, str]:
    """Numerals in words become part of the number: 5 million dollars are 5000000 dollars."""
    head, _, rest = unit.partition(" ")
    joined = re.match(r"[,+]\s*", quantity)
    value = exact_value(quantity[joined.end() :] if joined else quantity)
    if value is None or head not in SCALES or SCALES[head][1] != "number":
        return quantity, unit
    scaled = value * SCALES[head][0]
    text = str(scaled) if scaled.denominator == 1 else f"\\frac{{{scaled.numerator}}}{{{scaled.denominator}}}"
    return (joined[0] if joined else "") + text, rest


def _compare_worded(a: str, b: str) -> Ruling:
    one, other = _read(a), _read(b)
    if not any(one.phrases) and not any(other.phrases):
        return _compare_formulas(one.quantities[0], other.quantities[0]) if one.quantities and other.quantities else _no
    if one.phrases == other.phrases:
        return _all_equal(one.quantities, other.quantities)
    left, right = _total(one), _total(other)
    if left is not None and right is not None:  # each with its dimension
        return Ruling(left == right, "units of one kind, converted")
    # One quantity with its unit, and the quantity alone.
    for worded, bare in ((one, other), (other, one)):
        if len(worded.quantities) == len(bare.quantities) == 1 and bare.phrases == ("",) and worded.quantities[0]:
            words = re.split(r"[ /*^]", worded.phrases[0])
            if MEANS_MORE.isdisjoint(words) and len(words) <= 4:
                ruling = _compare_formulas(worded.quantities[0], bare.quantities[0])
                return Ruling(ruling.equal, "a unit beside a bare number", ruling.pair)
    return Ruling(False, "words or units differ")


_no = Ruling(False, "words or units differ")


_BY = re.compile(r"\\times\s*(?!\s|10\s*\^)")
"""Sides of a matrix or a box beside a word: 3 x 4 is not 4 x 3."""


def _all_equal(left: tuple[str, ...], right: tuple[str, ...]) -> Ruling:
    open_pairs: list[tuple[str, str]] = []
    for x, y in zip(left, right, strict=True):
        if x == y:
            continue
        joined = [re.match(r"[,;+=]\s*(?:\\\\)?|", each) for each in (x, y)]
        if len({each[0].strip(", ") for each in joined}) > 1:  # type: ignore[index]
            return Ruling(False, "quantities are joined otherwise")
        x, y = x[joined[0].end() :], y[joined[1].end() :]  # type: ignore[union-attr]
        if not x or not y:
            return Ruling(False, "a quantity is missing")
        ruling = _compare_formulas(x, y)
        if ruling.equal is not False and any(map(_BY.search, (x, y))):
            ruling = Ruling(re.sub(r"\s", "", x) == re.sub(r"\s", "", y), "sides")
        if ruling.equal is False:
            return Ruling(False, "quantities differ beside equal words")
        if ruling.equal is None:
            open_pairs.append(ruling.pair)
    if not open_pairs:
        return Ruling(True, "equal words and quantities")
    return Ruling(None, "equal words", open_pairs[0]) if len(open_pairs) == 1 else Ruling(False, "several formulas")


def _total(reading: _Reading) -> tuple[Fraction, str] | None:
    """The sum in base units, where every quantity is a number with a unit of one dimension: 3 h 15 min is 11700 s."""
    total, dimension = Fraction(0), ""
    for i, (quantity, unit) in enumerate(zip(reading.quantities, reading.phrases, strict=True)):
        if i:
            quantity = re.sub(r"^[,+]\s*", "", quantity)
        value = exact_value(quantity)
        if unit not in SCALES or value is None or (i and (value < 0 or dimension != SCALES[unit][1])):
            return None
        dimension = SCALES[unit][1]
        total += value * SCALES[unit][0]
    return (total, dimension) if reading.quantities else None


# --- formulas


_ASSIGNED = re.compile(
    r"(?:([A-Za-z]|\\[A-Za-z]+)(_\w|_\{\w+\})?(?:\([a-z](?:,[a-z])*\))?|(?:m?\\angle\s*)?[A-Z]{1,3}|\\overline\{[A-Z]{2}\})"
    r"\s*(?:=(?!=)|\\approx(?![A-Za-z]))"
)
_NOTATION = re.compile(
    r"\\(?:angle|measuredangle|triangle|square|odot|mod|bmod|pmod|equiv|l?and|l?or|wedge|vee|neg|lnot|forall|exists|to"
    r"|mapsto|(?:long)?(?:left)?rightarrow|(?:Left)?Rightarrow|implies|iff|parallel|perp|cong|sim|hat|widehat|vec|dot"
    r"|ddot|over(?:left|right)arrow|cancel|bcancel|xcancel|tilde|widetilde)(?![A-Za-z])|(?<![a-z]{3})_\{[^{}]*\}\s*[0-9]"
    r"|(?<![A-Za-z])[0-9]+_|\^\{?(?:T|\\top|\\dagger|\*)\}?(?![A-Za-z])|\\frac\{(?:d|\\partial)[^{}]*\}\{(?:d|\\partial)"
)
_DOTS = re.compile(r"\\ldots|\.\.\.")


def _compare_formulas(a: str, b: str) -> Ruling:
    left, right = _ASSIGNED.match(a), _ASSIGNED.match(b)
    if left and right and _name(left) == _name(right):
        a, b = a[left.end() :].strip(), b[right.end() :].strip()
    elif left and not right and "=" not in a[left.end() :] and not re.search(r"[=<>]|\\[lgn]e(?![a-z])", b):
        a = a[left.end() :].strip()
    elif right and not left and "=" not in b[right.end() :] and not re.search(r"[=<>]|\\[lgn]e(?![a-z])", a):
        b = b[right.end() :].strip()
    if not a or not b:
        return Ruling(False, "empty")
    if a == b:
        return Ruling(True, "same form")
    if {_kind_of_list(a), _kind_of_list(b)} == {"{", "("}:
        return Ruling(False, "a set, and a list in its order")
    if len(a) == len(b) == 1 and a.lower() == b.lower() and a.lower() in "abcde":
        return Ruling(True, "choices")
    if all(re.fullmatch(r"[0-9]+-[0-9]+", each) for each in (a, b)):
        return Ruling(False, "ranges")
    if any(_DATE.fullmatch(each) for each in (a, b)):
        return Ruling(_date(a) is not None and _date(a) == _date(b), "dates, in the order as written")
    for one, other in ((a, b), (b, a)):
        if one.count(r"\pm") == 1 and r"\pm" not in other and len(parts(other)) == 2:
            both = ",".join(one.replace(r"\pm", sign) for sign in "+-")
            a, b = (both, other) if one is a else (other, both)
            break
    many, more = numbers(a), numbers(b)
    if many is not None and more is not None:
        return Ruling(many == more, "lists of numbers")
    x, y = read_number(a), read_number(b)
    if x is not None and y is not None:
        return Ruling(_equal_numbers(x, y), "numbers, exactly")
    if not re.search(r"\\lim(?![a-z])", a + b) and (_NOTATION.search(a) or _NOTATION.search(b)):
        return Ruling(_same_notation(a, b), "notation that no parser reads, by its form")
    for one, other in ((a, b), (b, a)):
        if _DOTS.search(one) and read_number(one) is None:
            return Ruling(False, "dots that stand for something")
        if one.count("'") != other.count("'"):
            return Ruling(False, "primes differ")
        if re.search(r"[0-9A-Z)]_", one) and BASED.fullmatch(one) and read_number(one) is None:
            return Ruling(False, "digits that the base does not have")
        if re.search(r"[0-9]\s*:\s*[0-9]", one):
            return Ruling(_clock(a) is not None and _clock(a) == _clock(b), "parts beside a colon")
        if re.search(r"(?:^|[0-9])\s*[–—]|(?<!_)[0-9]\s+[0-9]", one):
            return Ruling(False, "numbers side by side")
    if a.count(",") != b.count(",") and not re.search(r"[\[(<>]|\\(?:pm|\{|[lg]e)", a + b):
        return Ruling(False, "lists of different lengths")
    if all(re.fullmatch("[A-Za-z]{2,}", each) for each in (a, b)) and max(len(a), len(b)) > 3:
        return Ruling(a.lower() == b.lower(), "words")
    if all(re.fullmatch("[A-Z]{3,}|[A-Z][A-Z0-9]*[0-9][A-Z0-9]*", each) for each in (a, b)):
        return Ruling(False, "sequences of letters")
    if a.lower() == b.lower() and a.isalpha() and len(a) > 1:
        return Ruling(True, "words")
    return Ruling(None, "formulas", (a, b))


def _same_notation(a: str, b: str) -> bool:
    """Equal but for spaces and for braces that are neither below nor above the line."""
    low = [re.findall(r"[_^]\{[^{}]*\}", text) for text in (a, b)]
    return low[0] == low[1] and re.sub(r"[\s{}]", "", a) == re.sub(r"[\s{}]", "", b)


def _name(assigned: re.Match[str]) -> str:
    return re.sub(r"[{}\s=]|\\approx", "", assigned[0])


def _kind_of_list(text: str) -> str:
    r"""``{`` for a set, ``(`` for a tuple or an interval, as a whole and of more than one element; else nothing."""
    match = re.fullmatch(r"\\\{([^{}()\[\]\\]*,[^{}()\[\]\\]*)\\\}|[(\[]([^()\[\]]*,[^()\[\]]*)[)\]]", text)
    return "" if match is None else "{" if match[1] is not None else "("


_DATE = re.compile(r"[0-9]{4}([-/])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2[0-9]{4}")
"""2023-01-02, 1/2/2023: no difference and no quotient. Which of them is the month is not known."""


def _date(text: str) -> tuple[int, ...] | None:
    return tuple(int(part) for part in re.split(r"[-/.]", text)) if _DATE.fullmatch(text) else None


def _clock(text: str) -> tuple[int, ...] | None:
    parts = re.split(r"\s*:\s*", text.replace("{", "").replace("}", ""))
    return tuple(int(part) for part in parts) if all(re.fullmatch("[0-9]{1,18}", part) for part in parts) else None


@dataclass(frozen=True)
class Number:
    """A rational number as it was written."""

    value: Fraction
    decimal: bool = False
    """Written with a decimal point, so perhaps rounded."""
    percent: bool = False


def read_number(text: str) -> Number | None:
    r"""An answer that is one number, or None.

    >>> read_number("0.\\overline{3}").value, read_number("1101_2").value, read_number("50\\%")
    (Fraction(1, 3), Fraction(13, 1), Number(value=Fraction(50, 1), decimal=False, percent=True))
    """
    percent = re.search(r"\s*\\?%$|\s*\ue000(?:percent|percentage|pct)\ue001$", text)
    body = text[: percent.start()] if percent else text
    value = exact_value(body)
    if value is None:
        return None
    return Number(
        value, decimal="." in body and "overline" not in body and "ldots" not in body, percent=percent is not None
    )


def _equal_numbers(x: Number, y: Number) -> bool:
    if x.percent != y.percent:  # 50 % is 0.5, and where percents are asked for it is 50
        part, whole = (x, y) if x.percent else (y, x)
        return whole.value in (part.value, part.value / 100)
    if x.value == y.value:
        return True
    for rounded, true in ((x, y), (y, x)):
        if rounded.decimal and not true.decimal and _endless(true.value):
            difference = abs(rounded.value - true.value)
            return round(rounded.value, 6) == round(true.value, 6) and difference <= _RELATIVE * abs(true.value)
    return False


def _endless(value: Fraction) -> bool:
    """Whether the decimal digits of a fraction have no end."""
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator != 1
