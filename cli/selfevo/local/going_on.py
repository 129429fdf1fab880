"""The command that makes a run on this machine go on, as a person types it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from selfevo.options import DEFAULT_WORKDIR

PLAIN = "selfevo run"
"""Where nobody knows the manifest."""
_VERBS = ("run", "sweep")


def command_for(manifest: Path, storage: str | None, workdir: Path) -> str:
    """For a manifest that is named with these options."""
    options = ["--storage", storage] if storage else []
    options += ["--workdir", str(workdir)] if workdir != DEFAULT_WORKDIR else []
    return shlex.join([*PLAIN.split(), str(manifest), *options])


def command_of(process: int | None) -> str:
    """What ``process`` was started by, which drives a run; ``selfevo run`` where that cannot be known."""
    place = Path("/proc") / str(process or "none")
    try:
        arguments = (place / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
        return as_typed(arguments, str((place / "cwd").readlink()), str(Path.cwd()))
    except OSError:
        return PLAIN


def as_typed(arguments: Sequence[str], there: str, here: str) -> str:
    """A process's arguments as a command, without what runs the command.

    >>> as_typed(["/venv/bin/python", "/venv/bin/selfevo", "run", "a b.yaml"], "/work", "/work")
    "selfevo run 'a b.yaml'"
    >>> as_typed(["python", "bin/selfevo", "sweep", "a.yaml"], "/work", "/home")
    'cd /work && selfevo sweep a.yaml'
    >>> as_typed(["python", "mine.py"], "/work", "/work")
    'selfevo run'
    """
    for place, (program, verb) in enumerate(pairwise(arguments)):
        if verb in _VERBS and Path(program).name in ("selfevo", "kubectl-selfevo"):
            typed = shlex.join(["selfevo", *arguments[place + 1 :]])
            return typed if there == here else f"cd {shlex.quote(there)} && {typed}"
    return PLAIN
