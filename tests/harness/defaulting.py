"""What the API server's defaulting makes of a document: its algorithm in fifteen lines, for tests without a server."""

from __future__ import annotations

import copy
from typing import Any


def defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """``value`` with the defaults of ``schema`` where it says nothing; nulls of known fields say nothing."""
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        made = {name: item for name, item in value.items() if item is not None or name not in properties}
        for name, field in properties.items():
            if "default" in field and name not in made:
                made[name] = copy.deepcopy(field["default"])
        return {name: defaulted(item, properties.get(name) or others or {}) for name, item in made.items()}
    if isinstance(value, list):
        return [defaulted(item, schema.get("items", {})) for item in value]
    return value
