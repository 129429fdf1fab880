"""What CONTRIBUTING.md and the page of notation say of the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("contract", "operator", "trainer", "cli")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def suffixes(path: Path) -> Iterator[str]:
    """Axes in the names of variables and arguments: ``QM`` of ``answers_QM``."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
        if found := re.fullmatch(r"[a-z][a-z_]*_([A-Z]{1,3})", name):
            yield found[1]


def test_every_axis_of_a_name_is_on_the_page_of_notation() -> None:
    page = (ROOT / "docs" / "notation.md").read_text()
    explained = set(re.findall(r"^\| ([A-Z]) \|", page, flags=re.M))
    used = {letter for path in SOURCES for suffix in suffixes(path) for letter in suffix}
    assert used == explained


def test_the_map_names_every_package_and_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    drawn = text[text.index("## Map of the house") : text.index("## How to add")]
    packages = {path.parent for path in SOURCES if path.name == "__init__.py"}
    assert len(packages) > 25
    missing = [str(package.relative_to(ROOT)) for package in packages if f"{package.name}/" not in drawn]
    assert missing == []
