r"""Exact arithmetic over numbers as they are written in answers; bounded in time whatever the text."""

from __future__ import annotations

import re
from fractions import Fraction

from selfevo_trainer.answers.extraction import canonical_number

MAX_BITS = 20_000
"""Numbers with more binary digits are left to the form: 7^30 has 85, 10^400 has 1,329."""

BASED = re.compile(r"\(?([0-9A-Z]+)\)?_\{?([0-9]{1,2})\}?")
_REPEATING = re.compile(
    r"(-?)([0-9]*)\.([0-9]*)(?:\\(?:overline|bar|dot|overbar)\s*\{?([0-9]+)\}?|\(([0-9]+)\))(?:\\ldots|\.\.\.)?"
)
_DOTTED = re.compile(r"(-?)([0-9]*)\.([0-9]{3,200})\s*(?:\\ldots|\.\.\.)")


def exact_value(text: str) -> Fraction | None:
    r"""The value of arithmetic over numbers, of repeating decimals and of digits with a base; None for all else.

    >>> exact_value("1\\frac{1}{2}"), exact_value("3.2e5"), exact_value("0.1666\\ldots")
    (Fraction(3, 2), Fraction(320000, 1), Fraction(1, 6))
    """
    text = text.strip()
    if len(text) > 1000:
        return None
    if (number := canonical_number(text)) is not None:
        return Fraction(number)
    if match := BASED.fullmatch(text):
        base = int(match[2])
        letters = bool(re.search("[A-Z]", match[1]))
        if not 2 <= base <= 36 or (letters and (base < 11 or len(match[1]) < 2)):
            return None
        try:
            return Fraction(int(match[1], base))
        except ValueError:
            return None
    if match := _REPEATING.fullmatch(text):
        return _repeating(match[1], match[2], match[3], match[4] or match[5])
    if match := _DOTTED.fullmatch(text):
        digits = match[3]
        for start in range(len(digits)):  # the shortest head, then the shortest period, that the digits show
            for period in range(1, (len(digits) - start) // 2 + 1):
                tail = digits[start:]
                if len(tail) >= 3 and all(tail[i] == tail[i % period] for i in range(len(tail))):
                    return _repeating(match[1], match[2], digits[:start], tail[:period])
        return None
    try:
        return _Arithmetic(text).read()
    except (_NotANumber, ZeroDivisionError, RecursionError):
        return None


def _repeating(sign: str, whole: str, head: str, period: str) -> Fraction:
    value = Fraction(int((whole or "0") + head), 10 ** len(head))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(head))
    return -value if sign else value


class _NotANumber(Exception):
    pass


class _Arithmetic:
    """Recursive descent over numbers, + - * / ^, \\frac, brackets, factorials and mixed numbers; depth is bounded."""

    _TOKEN = re.compile(
        r"\s*(?:([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?(?![0-9]*\.)|\.[0-9]+(?:[eE][+-]?[0-9]{1,4})?)|(\\frac|\\cdot|\\times|\\div|[-+*/^(){}]))"
    )

    def __init__(self, text: str) -> None:
        text = re.sub(r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}", text)
        text = re.sub(r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{", text)
        text = re.sub(r"(\\frac\{[^{}]*\})\s*([0-9])", r"\1{\2}", text)
        # Only digits between plain three-digit groups; a list is no number.
        text = (
            re.sub(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])", lambda m: m[0].replace(",", ""), text)
            if re.fullmatch(r"[^(\[{]*", text)
            else text
        )
        self.tokens: list[str] = []
        position = 0
        while position < len(text):
            match = self._TOKEN.match(text, position)
            if match is None:
                raise _NotANumber
            self.tokens.append(match[1] or match[2])
            position = match.end()
        self.at = 0
        self.depth = 0

    def read(self) -> Fraction:
        value = self._sum()
        if self.at != len(self.tokens):
            raise _NotANumber
        return value

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self.at += 1
        return token

    def _sum(self) -> Fraction:
        self.depth += 1
        if self.depth > 30:
            raise _NotANumber
        sign = 1
        while self._peek() in ("+", "-"):
            sign *= -1 if self._next() == "-" else 1
        value = sign * self._product()
        while self._peek() in ("+", "-"):
            value += self._product() if self._next() == "+" else -self._product()
        self.depth -= 1
        return _bounded(value)

    def _product(self) -> Fraction:
        value = self._power()
        while True:
            token = self._peek()
            if token in ("*", r"\cdot", r"\times", "/", r"\div"):
                self.at += 1
                sign = 1
                while self._peek() == "-":
                    self.at += 1
                    sign = -sign
                right = sign * self._power()
                value = value / right if token in ("/", r"\div") else value * right
            elif token == "(":
                value *= self._power()
            else:
                return _bounded(value)

    def _power(self) -> Fraction:
        base = self._atom()
        if self._peek() != "^":
            return base
        self.at += 1
        exponent = self._group() if self._peek() == "{" else self._atom()
        if (
            exponent.denominator != 1
            or abs(exponent) * max(1, base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS
        ):
            raise _NotANumber
        if base == 0 and exponent <= 0:
            raise _NotANumber
        return base ** int(exponent)

    def _group(self) -> Fraction:
        closing = {"(": ")", "{": "}"}.get(self._next())
        value = self._sum()
        if closing is None or self._next() != closing:
            raise _NotANumber
        return value

    def _atom(self) -> Fraction:
        token = self._peek()
        if token == r"\frac":
            self.at += 1
            numerator = self._group()
            return numerator / self._group()
        if token in ("(", "{"):
            return self._group()
        if not token or token[0] not in "0123456789.":
            raise _NotANumber
        self.at += 1
        value = _bounded(Fraction(token))
        if token.isdigit():
            # A mixed number: 1\frac{1}{2}, and 1 1/2 where the fraction is proper.
            if self._peek() == r"\frac":
                start = self.at
                part = self._atom()
                if (
                    not all(each.isdigit() for each in (self.tokens[start + 2], self.tokens[start + 5]))
                    or not 0 < part < 1
                ):
                    raise _NotANumber
                return value + part
            following = self.tokens[self.at : self.at + 3]
            if len(following) == 3 and following[0].isdigit() and following[1] == "/" and following[2].isdigit():
                part = Fraction(int(following[0]), int(following[2]))
                if 0 < part < 1:
                    self.at += 3
                    return value + part
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NotANumber
    return value
