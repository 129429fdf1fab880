"""Views without a screen: a plain line for each transition, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from selfevo.text import width
from selfevo.views import narrate
from selfevo.views.base import Reports, changes, clock, title, until_broken_pipe
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

PROGRESS_S = 30.0
"""Between two lines about how far a step is, where lines are all that there is."""


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
        self._reported: dict[str, tuple[float, int]] = {}  # step -> when it was last reported, and how far it was
        self._before: RunStatus | None = None
        self._write = until_broken_pipe(lambda line: print(line, flush=True))
        self._write(f"{clock()} {title(run)}, store {run.spec.storage.uri}")

    def show(self, status: RunStatus, reports: Reports) -> None:
        for change in changes(self._before, status):
            if not change.progress:  # what it is recorded from is heard below
                self._write(f"{clock()} {change.text}")
        self._before = status
        for name, of_step in reports.items():
            done = sum(report.done for report in of_step)
            at, before = self._reported.setdefault(name, (self._now(), done))
            if done != before and self._now() - at >= PROGRESS_S:
                self._reported[name] = (self._now(), done)
                self._write(f"{clock()} {name}: {narrate.progress(of_step)}")
        self._reported = {name: reported for name, reported in self._reported.items() if name in reports}

    def say(self, line: str) -> None:
        self._write(f"{clock()} {line}")

    def close(self) -> None:
        pass

    def summary(self, status: RunStatus) -> None:
        for line in narrate.table_lines(status, width()):
            self._write(line)
