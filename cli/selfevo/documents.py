"""A manifest with several runs, of which each has its turn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from selfevo.manifest import runs_in
from selfevo.text import printable
from selfevo_contract.errors import SelfevoError

INTERRUPTED = 130


def each_run(manifest: Path, do: Callable[[str | None], int | None], quiet: bool = False) -> int:
    """``do`` with the name of each run in the manifest, or with None where there is one.

    An error of one of several is printed, and the others have their turn; of the only one, it is raised. A person's
    Ctrl-C ends all of it.

    Returns:
        the first exit code that is not 0.

    Raises:
        SelfevoError: that of the only run, or the manifest is wrong.
    """
    names = runs_in(manifest)
    if len(names) == 1:
        return do(names[0]) or 0
    first = 0
    for number, name in enumerate(names):
        if not quiet:
            print(f"{chr(10) if number else ''}run {name} ({number + 1} of {len(names)})", flush=True)
        try:
            code = do(name) or 0
        except SelfevoError as error:
            print(f"selfevo: run {name}: {printable(str(error))}", file=sys.stderr)
            code = int(error.exit_code)
        if code == INTERRUPTED:
            return code
        first = first or code
    return first
