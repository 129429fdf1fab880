"""The live picture of a run in a terminal: a line for each step, bars for those that run, scores above."""

from __future__ import annotations

import contextlib
import sys
import termios
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from selfevo.text import printable, seconds
from selfevo.views import narrate
from selfevo.views.base import Reports, changes, title, until_broken_pipe
from selfevo_contract.plan import Plan, is_outdated, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus, StepStatus


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
        widths = (1, max(len(step.name) for step in self._plan.steps), 11)
        for width in widths:
            grid.add_column(no_wrap=True, min_width=width)
        grid.add_column(no_wrap=True)
        room = max(1, self._console.width - sum(width + 2 for width in widths))
        records = {step.name: step for step in status.steps}
        names = [step.name for step in self._plan.steps]
        shown, hidden_before, hidden_after = _window(names, records, max(4, self._console.height - 6))
        if hidden_before:
            grid.add_row("", Text(f"{hidden_before} steps before", "dim"), "", "")
        for name in shown:
            *cells, remark = self._line(name, records.get(name), room)
            remark.truncate(room, overflow="ellipsis")  # rich would take the room from the other columns too
            grid.add_row(*cells, remark)
        if hidden_after:
            grid.add_row("", Text(f"{hidden_after} steps more", "dim"), "", "")
        return Group(head, grid)

    def _line(self, name: str, step: StepStatus | None, room: int) -> tuple[Text, Text, Text, Text]:
        if step is None or (step.state == "Pending" and not step.retry_at):
            return Text("·", "dim"), Text(name, "dim"), Text(""), Text("")
        if step.state == "Succeeded":
            spent = narrate.duration(step, self._status.attempts)
            took = Text("stored" if step.reused or spent is None else seconds(spent), "dim")
            return Text("✓", "green"), Text(name), took, Text(narrate.highlights(step), "dim")
        if step.state == "Failed":
            return Text("✗", "red"), Text(name, "red"), Text(""), Text(printable(step.message), "red")
        if step.state == "Pending" and self._status.phase == "Suspended":
            return Text("‖", "yellow"), Text(name), Text(""), Text(narrate.remark(step), "dim")
        if step.state == "Pending":
            wait = max(0.0, _until(step.retry_at))
            return Text("↻", "yellow"), Text(name), Text(f"in {wait:.0f} s"), Text(printable(step.message), "yellow")
        return (
            Text("●", "cyan"),
            Text(name, "bold"),
            Text(seconds(-_until(_begun(self._status, step)))),
            self._bar(name, room),
        )

    def _bar(self, name: str, room: int) -> Text:
        reports = self._reports.get(name, ())
        if not reports:
            return Text("starting", "dim")
        done, total = sum(report.done for report in reports), sum(report.total for report in reports)
        newest = reports[-1]
        text = Text()
        if total:
            count = f"{done}/{total} "
            width = max(5, min(24, room - len(count) - len(newest.doing) - 2))  # numbers and words say more
            full = min(width, width * done // total)
            # Thick and thin: to be told apart without colours, too.
            text.append("━" * full, "cyan").append("─" * (width - full), "bright_black").append(f" {count}")
        text.append(printable(newest.doing))
        if figures := narrate.newest(reports):
            text.append(f"  {figures}", "dim")
        return text


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


def _window(names: list[str], records: Mapping[str, StepStatus], room: int) -> tuple[list[str], int, int]:
    """The steps that fit, around those that are under way."""
    if len(names) <= room:
        return names, 0, 0
    room -= 2  # for what is left out
    open_ones = [n for n, name in enumerate(names) if name not in records or records[name].state != "Succeeded"]
    first = open_ones[0] if open_ones else len(names)
    start = max(0, min(first - room // 3, len(names) - room))
    return names[start : start + room], start, len(names) - start - room


def _begun(status: RunStatus, step: StepStatus) -> str | None:
    attempts = [attempt for attempt in status.attempts if attempt.step == step.name and attempt.state == "Running"]
    return attempts[-1].started_at if attempts else step.started_at


def _until(stamp: str | None) -> float:
    return (datetime.fromisoformat(stamp) - datetime.now(UTC)).total_seconds() if stamp else 0.0
