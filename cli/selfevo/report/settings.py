"""A run's settings as a reader may see them: a report is passed around, and values of variables stay behind. Pure."""

from __future__ import annotations

import json
from typing import Any

HIDDEN = "(not shown)"


def without_values(value: Any, field: str = "") -> Any:
    """The same without the values of environment variables, where tokens may hide."""
    if field == "env":
        return [{**variable, "value": HIDDEN} for variable in value]
    if isinstance(value, dict):
        return {name: without_values(item, name) for name, item in value.items()}
    return [without_values(item) for item in value] if isinstance(value, list) else value


def flattened(spec: Any) -> dict[str, str]:
    """Path -> value as it is written, of every field that is set.

    >>> flattened({"seed": 1, "evaluation": {"tasks": [{"name": "a"}]}})
    {'seed': '1', 'evaluation.tasks[0].name': 'a'}
    """
    found: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                walk(item, f"{path}.{name}" if path else name)
        elif isinstance(value, list) and value:
            for place, item in enumerate(value):
                walk(item, f"{path}[{place}]")
        else:
            found[path] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    walk(without_values(spec), "")
    return found
