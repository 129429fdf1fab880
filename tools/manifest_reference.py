"""Writes docs/reference.md, every field of a SelfEvolutionRun, from the CRD.

    python tools/manifest_reference.py

A test holds the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from selfevo_contract.crd.of_fields import messages_of

ROOT = Path(__file__).parents[1]
CRD = ROOT / "crds" / "selfevo.dev_selfevolutionruns.yaml"
PAGE = ROOT / "docs" / "reference.md"
BEGIN, END = "<!-- fields: made by tools/manifest_reference.py -->", "<!-- fields end -->"
SHOWN = 60
"""Characters of a default; a longer one (a prompt) is cut."""

Schema = Mapping[str, Any]


class Writer:
    """Tables of a schema's objects, each of which is written once: where it comes again, a link stands."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}
        self._waiting: list[tuple[str, Schema]] = []

    def tables(self, path: str, schema: Schema) -> Iterator[str]:
        """The table of the object at ``path``, then those of the objects in it."""
        self._waiting = [(path, schema)]
        while self._waiting:
            path, schema = self._waiting.pop(0)
            yield from self._table(path, schema)

    def _table(self, path: str, schema: Schema) -> Iterator[str]:
        yield from (f"### {path}", "", _text(schema["description"]), "")
        yield from ("| field | type | default | may change | |", "|---|---|---|---|---|")
        inner: list[tuple[str, Schema]] = []
        for name, field in schema["properties"].items():
            place = f"{path}.{name}"
            required = name in schema.get("required", ())
            cells = [f"`{name}`", self._type(place, field, inner), _default(field, required)]
            yield f"| {' | '.join([*cells, _changes(schema, name, field), _about(field)])} |"
        rules = [_text(message) for message in _messages(schema)]
        if rules:
            yield from ("", "Rules between them:", "", *(f"- {rule}" for rule in rules))
        yield ""
        self._waiting = inner + self._waiting

    def _type(self, path: str, field: Schema, inner: list[tuple[str, Schema]]) -> str:
        if "properties" in field:
            known = json.dumps({name: of for name, of in field.items() if name not in ("default", "description")})
            if known not in self._written:
                self._written[known] = path
                inner.append((path, field))
            first = self._written[known]
            return f"[{'object' if first == path else f'as {first}'}](#{_anchor(first)})"
        if "items" in field:
            return f"list of {self._type(f'{path}[]', field['items'], inner)}"
        if "additionalProperties" in field:
            return f"map of {self._type(f'{path}{{}}', field['additionalProperties'], inner)}"
        if "enum" in field:
            return " or ".join(f"`{value}`" for value in field["enum"])
        kind = "quantity" if field.get("x-kubernetes-int-or-string") else field["type"]
        return f"{kind}{_bounds(field)}"


def _anchor(heading: str) -> str:
    """As the site makes it of a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_")


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None:
        assert high is None, "an upper bound alone has no words yet"
        return ""
    if high is None:
        return f", {_number(low)} or more"
    return f", {'above ' if field.get('exclusiveMinimum') else ''}{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: Schema, required: bool) -> str:
    if required:
        return "**required**"
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""  # an object's defaults stand at its own fields
    text = json.dumps(value, ensure_ascii=False)
    return f"`{_text(text if len(text) <= SHOWN else text[:SHOWN] + '...')}`"


def _rules(schema: Schema) -> list[Mapping[str, Any]]:
    return list(schema.get("x-kubernetes-validations", ()))


def _messages(schema: Schema) -> list[str]:
    """By which what a person writes is refused, whatever was there before."""
    return [message for rule in _rules(schema) if "oldSelf" not in rule["rule"] for message in messages_of(rule)]


def _changes(parent: Schema, name: str, field: Schema) -> str:
    """Whether it may change after creation; empty for an object, whose fields say it each for itself."""
    if "properties" in field:
        return ""
    own = [rule["rule"] for rule in _rules(field) if "oldSelf" in rule["rule"]]
    if any(rule.startswith("self >= oldSelf") for rule in own):
        return "upwards"
    outer = [rule for rule in _rules(parent) if f"has(oldSelf.{name})" in rule["rule"]]
    return "no" if own or outer else "yes"


def _about(field: Schema) -> str:
    """What it is, and how it is to be written; rules between an object's fields stand below its table."""
    parts = [_text(field["description"])]
    if "properties" not in field:
        messages = [_text(each) for each in _messages(field)]
        parts += [f"{message[0].upper()}{message[1:]}." for message in messages]
    return " ".join(parts)


def _text(words: str) -> str:
    """For a cell of a table; what looks like markup is none."""
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def fields(definition: Schema) -> str:
    """All tables."""
    (version,) = definition["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    writer = Writer()
    spec = writer.tables("spec", properties["spec"])
    status = Writer().tables("status", _without_rules(properties["status"]))
    lines = ["", "## What a person writes", "", *spec, "## What the operator writes", ""]
    return "\n".join([*lines, *(_without_columns(line) for line in status), ""])


def _without_rules(schema: Any) -> Any:
    """The operator alone writes status: what refuses its mistakes is of no use to a reader."""
    if isinstance(schema, Mapping):
        return {name: _without_rules(of) for name, of in schema.items() if name != "x-kubernetes-validations"}
    return [_without_rules(item) for item in schema] if isinstance(schema, list) else schema


def _without_columns(line: str) -> str:
    """Of status, a row with neither default nor «may change»."""
    if not line.startswith("|"):
        return line
    cells = line.replace("\\|", "\0").strip("|").split("|")
    return f"|{'|'.join([*cells[:2], *cells[4:]])}|".replace("\0", "\\|")


def page(text: str, definition: Schema) -> str:
    """``text`` with the tables in their place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{fields(definition)}{END}{after}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), yaml.safe_load(CRD.read_text())))


if __name__ == "__main__":
    main()
