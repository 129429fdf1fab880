"""Text for the terminal."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import TextIO

# Logs and messages may quote what a model wrote, and a terminal obeys escape sequences.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


_BESIDE = 20
"""Columns below which text does not flow beside others but below them."""


def printable(text: str) -> str:
    """``text`` with every control character but tab and newline as a visible escape."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def seconds(value: float) -> str:
    """``4.2 s``, ``3 min 07 s``, ``2 h 05 min``."""
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(value: float | None) -> str:
    """``47.8 %``, or a dash."""
    return "-" if value is None else f"{value * 100:.1f} %"


def size(count: int) -> str:
    """``683.8 kB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: int, noun: str) -> str:
    """``1 file``, ``3 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that ``stream`` is (standard output when None).

    None where it is no terminal, and a line may be as long as it is.
    """
    out = sys.stdout if stream is None else stream
    if not out.isatty():
        return None
    try:
        return os.get_terminal_size(out.fileno()).columns or None
    except (OSError, ValueError):
        return None


def flowed(line: str, columns: int | None) -> str:
    """``line``, broken between words where it is wider than ``columns``. A word, such as a path, stays whole."""
    if columns is None or len(line) <= columns:
        return line
    return textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)


def fitted(rows: Sequence[Sequence[str]], right: Collection[int], columns: int | None) -> list[str]:
    """The rows ``aligned`` within ``columns``: where the last column is too wide, its text flows beside or below."""
    lines = aligned(rows, right)
    if columns is None or max(map(len, lines)) <= columns:
        return lines
    heads = aligned([row[:-1] for row in rows], right)
    at = max(map(len, heads)) + 2
    beside = columns - at >= _BESIDE
    indent = at if beside else 4
    found = []
    for head, row in zip(heads, rows, strict=True):
        flow = textwrap.wrap(row[-1], max(columns - indent, _BESIDE), break_long_words=False, break_on_hyphens=False)
        if beside and flow:
            head = head.ljust(at) + flow.pop(0)
        found += [head, *(" " * indent + line for line in flow)]
    return found


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """The rows as lines with columns in line. Nothing is cut off: a terminal wraps, a program reads on.

    Args:
        rows: The heading first.
        right: Indices of columns that end in line, for numbers.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            c.rjust(w) if n in right else c.ljust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
