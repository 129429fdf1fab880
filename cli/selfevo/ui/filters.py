"""Which questions are asked for: a query string <-> a filter. Pure; what makes no sense in it is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

PAGE = 50
"""Questions on a page."""
SORTS = {"number": "number", "share": "share", "length": "length"}
VERDICTS = ("right", "wrong", "unknown")
MEASURES = {"greedy": "greedy answer", "maj": "majority"}
CHANGES = {
    "lost": ("right → wrong", "before AND NOT after"),
    "gained": ("wrong → right", "after AND NOT before"),
    "right": ("right in both", "before AND after"),
    "wrong": ("wrong in both", "NOT before AND NOT after"),
    "changed": ("changed at any time", "flips > 0"),
}
"""From ``since`` to ``until``: what people call it, and as SQL."""
HELD_OUT_SORTS = {"number": "task_order, number", "flips": "flips", "moved": "moved", "right": "share"}
_LONGEST = 200
"""Characters of a search."""


@dataclass(frozen=True)
class _Filter:
    """Fields as they stand in the address; those with their default do not."""

    @property
    def query(self) -> str:
        """As it stands in an address."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return urlencode({name: _written(value) for name, value in given.items()})

    def but(self, **changes: Any) -> str:
        """The address of the same with changes, at its first page if none is given."""
        return replace(self, **{"page": 1, **changes}).query


@dataclass(frozen=True)
class Filter(_Filter):
    """Of the questions of rollouts."""

    iteration: int | None = None
    came: str = ""
    """``kept``, or why a question was dropped."""
    least: float | None = None
    """Of the majority's share, in per cent."""
    most: float | None = None
    longer: int | None = None
    """Characters."""
    shorter: int | None = None
    verdict: str = ""
    """Label, or majority where there is none, against the truth: right, wrong or unknown."""
    text: str = ""
    sort: str = "number"
    down: bool = False
    page: int = 1


@dataclass(frozen=True)
class HeldOutFilter(_Filter):
    """Of the questions of evaluations."""

    task: str = ""
    by: str = "greedy"
    """What is right or wrong: the greedy answer, or that of the majority (maj)."""
    since: int | None = None
    """Model (a number of models.py) that ``until`` is held against; the first that was evaluated when not given."""
    until: int | None = None
    """The last iteration that was evaluated when not given."""
    change: str = ""
    text: str = ""
    sort: str = "number"
    down: bool = False
    page: int = 1


def read_filter(query: Mapping[str, str]) -> Filter:
    """What an address asks for.

    >>> read_filter({"iteration": "2", "least": "x", "sort": "share", "page": "-1"})
    Filter(iteration=2, came='', least=None, most=None, ..., sort='share', down=False, page=1)
    """
    sort, verdict = query.get("sort", ""), query.get("verdict", "")
    return Filter(
        iteration=_whole(query.get("iteration")),
        came=query.get("came", "")[:40],
        least=_number(query.get("least")),
        most=_number(query.get("most")),
        longer=_whole(query.get("longer")),
        shorter=_whole(query.get("shorter")),
        verdict=verdict if verdict in VERDICTS else "",
        text=query.get("text", "")[:_LONGEST],
        sort=sort if sort in SORTS else "number",
        down=query.get("down") == "1",
        page=max(1, _whole(query.get("page")) or 1),
    )


def read_held_out(query: Mapping[str, str]) -> HeldOutFilter:
    """What an address asks for of the evaluations.

    >>> read_held_out({"by": "luck", "since": "0", "change": "lost"})
    HeldOutFilter(task='', by='greedy', since=0, until=None, change='lost', ..., page=1)
    """
    sort, change, by = query.get("sort", ""), query.get("change", ""), query.get("by", "")
    return HeldOutFilter(
        task=query.get("task", "")[:40],
        by=by if by in MEASURES else "greedy",
        since=_whole(query.get("since")),
        until=_whole(query.get("until")),
        change=change if change in CHANGES else "",
        text=query.get("text", "")[:_LONGEST],
        sort=sort if sort in HELD_OUT_SORTS else "number",
        down=query.get("down") == "1",
        page=max(1, _whole(query.get("page")) or 1),
    )


def held_out_conditions(of: HeldOutFilter) -> tuple[str, dict[str, Any]]:
    """As SQL over the questions of `held_out`, a row each, with its parameters."""
    where, values = _given(
        ("task = $task", "task", of.task or None), ("contains(lowered, $text)", "text", lowered(of.text))
    )
    return f"{where} AND {CHANGES[of.change][1]}" if of.change else where, values


def conditions(of: Filter) -> tuple[str, dict[str, Any]]:
    """As SQL over the outcomes of `questions`, with its parameters: no word of the reader's is in the SQL."""
    least, most = (None if x is None else x / 100 for x in (of.least, of.most))
    return _given(
        ("iteration = $iteration", "iteration", of.iteration),
        ("came = $came", "came", of.came or None),
        ("share >= $least - 1e-9", "least", least),
        ("share <= $most + 1e-9", "most", most),
        ("length >= $longer", "longer", of.longer),
        ("length <= $shorter", "shorter", of.shorter),
        ("verdict = $verdict", "verdict", of.verdict or None),
    )


def _given(*wanted: tuple[str, str, Any]) -> tuple[str, dict[str, Any]]:
    given = [(sql, name, value) for sql, name, value in wanted if value is not None]
    return " AND ".join(sql for sql, _, _ in given) or "true", {name: value for _, name, value in given}


def lowered(text: str) -> str | None:
    """What is searched for; None for nothing."""
    return text.lower().encode("utf-8", "replace").decode() or None


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None or abs(number) > 1e9 else int(number)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
