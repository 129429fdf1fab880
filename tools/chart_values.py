"""Writes the tables of values in charts/selfevo/README.md from the comments in values.yaml.

    python tools/chart_values.py

A test holds the two equal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parents[1] / "charts" / "selfevo"
BEGIN, END = "<!-- values: made by tools/chart_values.py -->", "<!-- values end -->"


def description(lines: list[str], line: int) -> str:
    """What the comment right above ``line`` says after its ``--``; empty when there is none."""
    comments: list[str] = []
    while line > 0 and (comment := re.fullmatch(r"\s*# ?(.*)", lines[line - 1])):
        line -= 1
        comments.insert(0, comment[1])
        if comment[1].startswith("-- "):
            return " ".join(comments)[3:]
    return ""


def documented(node: yaml.MappingNode, lines: list[str], path: str = "") -> Iterator[tuple[str, str, yaml.Node, bool]]:
    """Every key with its path, description and value, and whether the keys below it stand for it."""
    for key, value in node.value:
        place = f"{path}.{key.value}".lstrip(".")
        block = isinstance(value, yaml.MappingNode) and value.start_mark.line > key.start_mark.line
        below = list(documented(value, lines, place)) if block else []
        inner = any(about for _, about, _, _ in below)
        yield place, description(lines, key.start_mark.line), value, inner
        if inner:
            yield from below


def tables(text: str) -> str:
    """A table for each top-level value that has others below it, with a heading, and one for those that have not.

    Raises:
        ValueError: a value has no description.
    """
    root, lines = yaml.compose(text), text.splitlines()
    alone: list[str] = []
    groups: dict[str, list[str]] = {}
    assert isinstance(root, yaml.MappingNode)
    for place, about, value, inner in documented(root, lines):
        top = place.split(".")[0]
        if inner:
            if place == top:
                groups[top] = [f"### {top}", "", *([about, ""] if about else []), *_HEAD]
            elif about:
                groups[top].append(f"| `{place}` | | {_cell(about)} |")
            continue
        if not about:
            raise ValueError(f"{place} has no description; begin the comment above it with `# --`")
        row = f"| `{place}` | {_default(value)} | {_cell(about)} |"
        groups.get(top, alone).append(row)
    return "\n".join(["", "### Single values", "", *_HEAD, *alone, "", *_joined(groups), ""])


_HEAD = ["| value | default | |", "|---|---|---|"]


def _joined(groups: dict[str, list[str]]) -> Iterator[str]:
    for index, group in enumerate(groups.values()):
        yield from ([""] if index else [])
        yield from group


def _default(value: yaml.Node) -> str:
    data = yaml.safe_load(yaml.serialize(value))
    return f"`{_cell(json.dumps(data))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def page(readme: str, values: str) -> str:
    """``readme`` with the tables of ``values`` in their place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables(values)}{END}{after}"


def main() -> None:
    readme = CHART / "README.md"
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        sys.exit(f"{readme} lacks the lines {BEGIN} and {END}; put them where the tables belong")
    readme.write_text(page(text, (CHART / "values.yaml").read_text()))


if __name__ == "__main__":
    main()
