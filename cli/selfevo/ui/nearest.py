"""How near two questions are: by the runs of words that both have. Pure.

Word for word the same are found by their text alone; these are those that were asked again with other numbers or names.
"""

from __future__ import annotations

from collections.abc import Sequence

SEARCHED = 24
"""Runs of words of one question that others are searched for, spread over it."""
CANDIDATES = 50
"""Of one rollout, those with the most of these runs, of which the nearest are then found by all of theirs."""
SHOWN = 5
_RUN, _SHORT = 3, 6
"""Words of a run; a question of fewer than six has runs of one."""


def width_of(text: str) -> int:
    """How many words a run has where others are held against this question."""
    return _RUN if len(text.split()) >= _SHORT else 1


def runs_of(text: str, width: int) -> list[str]:
    """Each run of ``width`` words once.

    >>> runs_of("a hen lays an egg", 3), runs_of("7 + 7", 1)
    (['a hen lays', 'hen lays an', 'lays an egg'], ['7', '+'])
    """
    words = text.split()
    return list(dict.fromkeys(" ".join(words[place : place + width]) for place in range(len(words) - width + 1)))


def searched(text: str) -> list[str]:
    """Those runs of it that others are searched for."""
    found = runs_of(text, width_of(text))
    step = max(1.0, len(found) / SEARCHED)
    return [found[int(place * step)] for place in range(min(SEARCHED, len(found)))]


def in_common(question: str, other: str) -> float:
    """The runs that both have, of those that one of them has (Jaccard).

    >>> in_common("a hen lays an egg every day", "a hen lays one egg every day")
    0.25
    """
    ours, theirs = (set(runs_of(text, width_of(question))) for text in (question, other))
    return len(ours & theirs) / len(ours | theirs)


def sql(parts: Sequence[str]) -> tuple[str, dict[str, str]]:
    """How many of ``parts`` a row's text holds, and the values of the statement's names."""
    names = {f"part_{place}": part for place, part in enumerate(parts)}
    return " + ".join(f"contains(lowered, ${name})::INTEGER" for name in names) or "0", names
