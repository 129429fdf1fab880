"""The live picture of a run in a terminal: a line for each step, bars for those that run, scores above."""

from __future__ import annotations

import contextlib
import sys
import termios
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from selfevo.text import seconds
from selfevo.views import narrate, steps
from selfevo.views.base import Reports, changes, title, until_broken_pipe
from selfevo_contract.plan import Plan, is_outdated, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus


class Screen:
    """A live picture: a line for each step, bars for those that run, scores above."""

    def __init__(self, run: SelfEvolutionRun, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._begun = time.monotonic()
        self._status = RunStatus()
        self._reports: Reports = {}
        self._before: RunStatus | None = None
        self._console = Console(highlight=False)
        self._print = until_broken_pipe(lambda line: self._console.print(Text(line)))
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=4)
        self._terminal = _without_echo(sys.stdin)
        self._live.start()

    def show(self, status: RunStatus, reports: Reports) -> None:
        # Starts and ends are in the picture; what it would not show is printed above it.
        for change in changes(self._before, status):
            if change.passing:
                self._print(change.text)
        if is_outdated(self._plan, status):
            self._plan = plan_of(self._run.spec, status)
        self._before = self._status = status
        self._reports = reports

    def say(self, line: str) -> None:
        self._print(line)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()
        if self._terminal is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._terminal)

    def summary(self, status: RunStatus) -> None:
        for line in narrate.table_lines(status, self._console.width):
            style = "bold" if line.lstrip().startswith("iteration") else "green" if "(best)" in line else ""
            with contextlib.suppress(OSError):
                self._console.print(Text(line, style))

    def _picture(self) -> Group:
        status = self._status
        spent = seconds(time.monotonic() - self._begun)
        iteration = f"iteration {status.iteration} of {self._run.spec.iterations}"
        head = Text.assemble((f"{title(self._run)}  ", "bold"), f"{iteration}  {spent}\n")
        head.append(f"store {self._run.spec.storage.uri}\n", "dim")
        grid = Table.grid(padding=(0, 2, 0, 0))
        widths = (1, max(len(step.name) for step in self._plan.steps), steps.TOOK)
        for width in widths:
            grid.add_column(no_wrap=True, min_width=width)
        grid.add_column(no_wrap=True)
        room = max(1, self._console.width - sum(width + 2 for width in widths))
        records = {step.name: step for step in status.steps}
        names = [step.name for step in self._plan.keeping(records).steps]
        shown, hidden_before, hidden_after = steps.window(names, records, max(4, self._console.height - 6))
        if hidden_before:
            grid.add_row("", Text(f"{hidden_before} steps before", "dim"), "", "")
        for name in shown:
            step, reports = records.get(name), self._reports.get(name, ())
            *cells, remark = steps.cells(name, step, status, reports, room, datetime.now(UTC))
            remark.truncate(room, overflow="ellipsis")  # rich would take the room from the other columns too
            grid.add_row(*cells, remark)
        if hidden_after:
            grid.add_row("", Text(f"{hidden_after} steps more", "dim"), "", "")
        return Group(head, grid)


def _without_echo(terminal: TextIO) -> list[Any] | None:
    """Keep a Ctrl-C from writing ^C into the picture and from throwing half a frame away. Returns what to restore."""
    try:
        before = termios.tcgetattr(terminal)
        after = termios.tcgetattr(terminal)
        after[3] = (after[3] | termios.NOFLSH) & ~termios.ECHOCTL
        termios.tcsetattr(terminal, termios.TCSANOW, after)
    except (OSError, ValueError, termios.error):
        return None
    return before
