"""Views of a run while it goes on: what all of them share. One is a file beside this one and a line of opening.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from selfevo.text import count
from selfevo.views import narrate
from selfevo.views.narrate import Change
from selfevo_contract.process import Progress
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

Reports = Mapping[str, Sequence[Progress]]
"""Step name -> the newest report of each of its processes."""


class View(Protocol):
    """Shows a run to a person. A view that cannot write any more falls silent: it must never stop the training."""

    def show(self, status: RunStatus, reports: Reports) -> None:
        """The run stands like this."""

    def say(self, line: str) -> None:
        """One line for the reader."""

    def close(self) -> None:
        """Nothing more will happen."""

    def summary(self, status: RunStatus) -> None:
        """What came out, after the end."""


def changes(before: RunStatus | None, after: RunStatus) -> Iterable[Change]:
    """What has happened since ``before``, or before the view was opened."""
    if before is not None:
        return narrate.transitions(before, after)
    done = [step for step in after.steps if step.state == "Succeeded"]
    names = ": " + ", ".join(step.name for step in done) if 0 < len(done) <= 6 else ""
    known = [Change(f"{count(len(done), 'step')} in the store already{names}", passing=True)] if done else []
    return [*known, *narrate.transitions(RunStatus(steps=done, attempts=after.attempts), after)]


def title(run: SelfEvolutionRun) -> str:
    namespace = run.metadata.namespace
    return (
        f"selfevo run {run.metadata.name}" if namespace == "default" else f"selfevo run {namespace}/{run.metadata.name}"
    )


def clock() -> str:
    """The time of a line."""
    return datetime.now().strftime("%H:%M:%S")


def until_broken_pipe(write: Callable[[str], None]) -> Callable[[str], None]:
    """``write`` until the reader of our output is gone; after that it writes nothing."""
    broken = False

    def guarded(line: str) -> None:
        nonlocal broken
        if not broken:
            try:
                write(line)
            except OSError:
                broken = True

    return guarded
