"""What may change in a run after it was created, as transition rules of the CRD. Pure.

What determines a step's output, or where outputs lie, may not: a run whose earlier iterations were made by other
settings than its later ones has no meaning, and its record would describe neither. Another run with the other values
costs nothing that is the same: it finds every step whose inputs are equal (docs/design.md, decision 1). What is not
named here may not change, so that a new setting is safe until somebody thought about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfevo_contract.crd.of_fields import of_fields

Schema = dict[str, Any]

MAY_CHANGE = frozenset(
    {
        "suspend",
        "engines",
        "parallelSteps",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "priorityClass",
        "rollout.shards",
        "rollout.minShards",
        "rollout.chunkQuestions",
        "guards",
        "budget",
        "review",
        "publish",
        "tracking",
        "approvedIteration",
        "storage.credentialsSecret",
        "storage.region",
        "storage.requireConditionalPut",
        "storage.checksum",
        "storage.keepAnswers",
        "evaluation.metric",
        "evaluation.shards",
        "evaluation.minShards",
        "evaluation.chunkQuestions",
        "verifier.rubric.endpoint",
        "verifier.rubric.maxUnscored",
        "verifier.server",
    }
)
MAY_CHANGE_ANYWHERE = frozenset({"pods", "engine", "checkpointEvery", "queue", "sharding", "cpuOffload"})
PART_OF_ENGINE = ("quantization",)
"""Of an engine, which may change, what may not: it is part of what a step computes."""
MAY_GROW = frozenset({"iterations"})
MAY_COME = frozenset({"finetune"})
"""What may be added, and then not be removed: it adds to the end of the plan, as more iterations do."""
AS_A_WHOLE = frozenset({"rollout.oracle"})
"""Compared as they stand: a kind's fields are absent from another kind."""

_REMEDY = "start a new run with the other value: it shares every step whose inputs are equal"
FROZEN = f"this cannot change after creation; {_REMEDY}"


def hold_still(schema: Schema, path: tuple[str, ...] = ()) -> None:
    """Adds transition rules to ``schema`` (of ``spec``), in place, for all that may not change."""
    required, present = schema.get("required", []), []
    for name, field in schema["properties"].items():
        place = ".".join((*path, name))
        if name == "engine":
            _hold_presence(field, PART_OF_ENGINE)
        if place in MAY_CHANGE or name in MAY_CHANGE_ANYWHERE:
            continue
        if place in MAY_GROW:
            message = f"{name} can be raised, not lowered, after creation; start a new run with fewer"
            _add(
                field, {"rule": "self >= oldSelf", "message": f"{message}: it shares every step that it has in common"}
            )
            continue
        always_there = name in required or "default" in field
        if field.get("type") == "array":
            _hold_list(schema, name, field, always_there)
            continue
        if place in MAY_COME:
            message = f"{name} can be added, not removed, after creation; start a new run without it"
            rule = f"has(self.{name}) || !has(oldSelf.{name})"
            message = f"{message}: it shares every step that it has in common"
            _add(schema, {"rule": rule, "message": message, "fieldPath": f".{name}"})
        elif not always_there:
            present.append(name)
        if "properties" in field and place not in AS_A_WHOLE:
            hold_still(field, (*path, name))
        else:
            _add(field, {"rule": "self == oldSelf", "message": FROZEN})
    if present:
        _hold_presence(schema, present)


def keep_to_what_is_built(spec: Schema, engines: Mapping[str, Sequence[str]]) -> None:
    """Adds rules to ``spec``, in place: a run is not edited into one that this version cannot go on with.

    One that is created so is refused by the operator with the same sentence, and nothing of it runs. Other fields that
    are not built may not be added later in any case.

    Args:
        engines: the kinds of engine that are built, by the part of the spec.
    """
    for part, kinds in engines.items():
        field = spec["properties"][part].get("properties", {}).get("engine")
        if field is not None and set(kinds) < set(field["properties"]["kind"]["enum"]):
            message = f"this version of selfevo does not have this engine yet; choose {' or '.join(map(repr, kinds))}"
            rule = " || ".join(["self.kind == oldSelf.kind", *(f"self.kind == {kind!r}" for kind in kinds)])
            _add(field, {"rule": rule, "message": message})


def _hold_presence(schema: Schema, names: Sequence[str]) -> None:
    unchanged = {name: f"has(self.{name}) == has(oldSelf.{name})" for name in names}
    _add(schema, of_fields(unchanged, f"cannot be added or removed after creation; {_REMEDY}"))


def _hold_list(schema: Schema, name: str, field: Schema, always_there: bool) -> None:
    if not always_there:  # missing and empty are the same
        now, before = (f"(has({of}.{name}) ? {of}.{name} : [])" for of in ("self", "oldSelf"))
        _add(schema, {"rule": f"{now} == {before}", "message": FROZEN, "fieldPath": f".{name}"})
    elif keys := field.get("x-kubernetes-list-map-keys"):
        # Such lists are equal in any order, but the order is part of a step's key.
        now, before = (f"{of}.map(item, item.{keys[0]})" for of in ("self", "oldSelf"))
        _add(field, {"rule": f"self == oldSelf && {now} == {before}", "message": FROZEN})
    else:
        _add(field, {"rule": "self == oldSelf", "message": FROZEN})


def _add(schema: Schema, rule: Schema) -> None:
    schema.setdefault("x-kubernetes-validations", []).append(rule)
