"""Edits of a spec, made from the CRD's schema: every leaf, with values that it should take and that it should not.

A leaf's path goes through lists by index and through maps by a key: ``("evaluation", "tasks", 0, "name")``.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]
Leaf = tuple[str | int, ...]
GONE = object()
"""The value of a field that is taken away."""

_STRINGS = ("x", "a.b", "team-a", "8", "500m", "90m", "", "Not A Name", "s3://other/place", "é" * 70000)
_TYPICAL: dict[str, tuple[Any, ...]] = {
    "integer": (1, 2, 60, -1, 2**63, 1.5, "3"),
    "number": (0.5, 1, -1.0, 1e300, "0.5"),
    "boolean": (True, False, "true", 1),
    "string": _STRINGS,
}


def spec_schema(crd: Path) -> Schema:
    (version,) = yaml.load(crd.read_text(), yaml.CSafeLoader)["spec"]["versions"]  # libyaml: a tenth of the time
    schema: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def leaves(schema: Schema, path: Leaf = ()) -> Iterator[tuple[Leaf, Schema]]:
    """Everything below ``schema`` that holds a value of its own, and each list and map as a whole."""
    if "properties" in schema:
        for name, field in schema["properties"].items():
            yield from leaves(field, (*path, name))
        return
    yield path, schema
    if "items" in schema:
        yield from leaves(schema["items"], (*path, 0))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from leaves(schema["additionalProperties"], (*path, "cpu"))


def values(schema: Schema) -> list[Any]:
    """Good ones and bad ones; which is which, the API server says."""
    found: list[Any] = [*schema.get("enum", ())]
    for name, beyond in (("minimum", -1), ("maximum", 1)):
        if name in schema:
            found += [schema[name], schema[name] + beyond]
    kind = schema.get("type")
    if kind == "array":
        found += [[], [{}], ["x"], "x"]
    elif kind == "object":
        found += [{}, {"cpu": "1"}, {"not a key": "1"}, "x"]
    else:
        found += _TYPICAL.get(kind or "string", (*_TYPICAL["integer"], *_STRINGS))
    return [*found, None, GONE, {"un": "known"}]


def edited(spec: dict[str, Any], leaf: Leaf, value: Any) -> dict[str, Any]:
    """A copy of ``spec`` with ``value`` at ``leaf``, and what leads there."""
    made = copy.deepcopy(spec)
    place: Any = made
    for name, below in itertools.pairwise(leaf):
        empty: Any = [] if isinstance(below, int) else {}
        if isinstance(name, int):
            if len(place) <= name:
                place.append(empty)
            place = place[name]
        else:
            place = place.setdefault(name, empty)
    last = leaf[-1]
    if value is GONE:
        if isinstance(place, dict):
            place.pop(last, None)
        elif isinstance(last, int) and len(place) > last:
            del place[last]
    elif isinstance(last, int) and len(place) <= last:
        place.append(value)
    else:
        place[last] = value
    return made
