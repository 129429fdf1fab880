"""Units and the words beside quantities: their one spelling, what they measure, and which of them change an answer."""

from __future__ import annotations

import re
from fractions import Fraction

_SYNONYMS = {
    "h": "hour hr hrs hours", "min": "minute minutes mins", "s": "second seconds sec secs", "day": "days",
    "week": "weeks wk",
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "kg": "kilogram kilo kilogramme", "g": "gram gramme gm", "mg": "milligram", "l": "liter litre",
    "ml": "milliliter millilitre",
    "ft": "foot feet", "inch": "inches", "yard": "yd yards", "mile": "mi miles", "lb": "lbs pounds", "oz": "ounce",
    "dollar": "dollars usd bucks", "cent": "cents", "euro": "euros eur", "degree": "deg degrees", "unit": "units",
    "person": "people persons", "child": "children", "man": "men", "woman": "women", "r": "remainder rem",
    "percent": "pct percentage %",
    "mph": "mile/hour", "km/h": "kmh kph kmph", "c": "celsius", "f": "fahrenheit",
}  # fmt: skip
_CANONICAL = {word: unit for unit, words in _SYNONYMS.items() for word in words.split()}

SCALES: dict[str, tuple[Fraction, str]] = {
    unit: (Fraction(scale), dimension)
    for dimension, units in {
        "time": {"s": "1", "min": "60", "h": "3600", "day": "86400", "week": "604800"},
        "length": {"mm": "1/1000", "cm": "1/100", "m": "1", "km": "1000"},
        "length in feet": {"inch": "1/12", "ft": "1", "yard": "3", "mile": "5280"},
        "mass": {"mg": "1/1000", "g": "1", "kg": "1000"},
        "mass in pounds": {"oz": "1/16", "lb": "1"},
        "volume": {"ml": "1/1000", "l": "1"},
        "money": {"dollar": "1", "cent": "1/100"},
        "area": {"mm^2": "1/1000000", "cm^2": "1/10000", "m^2": "1", "km^2": "1000000"},
        "solid": {"mm^3": "1/1000000000", "cm^3": "1/1000000", "m^3": "1"},
        "number": {"hundred": "100", "thousand": "1000", "million": "1000000", "billion": "1000000000",
                   "trillion": "1000000000000", "dozen": "12"},
    }.items()
    for unit, scale in units.items()
}  # fmt: skip
"""Scale to the base unit, and the dimension."""

_SYMBOL = (
    "(?:mm|cm|dm|km|nm|m|mg|kg|g|ms|min|hr|h|sec|s|mL|ml|L|ft|in|yd|mi|lb|oz|kN|N|kJ|J|kWh|kW|MW|mW|W|mV|kV|V|mA|A|K|kPa|MPa"
    "|Pa|kHz|MHz|GHz|Hz|C|T|mol|rad|eV|cal|kcal|gal)"
)
_FACTOR = rf"{_SYMBOL}(?:\^\{{?-?[1-4]\}}?|[²³])?(?![A-Za-z0-9^])"
UNITS = re.compile(
    rf"(?<=[0-9}}])\s+{_FACTOR}(?:\s*(?:/|\\cdot|\s)\s*{_FACTOR})+\s*$|(?<=[0-9}}])\s*(?:m/s(?:\^\{{?2\}}?)?|km/h)\s*$"
)
"""Compound units after a number, in plain letters: 5 m/s, 3 kg m/s."""

MEANS_MORE = frozenset(
    (  # noqa: SIM905
        "north south east west northeast northwest southeast southwest up down left right forward backward am "
        "pm noon midnight r hundred thousand million billion trillion dozen pair couple half quarter third "
        "base less more than least most not no none negative minus plus above below before after ago loss "
        "profit gain increase decrease debt clockwise counterclockwise anticlockwise bc ad bce ce mod modulo "
        "tens to through choose over times squared cubed factorial of percent under only between about or and "
        "tenth hundredth thousandth imaginary i x y e odd even greater larger smaller "
        "upward downward upwards downwards northward southward eastward westward inward outward mille ppm"
    ).split()
)
"""Words that make another answer of the number beside them: 5 km north is not 5, and 5 million is not 5."""


_COMPASS = {"n": "north", "s": "south", "e": "east", "w": "west"}


def unit_of(phrase: str) -> str:
    """The one spelling of a phrase beside a quantity.

    >>> unit_of("hours"), unit_of("square meters"), unit_of("kilometers per hour"), unit_of("apples")
    ('h', 'm^2', 'km/h', 'apple')
    """
    phrase = re.sub(r"\s+", " ", phrase.strip().replace("*", " ")).replace(" per ", "/")
    phrase = re.sub(r"(?<=\w) ([a-z]+)\^-([0-9])", lambda m: "/" + m[1] + (f"^{m[2]}" if m[2] != "1" else ""), phrase)
    phrase = re.sub(r"^(degrees?) ([nsew])$", lambda m: f"degree {_COMPASS[m[2]]}", phrase)
    words = re.split(r"([ /*^])", phrase)
    phrase = "".join(_CANONICAL.get(word, _CANONICAL.get(_singular(word), _singular(word))) for word in words)
    phrase = re.sub(r"^(?:square|sq) (\w+)$", r"\1^2", phrase)
    phrase = re.sub(r"^(?:cubic|cu) (\w+)$", r"\1^3", phrase)
    phrase = re.sub(r"(\w+) squared$", r"\1^2", phrase)
    phrase = re.sub(r"(\w+) cubed$", r"\1^3", phrase)
    phrase = re.sub(r"/(\w+)/\1$", r"/\1^2", phrase)
    phrase = re.sub(r"^in(\^[23])?$", r"inch\1", phrase)
    return _CANONICAL.get(phrase.replace("h", "hour") if phrase == "mile/h" else phrase, phrase)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
