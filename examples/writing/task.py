"""The writing example's task, and what an answer is truly worth. Pure; no training sees any of it.

A task names things and animals; the text tells them all in their order and joins neighbours by `and` where both are
animals or both are things, by `but` where they are not:

    fox bell lamp owl  ->  \\boxed{ fox but bell and lamp but owl }
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

ANIMALS = ("fox", "owl", "bee", "cat", "crow", "deer")
THINGS = ("bell", "book", "coin", "drum", "harp", "lamp")
WORDS = (*ANIMALS, *THINGS)
ALIKE, UNLIKE = "and", "but"
OPEN, CLOSE = "\\boxed{", "}"
LENGTHS = range(2, 7)
"""Words of a task."""

_WHOLE = re.compile(r"\\boxed\{ ([^{}]*) \}")


def connector(left: str, right: str) -> str:
    """What joins two neighbours.

    >>> connector("fox", "owl"), connector("fox", "bell")
    ('and', 'but')
    """
    return ALIKE if (left in ANIMALS) == (right in ANIMALS) else UNLIKE


def joined(words: Sequence[str]) -> str:
    """The perfect text without its box.

    >>> joined(["fox", "bell", "lamp"])
    'fox but bell and lamp'
    """
    told = list(words[:1])
    for left, right in itertools.pairwise(words):
        told += [connector(left, right), right]
    return " ".join(told)


def in_box(text: str) -> str:
    """As the Solver writes it."""
    return f"{OPEN} {text} {CLOSE}"


def quality(task: str, text: str) -> float:
    """What ``text`` is worth as an answer to ``task``, from 0 to 1; 1 is the perfect text alone.

    coverage x clean x (.3 + .35 order + .35 connectors), a half of it unless the whole text is one box.
        coverage     share of the task's words that are told
        clean        share of the told words that the task asks for, each as often as it asks
        order        share of the task's neighbours of which both are told, the first before the second
        connectors   share of the places between two told words that hold the right connector and nothing else

    >>> [round(quality("fox bell", text), 3) for text in
    ...  ("\\\\boxed{ fox but bell }", "\\\\boxed{ fox and bell }", "\\\\boxed{ bell but fox }", "fox but bell")]
    [1.0, 0.65, 0.65, 0.5]
    """
    asked, whole = task.split(), _WHOLE.fullmatch(text.strip())
    tokens = (whole[1] if whole else text.replace(OPEN, " ").replace(CLOSE, " ")).split()
    told = [token for token in tokens if token not in (ALIKE, UNLIKE)]
    if not asked or not told:
        return 0.0
    common = (Counter(asked) & Counter(told)).total()
    worth = common / len(asked) * common / len(told) * (0.3 + 0.35 * _order(asked, told) + 0.35 * _connectors(tokens))
    return round(worth if whole else worth / 2, 6)


def _order(asked: Sequence[str], told: Sequence[str]) -> float:
    neighbours = list(itertools.pairwise(asked))
    if not neighbours:
        return 1.0
    place = {word: told.index(word) for word in set(told)}
    return sum(a in place and b in place and place[a] < place[b] for a, b in neighbours) / len(neighbours)


def _connectors(tokens: Sequence[str]) -> float:
    places = [i for i, token in enumerate(tokens) if token not in (ALIKE, UNLIKE)]
    gaps = [(tokens[i], tokens[i + 1 : j], tokens[j]) for i, j in itertools.pairwise(places)]
    gaps += [("", tokens[: places[0]], "")] if places[0] > 0 else []
    gaps += [("", tokens[places[-1] + 1 :], "")] if places[-1] < len(tokens) - 1 else []
    if not gaps:
        return 1.0
    return sum(bool(left) and between == [connector(left, right)] for left, between, right in gaps) / len(gaps)


def draw(rng: random.Random, words: int) -> str:
    """A task of so many different words."""
    return " ".join(rng.sample(WORDS, words))


@dataclass(frozen=True)
class Slips:
    """How often a writer of a task of four words slips: at each word, and at each connector. Of shorter tasks less
    often, of longer ones more, in proportion to the number of words."""

    left_out: float = 0.08
    swapped: float = 0.1
    """With the next word."""
    added: float = 0.06
    """A word that nobody asked for."""
    again: float = 0.03
    """The word a second time."""
    connector: float = 0.2
    short: float = 0.03
    """The text ends here."""
    no_end: float = 0.02
    """The whole text has no closing brace."""


CARELESS = Slips()
"""The base's text: what each sample of it is like."""
CAREFUL = Slips(left_out=0.03, swapped=0.1, added=0.03, again=0.02, connector=0.15, short=0.01, no_end=0.01)


def written(rng: random.Random, task: str, slips: Slips = CARELESS) -> str:
    """A text on ``task`` by a writer who slips."""
    words = task.split()

    def slips_at(rate: float) -> bool:
        return rng.random() < rate * len(task.split()) / 4

    for i in range(len(words) - 1):
        if slips_at(slips.swapped):
            words[i], words[i + 1] = words[i + 1], words[i]
    told: list[str] = []
    for word in words:
        if told and slips_at(slips.short):
            break
        if not slips_at(slips.left_out):
            told.append(word)
        if slips_at(slips.added):
            told.append(rng.choice(WORDS))
        if told and slips_at(slips.again):
            told.append(told[-1])
    tokens = told[:1] or words[:1]
    for left, right in itertools.pairwise(told):
        right_one = connector(left, right)
        other = UNLIKE if right_one == ALIKE else ALIKE
        tokens += [other if slips_at(slips.connector) else right_one, right]
    text = in_box(" ".join(tokens))
    return text.removesuffix(f" {CLOSE}") if slips_at(slips.no_end) else text


def parts_of(words: Sequence[str]) -> list[list[str]]:
    """A task of four words and more as parts of two, the last one of three where the number is odd; else no parts.

    >>> parts_of("abcde"), parts_of("abc")
    ([['a', 'b'], ['c', 'd', 'e']], [])
    """
    count = len(words) // 2
    if count < 2:
        return []
    return [list(words[2 * i : 2 * i + 2 if i < count - 1 else len(words)]) for i in range(count)]
