"""The JSON patch that turns a run's recorded status into the new one, and touches nothing else. Pure.

Its first operation tests the resource version: when anybody has written the run meanwhile, nothing is changed, and we
reconcile again. So a status never goes back in time, not even by an old operator that was cut off and comes back.
Fields and conditions of other writers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfevo_contract.packing import packed
from selfevo_contract.status import RunStatus

OWN_FIELDS = frozenset(field.alias or name for name, field in RunStatus.model_fields.items())


def wire(status: RunStatus) -> dict[str, Any]:
    """The status as JSON-ready data, unset values left out, and old steps in a line each where there are very many."""
    made = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    made["done"], made["steps"] = packed(made["steps"], {iteration.iteration for iteration in status.iterations})
    return made if made["done"] else {name: value for name, value in made.items() if name != "done"}


def status_patch(recorded: Mapping[str, Any], status: RunStatus, version: int) -> list[dict[str, Any]]:
    """The patch's operations; empty when nothing is to be written.

    Args:
        recorded: ``status`` of the run as last seen, other writers' fields included.
        version: the resource version that it was seen at.
    """
    wanted = wire(status)
    wanted["conditions"] = _merged(recorded.get("conditions") or [], wanted["conditions"])
    operations: list[dict[str, Any]] = []
    for name in sorted(OWN_FIELDS):
        if name in wanted and recorded.get(name) != wanted[name]:
            operations.append({"op": "add", "path": f"/status/{name}", "value": wanted[name]})
        elif name not in wanted and name in recorded:
            operations.append({"op": "remove", "path": f"/status/{name}"})
    if not operations:
        return []
    start = [] if recorded else [{"op": "add", "path": "/status", "value": {}}]
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": str(version)}, *start, *operations]


def _merged(recorded: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every condition in its place: another writer that puts its own first is no reason to write."""
    left = {condition["type"]: condition for condition in ours}
    kept = [left.pop(str(condition.get("type")), condition) for condition in recorded]
    return [*kept, *left.values()]
