"""An answer over itself with its words out of order: as long, with the same words, and worse."""

from __future__ import annotations

import random
import re

from selfevo_contract.canonical import derive_seed
from selfevo_trainer.pairs.base import Made, Sources


def make(sources: Sources) -> list[Made]:
    """Every answer of two words and more."""
    made = []
    for i, answer in enumerate(sources.answers):
        worse = corrupted(answer, derive_seed(sources.seed, "corrupt", i))
        if worse is not None:
            made.append(Made(i, answer, worse))
    return made


def corrupted(text: str, seed: int) -> str | None:
    """``text`` with a run of a half of its words, two at least, in another order; None where there is no other.

    >>> corrupted("one two three four", 1), corrupted("one", 1), corrupted("a a a", 1)
    ('two one three four', None, None)
    """
    pieces = re.split(r"(\s+)", text)
    words = [place for place in range(0, len(pieces), 2) if pieces[place]]
    rng = random.Random(seed)
    if len(words) < 2:
        return None
    run = max(2, len(words) // 2)
    first = rng.randrange(len(words) - run + 1)
    places = words[first : first + run]
    for _ in range(8):
        order = [pieces[place] for place in rng.sample(places, run)]
        if order != [pieces[place] for place in places]:
            for place, word in zip(places, order, strict=True):
                pieces[place] = word
            return "".join(pieces)
    return None
