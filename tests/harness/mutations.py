"""A valid document with one thing in it changed, at every place: what a fuzz test sends to both readers of a run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
ABSENT = object()

_ANYTHING: list[Any] = [
    *(
        None,
        True,
        False,
        {},
        [],
        {"x": 1},
        [1],
        [None],
        [{}],
        "",
        " ",
        "x",
        "true",
        "1",
        "1.0",
        "a\n",
        "é",
        "ſ",
        "\u2028",
    ),
    *("a" * 64, "A" * 63, "-", "a-", ".", "a..b", "a.b", "\x00", "{question}", "s3://bucket/x", "file:", "72h", "8Gi"),
    *(-1, 0, 1, 2, 3, 7, 60, 100, 0.0, -0.0, 0.5, 1.0, 1.5, 3.0, 1e-9, 5e-324, 1e30, 1.7e308),
    *(2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1),
]
_STRINGS = ("\n", " ", "é", "\x00", "\t", "%", "..", "/", "/..", "/../x", "/.", "$", "\\", "'", "\u00a0", "\u0661")


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything in ``value``, containers before what they hold."""
    yield path, value
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from places(item, (*path, name))


def changed(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of ``document`` with ``value`` at ``path``; without that place where it is ABSENT."""
    made = copy.deepcopy(document)
    *parents, last = path
    place: Any = made
    for name in parents:
        place = place[name]
    if value is ABSENT:
        del place[last]
    else:
        place[last] = copy.deepcopy(value)
    return made


def bounds_of(schema: dict[str, Any]) -> Iterator[Any]:
    """Values at the bounds of a field's schema and just beyond."""
    for name in ("minimum", "maximum"):
        if name in schema:
            bound = schema[name]
            yield from (bound, bound - 1, bound + 1, bound * (1 + 1e-12), bound * (1 - 1e-12), bound + 0.5)
    for name in ("minLength", "maxLength"):
        if name in schema:
            yield from ("a" * size for size in range(max(0, schema[name] - 1), schema[name] + 2))
            yield from ("é" * schema[name], "𝒳" * schema[name], "𝒳" * (schema[name] + 1))
    yield from schema.get("enum", [])


def values_for(given: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """What to put in the place of ``given``: wrong types, bounds, odd text, items once more and too often."""
    yield ABSENT
    yield from _ANYTHING
    yield from bounds_of(schema)
    if isinstance(given, str):
        for odd in _STRINGS:
            yield from (given + odd, odd + given, given[:3] + odd + given[3:])
        yield from (given.upper(), given[:-1], given + given)
    elif isinstance(given, bool):
        yield str(given)
    elif isinstance(given, int | float):
        yield from (given + 1, given - 1, -given, float(given), given + 0.5, str(given))
    elif isinstance(given, list):
        for size in (schema.get("minItems", 0), schema.get("maxItems", 4)):
            for one in (size - 1, size, size + 1):
                yield [_numbered(given[0] if given else "a", i) for i in range(max(one, 0))]
        yield [*given, *given]
        yield [*given, None]
    elif isinstance(given, dict):
        yield {**given, "unknown": 1}
        yield {**given, "Unknown": None}
        if "additionalProperties" in schema:
            item = next(iter(given.values()), "a")
            names = (
                "cpu",
                "CPU",
                "a/b",
                "a/",
                "/a",
                "é",
                "a b",
                "",
                "a" * 63,
                "a" * 64,
                "a\n",
                f"{'a' * 253}/{'b' * 63}",
            )
            yield from ({**given, name: item} for name in names)
            most = schema.get("maxProperties", 4)
            yield from ({f"example.com/n{i}": item for i in range(size)} for size in (most, most + 1))
    else:
        yield {"unknown": given}


def _numbered(item: Any, index: int) -> Any:
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return {**item, "name": f"n{index}"}
    return f"{item}{index}" if isinstance(item, str) else item


def schema_at(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """The part of ``schema`` that is about the place ``path``."""
    for name in path:
        if isinstance(name, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
    return schema
