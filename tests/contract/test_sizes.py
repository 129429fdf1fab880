"""No source file is over 400 lines and no function over 60: what has grown past that is divided into parts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("contract", "operator", "trainer", "cli")
FILE_LINES, FUNCTION_LINES = 400, 60


def longer(name: str, source: str) -> Iterator[tuple[str, int]]:
    """What of one file is over a limit, and its lines; a function's count from its ``def`` to its end."""
    if (lines := len(source.splitlines())) > FILE_LINES:
        yield name, lines
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{name} {node.name}", lines


def test_files_and_functions_are_short():
    files = [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    assert len(files) > 100
    found = dict(
        over for path in files for over in longer(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    )
    assert found == {}, "divide it into parts that can be read alone"


def test_what_is_one_line_too_long_is_found():
    body = "\n".join(["    pass"] * 60)
    assert dict(longer("a.py", f"def f():\n{body}")) == {"a.py f": 61}
    assert dict(longer("a.py", f"async def f():\n{body[9:]}")) == {}
    assert dict(longer("a.py", "\n" * 400)) == {} and dict(longer("a.py", "\n" * 401)) == {"a.py": 401}
