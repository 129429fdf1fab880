r"""Words in answers: marked, so that formulas stay outside of them, with units, money, times and number bases.

Part of the rules of ``forms``; pure.
"""

from __future__ import annotations

import re

from selfevo_trainer.answers.commands import FUNCTIONS, TEXTS
from selfevo_trainer.answers.units import UNITS

WORD = re.compile("\ue000([^\ue000\ue001]*)\ue001")
"""A word in a form: private characters, which no answer may hold, mark where it starts and ends."""

_KNOWN = frozenset(
    (  # noqa: SIM905
        "cm mm km kg mg ml dl cl kl ft in yd mi lb oz hr hrs min mins sec secs ms mph kmh kph am pm or and "
        "deg rad gal pt qt hz pa kj kw kwh mw mol atm usd eur gbp nm um kb mb gb tb cc sq cu per dozen pct no "
        "yes"
    ).split()
)


_CURRENCIES = {"$": "dollar", r"\$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen", "₹": "rupee"}
_MONEY = re.compile(r"(-?)\s*(\\?\$|[€£¥₹])\s*((?:[0-9.]|-[0-9.]|\\frac)[^$€£¥₹]*)")
_MONEY_AFTER = re.compile(r"(-?[0-9][^$€£¥₹]*?)\s*(\\\$|[€£¥₹])")


_BASES = {
    word: i
    for i, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)  # noqa: SIM905
} | {"sixteen": 16}
_BASE_AFTER = re.compile(
    rf"([0-9A-F]+)\s*\(?\s*(?:in\s+)?base[\s-]*([0-9]{{1,2}}|{'|'.join(_BASES)})\s*\)?", re.IGNORECASE
)
_BASE_NAME = rf"\(?\s*(?:base[\s-]*)?([0-9]{{1,2}}|{'|'.join(_BASES)})\s*\)?\s*"
_BASE_BELOW = re.compile(
    rf"_\s*\{{\s*\\text\{{\s*{_BASE_NAME}\}}\s*\}}|_\s*\{{\s*\\text\{{\s*base[\s-]*\}}\s*{_BASE_NAME}\}}"
    rf"|_\s*\\text\{{\s*{_BASE_NAME}\}}|_\s*\{{\s*{_BASE_NAME}\}}|_({'|'.join(_BASES)})(?![A-Za-z])"
)


_DIGITS_IN_TEXT = re.compile(r"(?<![A-Za-z\\])([0-9]*)\\(?:text|mathrm)\{\s*([0-9]*[A-F][0-9A-F]*)\s*\}(?=([0-9]*)_)")


def bases(text: str) -> str:
    r"""The base of digits as a number below them.

    >>> bases(r"101_{\text{two}}"), bases("101_{(2)}"), bases(r"\text{3E}_{16}"), bases("101 (base 2)")
    ('101_{2}', '101_{2}', '3E_{16}', '101_{2}')
    """
    text = _DIGITS_IN_TEXT.sub(_digits, text)
    if match := re.fullmatch(r"\s*0([xbo])([0-9A-Fa-f]+)\s*", text):
        return f"{match[2].upper()}_{{{ {'x': 16, 'b': 2, 'o': 8}[match[1]] }}}"
    text = _BASE_BELOW.sub(lambda m: f"_{{{_BASES.get(name := m[m.lastindex or 0], name)}}}", text)
    plain = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()
    if match := _BASE_AFTER.fullmatch(plain):
        return f"{match[1]}_{{{_BASES.get(match[2].lower(), match[2])}}}"
    return text


def _digits(match: re.Match[str]) -> str:
    whole = match[1] + match[2] + match[3]
    return match[1] + match[2] if len(whole) > 1 else match[0]


_CLOCK = re.compile(r"^\s*([0-9]+)\s?h(?:rs?)?\s*([0-9]+)\s?m(?:in|ins)?(?:\s*([0-9]+)\s?s(?:ecs?)?)?\s*$")
"""3h20m."""


def _times(match: re.Match[str]) -> str:
    units = zip(match.groups(), ("h", "min", "s"), strict=True)
    return "".join(rf"{number}\text{{ {unit} }}" for number, unit in units if number)


def is_unit(name: str, match: re.Match[str]) -> bool:
    r"""Minutes and seconds, not the minimum and the secant: ``6\text{ min }20``."""
    after = match.string[match.end() :].lstrip()
    before = match.string[: match.start()].rstrip()
    argument = re.match(r"[({x]|\\(?!text|mathrm)", after)
    return name in ("min", "sec") and before[-1:].isdigit() and argument is None


def _mark_text(match: re.Match[str]) -> str:
    r"""The words of one ``\text{...}``; a single letter or a function is a formula's."""
    content = match[1]
    if match[0].startswith((r"\mathrm", r"\operatorname")) and re.fullmatch(r"\s*[A-Za-z]\s*", content):
        return " " + content.strip() + " " if content.strip() in "exid" else f" \ue000{content.strip()}\ue001 "
    if content.strip() in FUNCTIONS and not is_unit(content.strip(), match):
        return rf"\{content.strip()} "
    content = re.sub(r"\b([AaPp])\.\s?[Mm]\b\.?", lambda m: m[1] + "m", content)
    content = re.sub(r"(?<=[^\W\d_])\.(?=\s|$)", "", content)  # hrs.
    return " " + re.sub(r"[^\W\d_]+(?:['-][^\W\d_]+)*", lambda m: f"\ue000{m[0]}\ue001", content) + " "


def _degrees(text: str) -> str:
    """A degree sign is a word, in the argument of a function pi/180."""
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        return re.sub(r"([0-9]+(?:\.[0-9]+)?)\s*\^\\circ(?![A-Za-z])", r"{\\frac{\1\\pi}{180}}", text)
    return re.sub(
        r"\^\\circ(?![A-Za-z])\s*([CF]?)(?![A-Za-z])",
        lambda m: "\ue000degree\ue001" + (f"\ue000{m[1]}\ue001" if m[1] else ""),
        text,
    )


def _amounts(text: str) -> str:
    """The currency of an amount, a word after the number."""
    if money := _MONEY.fullmatch(text.strip()):
        number, mark, rest = money[3].partition("\ue000")
        unit, rest = f" \ue000{_CURRENCIES[money[2]]}\ue001", mark + rest
        first = re.match("\ue000(?:per|and)\ue001", rest) or number.rstrip().endswith("/")
        slash = "/" if number.rstrip().endswith("/") else ""
        number = number.rstrip().removesuffix("/") if first else number
        return f"{money[1]}{number}{unit}{slash}{rest}" if first else f"{money[1]}{number}{rest}{unit}"
    if money := _MONEY_AFTER.fullmatch(text.strip()):
        return f"{money[1]} \ue000{_CURRENCIES[money[2]]}\ue001"
    return text


def _mark_bare(match: re.Match[str]) -> str:
    """A word that stands in a formula: a unit after a number, a joining word, or too long for a product of letters."""
    word, text = match[0], match.string
    if word.startswith(("\\", "\ue000")):
        return word
    before = text[: match.start()].rstrip()
    after_number = bool(before) and before[-1] in "0123456789}" and len(before) < match.start()
    known = word.lower() in _KNOWN and ((bool(before) and before[-1] in "0123456789}\ue001/") or match.start() == 0)
    unit = (
        after_number
        and word in ("m", "g", "s", "h", "L", "l", "J", "V", "K", "A")
        and match.end() == len(text.rstrip())
    )
    if len(word) >= 4 or (len(word) >= 2 and (after_number or known or word in ("and", "or", "per"))) or unit:
        return f" \ue000{word}\ue001 "
    return word


def mark_words(text: str) -> str:
    r"""``\text{...}`` and bare words between marks, in lower case; formulas stay outside of them.

    >>> WORD.sub(r"<\1>", mark_words(r"3\text{ hours }15 min")), WORD.sub(r"<\1>", mark_words("xy"))
    ('3  <hours>  15  <min> ', 'xy')
    """
    text = text.replace("\ue000", "").replace("\ue001", "")
    text = bases(text)
    text = _CLOCK.sub(_times, text)
    text = UNITS.sub(lambda m: re.sub(r"(?<![\\A-Za-z])[A-Za-z]+", r"\\text{ \g<0>}", m[0]), text)
    text = TEXTS.sub(_mark_text, text)
    if r"\begin" in text:
        return text
    text = re.sub(r"(?<=[0-9\s])([AaPp])\.\s?[Mm]\b\.?", lambda m: m[1] + "m", text)
    text = _degrees(text)
    text = re.sub(r"^([0-9]+)\s*R\s*([0-9]+)$", "\\1 \ue000r\ue001 \\2", text)
    text = _amounts(text)
    text = re.sub(r"\\[A-Za-z]+|\ue000[^\ue001]*\ue001|[^\W\d_]+", _mark_bare, text)
    return re.sub("\\s*\ue000(?:percent|pct)\ue001(?!\\s*\ue000)", r"\\%", text)
