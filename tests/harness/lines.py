"""What another process is writing, read while it writes: a line that it has not come to the end of is none yet."""

from __future__ import annotations


def whole_lines(text: str) -> list[str]:
    """The lines that have their end. One write may become visible in two, where it crosses a page of the file."""
    *whole, _ = text.split("\n")
    return whole
