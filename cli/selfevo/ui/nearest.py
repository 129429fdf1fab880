"""How near two questions are: by the runs of three words that both have. Pure.

Word for word the same are found by their text alone; these are those that were asked again with other numbers or names.
"""

from __future__ import annotations

from collections.abc import Sequence

WORDS = 3
SEARCHED = 24
"""Runs of words of one question that others are searched for, spread over it."""
CANDIDATES = 50
"""Of one rollout, those with the most of these runs, of which the nearest are then found by all of theirs."""
SHOWN = 5


def runs_of(text: str) -> list[str]:
    """Each run of three words once; of fewer words the text itself.

    >>> runs_of("a hen lays an egg"), runs_of("why ?")
    (['a hen lays', 'hen lays an', 'lays an egg'], ['why ?'])
    """
    words = text.split()
    last = max(1, len(words) - WORDS + 1)
    return list(dict.fromkeys(" ".join(words[place : place + WORDS]) for place in range(last)))


def searched(text: str) -> list[str]:
    """Those runs of it that others are searched for."""
    found = runs_of(text)
    step = max(1.0, len(found) / SEARCHED)
    return [found[int(place * step)] for place in range(min(SEARCHED, len(found)))]


def in_common(one: str, other: str) -> float:
    """The runs that both have, of those that one of them has (Jaccard).

    >>> in_common("a hen lays an egg", "a hen lays one egg")
    0.2
    """
    ours, theirs = set(runs_of(one)), set(runs_of(other))
    return len(ours & theirs) / len(ours | theirs)


def sql(parts: Sequence[str]) -> tuple[str, dict[str, str]]:
    """How many of ``parts`` a row's text holds, and the values of the statement's names."""
    names = {f"part_{place}": part for place, part in enumerate(parts)}
    return " + ".join(f"contains(lowered, ${name})::INTEGER" for name in names), names
