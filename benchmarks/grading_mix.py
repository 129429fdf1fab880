r"""Answers as models write them to questions of competition mathematics, with their truths, for benchmarks/grading.py.

The shares of the kinds follow a count by eye of published test sets: six answers in ten are whole numbers, one in eight
a fraction, a quarter some formula, list, unit or word. Ten answers go to a question; a bit more than half are right,
three in ten of those in another spelling. Hostile ones hang a symbolic parser or eat memory; each is made anew, so that
none is like another and remembering helps nobody.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ANSWERS_TO_A_QUESTION = 10
_RIGHT, _RESPELLED = 0.55, 0.3


@dataclass(frozen=True)
class Answered:
    """One answer of a model."""

    answer: str
    truth: str
    kind: str
    equal: bool | None
    """Whether it is right; None for a hostile one, which no grader need decide."""


Spellings = list[str]
"""Of one value; the first is the truth's."""


def _whole(rng: random.Random) -> Spellings:
    n = rng.choice([rng.randint(0, 30), rng.randint(-50, 500), rng.randint(1000, 200_000)])
    grouped = f"{n:,}".replace(",", rng.choice([",", "{,}", r"\,"]))
    return [str(n), rng.choice([f"{n}.", f"${n}$", grouped, rf"\text{{{n}}}", f"x={n}"])]


def _fraction(rng: random.Random) -> Spellings:
    p, q = rng.randint(1, 60), rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 25, 36])
    while math.gcd(p, q) > 1:  # in lowest terms, so that no wrong one is equal by chance
        p += 1
    other = [rf"\dfrac{{{p}}}{{{q}}}", f"{p}/{q}", rf"\frac{{{2 * p}}}{{{2 * q}}}"]
    return [rf"\frac{{{p}}}{{{q}}}", rng.choice([*other, str(p / q)] if q in (2, 4, 5, 8, 16, 25) else other)]


def _decimal(rng: random.Random) -> Spellings:
    value = rng.randint(1, 99_999) / 100
    return [f"{value:.2f}", rng.choice([f"{value:.3f}", rf"\${value:.2f}", f"{value:.2f}0"])]


def _root(rng: random.Random) -> Spellings:
    a, b, c = rng.randint(2, 12), rng.choice([2, 3, 5, 6, 7, 10]), rng.randint(1, 20)
    return rng.choice(
        [
            [rf"{a}\sqrt{{{b}}}", rng.choice([rf"\sqrt{{{a * a * b}}}", rf"{a}\cdot\sqrt{{{b}}}"])],
            [rf"{c}+{a}\sqrt{{{b}}}", rf"{a}\sqrt{{{b}}}+{c}"],
            [rf"\frac{{\sqrt{{{b}}}}}{{{a}}}", rf"\frac{{{b}}}{{{a}\sqrt{{{b}}}}}"],
            [rf"{a}\pi", rng.choice([rf"\pi\cdot {a}", rf"{a} \pi"])],
            [rf"\frac{{{c}\pi}}{{{a}}}", rf"\frac{{{c}}}{{{a}}}\pi"],
        ]
    )


def _polynomial(rng: random.Random) -> Spellings:
    a, b, c = rng.randint(2, 9), rng.randint(1, 20), rng.randint(1, 20)
    return rng.choice(
        [
            [f"{a}x^2+{b}x+{c}", rng.choice([f"{c}+{b}x+{a}x^2", f"{a}x^{{2}} + {b}x + {c}"])],
            [f"(x-{b})(x+{c})", rng.choice([f"(x+{c})(x-{b})", f"x^2+{c}x-{b}x-{b * c}"])],
            [rf"\frac{{{a}x+{b}}}{{{c}}}", f"({a}x+{b})/{c}"],
            [f"y={a}x-{b}", f"y = -{b} + {a}x"],
            [f"{a}^{{n+{b}}}", rf"{a}^{b}\cdot {a}^n"],
        ]
    )


def _list(rng: random.Random) -> Spellings:
    a, b = sorted(rng.sample(range(-20, 60), 2))
    return rng.choice(
        [
            [f"({a},{b})", rf"\left({a}, {b}\right)"],
            [f"[{a},{b})", rf"\left[{a}, {b}\right)"],
            [rf"(-\infty,{a})\cup({b},\infty)", rf"({b},\infty)\cup(-\infty,{a})"],
            [f"{a},{b}", f"{b}, {a}"],
            [rf"\{{{a},{b}\}}", rf"\{{{b}, {a}\}}"],
            [rf"\begin{{pmatrix}}{a}\\{b}\end{{pmatrix}}", rf"\begin{{pmatrix}} {a} \\ {b} \end{{pmatrix}}"],
        ]
    )


def _unit(rng: random.Random) -> Spellings:
    n = rng.randint(2, 400)
    unit = rng.choice(["cm", "meters", "hours", "degrees", "square units"])
    return rng.choice([[rf"{n}\text{{ {unit}}}", str(n)], [rf"{n}\%", f"{n}%"], [rf"{n}^\circ", str(n)]])


def _word(rng: random.Random) -> Spellings:
    text = rng.choice(["A", "B", "C", "D", "E", "Monday", "even", "parabola", "Yes", "No"])
    return [rf"\text{{{text}}}", rng.choice([text, rf"\textbf{{{text}}}"])]


KINDS: dict[str, tuple[float, Callable[[random.Random], Spellings]]] = {
    "whole": (0.60, _whole),
    "fraction": (0.12, _fraction),
    "decimal": (0.04, _decimal),
    "root": (0.08, _root),
    "polynomial": (0.06, _polynomial),
    "list": (0.05, _list),
    "unit": (0.03, _unit),
    "word": (0.02, _word),
}
"""Kind of answer: its share, and what makes one."""


def _sum(n: int, m: int) -> str:
    return rf"\sum_{{k=1}}^{{10^{{{9 + n % 4}}}}} \frac{{{m}}}{{k^3+{n}k+{m}}}"


def _determinant(n: int, m: int) -> str:
    rows = [[f"a_{{{i}{j}}}+{n}" for j in range(8)] + [str(m)] for i in range(9)]
    return r"\det \begin{pmatrix}" + r"\\".join("&".join(row) for row in rows) + r"\end{pmatrix}"


HANGING: dict[str, Callable[[int, int], str]] = {
    "tower": lambda n, m: f"{n}^{{{m}^{{{n}^{{{m}}}}}}}",
    "flat tower": lambda n, m: f"{n}^({m}^({n}^{m}))",
    "tower below one": lambda n, m: f"{n}^{{-{m}^{{{n}^{{{m}^{{9}}}}}}}}",
    "factorials": lambda n, m: f"(({m}{n}!)!)!",
    "factorial": lambda n, m: f"{n}{m}999999!",
    "binomial": lambda n, m: rf"\binom{{{n}\cdot 10^{{9}}}}{{{m}\cdot 10^{{8}}}}",
    "root of a tower": lambda n, m: rf"\sqrt[{m}]{{{n}^{{10^{{10}}}}}}",
    "logarithm of a tower": lambda n, m: rf"\log_{{{m}}}{{{n}^{{10^{{12}}}}}}",
    "sum": _sum,
    "sum of sums": lambda n, m: rf"\sum_{{i=1}}^{{10^6}} \sum_{{j=1}}^{{10^6}} \frac{{{n}}}{{i^2+j^3+{m}}}",
    "product": lambda n, m: rf"\prod_{{k=2}}^{{{n}000000000}} (1-\frac{{1}}{{k^2+{m}k}})",
    "series": lambda n, m: rf"\sum_{{n=1}}^{{\infty}} \frac{{\sin({n}n^2)}}{{n^{{1.000{m}}}}}",
    "integral": lambda n, m: (
        rf"\int_0^1 \frac{{\sin({n}x^x) \ln(1+x^{{\sqrt{{{m}}}}})}}{{\sqrt{{1+x^5+e^{{x^2}}}}}} dx"
    ),
    "power of a sum": lambda n, m: f"(a+b+c+d+e+f+{m}g+h)^{{{40 + n}}}",
    "exponents": lambda n, m: "e^{" * 60 + f"{n}x+{m}" + "}" * 60,
    "parentheses": lambda n, m: "(" * 300 + f"{n}x+{m}" + ")" * 300,
    "long polynomial": lambda n, m: "+".join(f"{(n + i) % 7 + 2}x^{{{i}}}" for i in range(240)) + f"+{m}y",
    "determinant": _determinant,
}
"""Ways to hang a symbolic parser, or to have it eat memory; n and m are from 11 to 99 and 3 to 9."""


def answers(count: int, hostile: float, seed: int) -> Iterator[Answered]:
    """``count`` answers in the order of their questions, a share ``hostile`` of them hostile, spread at random."""
    rng = random.Random(seed)
    bad = set(rng.sample(range(count), round(count * hostile)))
    ways = list(HANGING.items())
    names = list(KINDS)
    number = made = 0
    while number < count:
        kind = rng.choices(names, [share for share, _ in KINDS.values()])[0]
        make = KINDS[kind][1]
        truth, other = make(rng)
        wrong = [make(rng)[0] for _ in range(4)]
        for _ in range(min(ANSWERS_TO_A_QUESTION, count - number)):
            if number in bad:
                name, way = ways[made % len(ways)]
                made += 1
                yield Answered(way(rng.randint(11, 99), rng.randint(3, 9)), truth, f"hostile: {name}", None)
            elif rng.random() < _RIGHT:
                yield Answered(other if rng.random() < _RESPELLED else truth, truth, kind, True)
            else:
                answer = rng.choice(wrong)
                yield Answered(answer, truth, kind, answer == truth)
            number += 1
