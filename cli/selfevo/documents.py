"""Several runs, of which each has its turn: those of a manifest, or of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from selfevo.manifest import runs_in
from selfevo.text import printable
from selfevo_contract.errors import SelfevoError

INTERRUPTED = 130


def each_run(manifest: Path, do: Callable[[str | None], int | None], quiet: bool = False) -> int:
    """``do`` with the name of each run in the manifest `in_turn`, or with None where there is one.

    Returns:
        the first exit code that is not 0.

    Raises:
        SelfevoError: that of the only run, or the manifest is wrong.
    """
    names = runs_in(manifest)
    if len(names) == 1:
        return do(names[0]) or 0
    return in_turn([f"run {name}" for name in names], lambda number: do(names[number]), quiet)


def in_turn(
    runs: Sequence[str], do: Callable[[int], int | None], quiet: bool = False, remarks: Sequence[str] | None = None
) -> int:
    """``do`` with the number of each run, under a heading.

    An error of one is printed, and the others have their turn. A person's Ctrl-C ends all of it.

    Args:
        runs: What each is called.
        do: Takes the number of a run from 0, and returns an exit code.
        quiet: Without headings.
        remarks: What stands behind each heading.

    Returns:
        the first exit code that is not 0.
    """
    first = 0
    for number, run in enumerate(runs):
        if not quiet:
            remark = f": {remarks[number]}" if remarks else ""
            if number:
                print()
            print(f"{run} ({number + 1} of {len(runs)}){remark}", flush=True)
        try:
            code = do(number) or 0
        except SelfevoError as error:
            print(f"selfevo: {run}: {printable(str(error))}", file=sys.stderr)
            code = int(error.exit_code)
        if code == INTERRUPTED:
            return code
        first = first or code
    return first
