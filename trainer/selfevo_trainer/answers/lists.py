r"""Answers of several parts: variables with their values, lists, inequalities joined by "or". Pure; reads forms."""

from __future__ import annotations

import re
from fractions import Fraction

from selfevo_trainer.answers.arithmetic import exact_value
from selfevo_trainer.answers.words import WORD

RELATION = re.compile(r"[<>]|\\(?:le|ge)(?![A-Za-z])")
_AND = re.compile("\\s*,?\\s*\ue000and\ue001\\s*", re.IGNORECASE)
_OR = re.compile("\\s*,?\\s*\ue000or\ue001\\s*", re.IGNORECASE)
_VALUE_OF = re.compile(r"([A-Za-z]|\\[A-Za-z]+)((?:_\w|_\{\w+\})?)\s*=\s*([^=<>]+)")
_TUPLE_OF = re.compile(r"\(([^()=]+)\)\s*=\s*\(([^=]+)\)")


def parts(text: str) -> list[str]:
    """The text between commas that are in no bracket.

    >>> parts("(1,2),(3,4)"), parts("f(x,y)"), parts("[0,1)")
    (['(1,2)', '(3,4)'], ['f(x,y)'], ['[0,1)'])
    """
    found = [""]
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [part.strip() for part in found]


def values_by_name(form: str) -> dict[str, str] | None:
    """Two or more variables, each with its value; None for all else.

    >>> values_by_name("x=1, y=2"), values_by_name("(x,y)=(1,2)"), values_by_name("x=1, x=2")
    ({'x': '1', 'y': '2'}, {'x': '1', 'y': '2'}, None)
    """
    form = _AND.sub(",", form)
    if "=" not in form or WORD.search(form):
        return None
    if match := _TUPLE_OF.fullmatch(form):
        names, values = parts(match[1]), parts(match[2])
    else:
        matches = [_VALUE_OF.fullmatch(part) for part in parts(form)]
        if not all(matches):
            return None
        names = [re.sub(r"[{}\s]", "", m[1] + m[2]) for m in matches if m]
        values = [m[3].strip() for m in matches if m]
    return dict(zip(names, values, strict=True)) if len(names) == len(values) == len(set(names)) > 1 else None


def elements(form: str) -> list[str] | None:
    """What a tuple or a list without brackets holds, in order; None for one part alone.

    >>> elements("(1,2)"), elements("1, 2"), elements("1")
    (['1', '2'], ['1', '2'], None)
    """
    form = form[1:-1] if re.fullmatch(r"\([^()]*\)", form) else form
    found = parts(form)
    return found if len(found) > 1 and all(found) else None


def numbers(form: str) -> list[Fraction] | None:
    """The numbers of a list without brackets, sorted: it has no order, but it has repetitions.

    >>> numbers("2, 1, 1") == numbers("1,2,1"), numbers("1,2,2") == numbers("1,1,2"), numbers("1,x")
    (True, False, None)
    """
    found = [exact_value(part) for part in parts(form)]
    known = [value for value in found if value is not None]
    return sorted(known) if len(known) == len(found) > 1 else None


_SIDES = {"<": ")", r"\le": "]", ">": "(", r"\ge": "["}
_BOUND = re.compile(r"([a-z])\s*(<|>|\\le(?![a-z])|\\ge(?![a-z]))\s*([^<>=]+)")
_BETWEEN = re.compile(r"([^<>=]+?)\s*(<|\\le(?![a-z]))\s*([a-z])\s*(<|\\le(?![a-z]))\s*([^<>=]+)")


def union(form: str) -> str:
    r"""Inequalities of one variable joined by "or", as a union of intervals; other forms as they are.

    >>> union("x<1\ue000or\ue001x>3"), union("x<1")
    ('(-\\infty,1)\\cup(3,\\infty)', 'x<1')
    """
    pieces = _OR.split(form)
    if len(pieces) < 2:
        return form
    intervals: list[str] = []
    variables: set[str] = set()
    for piece in pieces:
        if match := _BETWEEN.fullmatch(piece.strip()):
            opening = {"<": "(", r"\le": "["}[match[2]]
            intervals.append(f"{opening}{match[1].strip()},{match[5].strip()}{_SIDES[match[4]]}")
            variables.add(match[3])
        elif (match := _BOUND.fullmatch(piece.strip())) and not re.search(r"\\[lgn]e", match[3]):
            side, bound = _SIDES[match[2]], match[3].strip()
            intervals.append(f"(-\\infty,{bound}{side}" if side in ")]" else f"{side}{bound},\\infty)")
            variables.add(match[1])
        else:
            return form
    return r"\cup".join(intervals) if len(variables) == 1 else form


def joined_otherwise(a: str, b: str) -> bool:
    """Whether inequalities are joined by "and" in one and by "or" in the other."""
    return bool(RELATION.search(a)) and any(_OR.search(x) and _AND.search(y) for x, y in ((a, b), (b, a)))
