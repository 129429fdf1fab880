"""`selfevo explain`: what a field of a manifest is, by the contract's own descriptions, bounds and rules."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from selfevo.text import aligned, fitted, flowed, width
from selfevo_contract.crd.of_fields import messages_of
from selfevo_contract.errors import InputError

Schema = Mapping[str, Any]
_WHOLE = {"integer": "whole number", "array": "list", "object": "mapping"}
_LONG = 60
"""Characters of a default; a longer one, such as a prompt, is cut in a list."""


def explain(
    field: Annotated[
        str | None, typer.Argument(metavar="FIELD", help="For example solver.grpo.beta; without it, a list.")
    ] = None,
) -> None:
    """Say what a field of a manifest means, what it may be, and what it is when it is not given."""
    for line in explained(field or "", width()):
        typer.echo(line)


def explained(field: str, columns: int | None = None) -> list[str]:
    """The lines about ``field``, a path below ``spec`` with or without that word; about all of ``spec`` when empty.

    Raises:
        InputError: there is no such field; near ones are named.
    """
    parts = [part for part in re.split(r"[.]|\[[0-9]*\]", field.strip()) if part]
    if parts[:1] == ["spec"]:
        del parts[0]
    schema, required = _spec(), True
    for at, part in enumerate(parts):
        inside = _inside(schema)
        if part not in inside.get("properties", {}):
            raise InputError(_unknown(parts, at, inside))
        required = part in inside.get("required", ())
        schema = inside["properties"][part]
    path = ".".join(["spec", *parts])
    head = f"{path}: {_type(schema)}"
    if parts:
        head += ", has to be given" if required else _default(schema, ", {} when not given")
        head += ", may change after creation" if _may_change(parts) else ""
    lines = [flowed(head, columns), *(flowed(line, columns) for line in schema.get("description", "").splitlines())]
    checked = [rule for rule in schema.get("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"]]
    rules = [message for rule in checked for message in messages_of(rule)]
    lines += ["What it says when it is refused:"] * bool(rules) + [flowed(f"- {rule}", columns) for rule in rules]
    fields = _inside(schema).get("properties", {})
    if fields:
        rows = [("", "", "")] + [
            (f"  {name}", _type(of), (_default(of, "{}. ") + of.get("description", "")).partition("\n")[0])
            for name, of in fields.items()
        ]
        whole = aligned(rows)[1:] if columns is None else fitted(rows, (), columns)[1:]
        lines += ["", *whole, "", f"`{_program()} explain {'.'.join([*parts, next(iter(fields))])}` says more of one."]
    return lines


def _program() -> str:
    from selfevo.target import program

    return program()


@functools.cache
def _spec() -> Schema:
    from selfevo_contract.crd.resource import definition

    schema: Schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def _inside(schema: Schema) -> Schema:
    """The object that ``schema`` is, or whose list it is."""
    inner: Schema = schema.get("items", schema)
    return inner


def _type(schema: Schema) -> str:
    """``number from 0 to 10``, ``paper or code``, ``list``."""
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    kind: str = schema.get("type", "quantity" if schema.get("x-kubernetes-int-or-string") else "value")
    if kind == "array":
        items = schema["items"]
        return f"list of {items['type']}s" if items.get("type") in ("string", "integer", "number") else "list"
    text = {"boolean": "true or false", **_WHOLE}.get(kind, kind)
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind not in ("integer", "number") or (low is None and high is None):
        return text
    above = "above" if schema.get("exclusiveMinimum") else "from"
    below = "below" if schema.get("exclusiveMaximum") else "to"
    bounds = (f" {word} {value}" for word, value in ((above, low), (below, high)) if value is not None)
    return text + "".join(bounds)


def _default(schema: Schema, text: str) -> str:
    """``text`` with the default in it; nothing where there is none."""
    import json

    if "default" not in schema or isinstance(schema["default"], dict):
        return ""
    value = json.dumps(schema["default"], ensure_ascii=False)
    return text.format(value if len(value) <= _LONG else f'{value[: _LONG - 4]}..."')


def _may_change(parts: list[str]) -> bool:
    from selfevo_contract.crd.transitions import MAY_CHANGE, MAY_CHANGE_ANYWHERE

    heads = {".".join(parts[: n + 1]) for n in range(len(parts))}
    return bool(heads & MAY_CHANGE) or bool(set(parts) & MAY_CHANGE_ANYWHERE)


def _unknown(parts: list[str], at: int, inside: Schema) -> str:
    where = ".".join(["spec", *parts[: at + 1]])
    wanted = re.sub("_([a-z])", lambda match: match[1].upper(), parts[at])  # snake_case, as in Python
    fields = list(inside.get("properties", {}))
    near = difflib.get_close_matches(wanted, fields, n=3)
    elsewhere = [path for path in _paths(_spec()) if path.rpartition(".")[2] == wanted]
    if near or elsewhere:
        found = dict.fromkeys([*(".".join([*parts[:at], name]) for name in near), *elsewhere[:5]])
        return f"{where} is not a field; did you mean {' or '.join(found)}?"
    if not fields:
        return f"{where} is not a field: {'.'.join(['spec', *parts[:at]])} has none; leave {parts[at]!r} out"
    return f"{where} is not a field; choose one of {', '.join(fields)}"


def _paths(schema: Schema, before: tuple[str, ...] = ()) -> Iterator[str]:
    for name, of in _inside(schema).get("properties", {}).items():
        yield ".".join((*before, name))
        yield from _paths(of, (*before, name))
