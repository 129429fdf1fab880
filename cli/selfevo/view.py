"""How a run looks while it goes on: live in a terminal, a line a transition elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from selfevo import narrate
from selfevo.narrate import News
from selfevo.text import count, width
from selfevo_contract.plan import Plan
from selfevo_contract.process import Progress
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

Reports = Mapping[str, Sequence[Progress]]
"""Step name -> the newest report of each of its processes."""


PROGRESS_S = 30.0
"""Between two lines about how far a step is, where lines are all that there is."""


class View(Protocol):
    """Who looks at a run. A view that cannot write any more falls silent: it must never stop the training."""

    def show(self, status: RunStatus, reports: Reports) -> None:
        """The run stands like this."""

    def say(self, line: str) -> None:
        """One line for the reader."""

    def close(self) -> None:
        """Nothing more will happen."""

    def summary(self, status: RunStatus) -> None:
        """What came out, after the end."""


def open_view(run: SelfEvolutionRun, plan: Plan, quiet: bool) -> View:
    """The view that suits where standard output goes."""
    if quiet:
        return Quiet()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        from selfevo.screen import Screen

        return Screen(run, plan)
    return Lines(run)


class Quiet:
    """Says nothing; errors are the caller's."""

    def show(self, status: RunStatus, reports: Reports) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def close(self) -> None:
        pass

    def summary(self, status: RunStatus) -> None:
        pass


class Lines:
    """One plain line a transition, with the time."""

    def __init__(self, run: SelfEvolutionRun, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: dict[str, tuple[float, int]] = {}  # step -> when something was said of it, and how far it was
        self._before: RunStatus | None = None
        self._write = careful(lambda line: print(line, flush=True))
        self._write(f"{clock()} {title(run)}, store {run.spec.storage.uri}")

    def show(self, status: RunStatus, reports: Reports) -> None:
        for item in news(self._before, status):
            self._write(f"{clock()} {item.text}")
        self._before = status
        for name, of_step in reports.items():
            done = sum(report.done for report in of_step)
            at, before = self._told.setdefault(name, (self._now(), done))
            if done != before and self._now() - at >= PROGRESS_S:
                self._told[name] = (self._now(), done)
                self._write(f"{clock()} {name}: {narrate.progress(of_step)}")
        self._told = {name: told for name, told in self._told.items() if name in reports}

    def say(self, line: str) -> None:
        self._write(f"{clock()} {line}")

    def close(self) -> None:
        pass

    def summary(self, status: RunStatus) -> None:
        for line in narrate.table_lines(status, width()):
            self._write(line)


def news(before: RunStatus | None, after: RunStatus) -> Iterable[News]:
    """What has happened since the last look, or before the first one."""
    if before is not None:
        return narrate.transitions(before, after)
    done = [step for step in after.steps if step.state == "Succeeded"]
    names = ": " + ", ".join(step.name for step in done) if 0 < len(done) <= 6 else ""
    known = [News(f"{count(len(done), 'step')} in the store already{names}", passing=True)] if done else []
    return [*known, *narrate.transitions(RunStatus(steps=done, attempts=after.attempts), after)]


def title(run: SelfEvolutionRun) -> str:
    namespace = run.metadata.namespace
    return (
        f"selfevo run {run.metadata.name}" if namespace == "default" else f"selfevo run {namespace}/{run.metadata.name}"
    )


def clock() -> str:
    """The time of a line."""
    return datetime.now().strftime("%H:%M:%S")


def careful(write: Callable[[str], None]) -> Callable[[str], None]:
    """``write`` that falls silent for good when nobody reads any more."""
    broken = False

    def careful(line: str) -> None:
        nonlocal broken
        if not broken:
            try:
                write(line)
            except OSError:
                broken = True

    return careful
