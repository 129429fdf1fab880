"""Text for the terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# Logs and messages may quote what a model wrote, and a terminal obeys escape sequences.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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
