"""Which questions are asked for: a query string <-> a Filter. Pure; what makes no sense in it is left out."""

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
_LONGEST = 200
"""Characters of a search."""


@dataclass(frozen=True)
class Filter:
    """Fields as they stand in the address; those with their default do not."""

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

    @property
    def query(self) -> str:
        """As it stands in an address."""
        return urlencode({name: _written(value) for name, value in self._given().items()})

    def but(self, **changes: Any) -> str:
        """The address of the same with changes, at its first page if none is given."""
        return replace(self, **{"page": 1, **changes}).query

    def _given(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


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


def conditions(of: Filter) -> tuple[str, list[Any]]:
    """As SQL over the table of `questions`, with its parameters: no word of the reader's is in the SQL."""
    share, length = (None if x is None else x / 100 for x in (of.least, of.most)), (of.longer, of.shorter)
    least, most = share
    wanted: list[tuple[str, Any]] = [
        ("iteration = ?", of.iteration),
        ("came = ?", of.came or None),
        ("share >= ? - 1e-9", least),
        ("share <= ? + 1e-9", most),
        ("length >= ?", length[0]),
        ("length <= ?", length[1]),
        ("verdict = ?", of.verdict or None),
        ("contains(lowered, ?)", of.text.lower().encode("utf-8", "replace").decode() or None),
    ]
    given = [(sql, value) for sql, value in wanted if value is not None]
    return " AND ".join(sql for sql, _ in given) or "true", [value for _, value in given]


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
