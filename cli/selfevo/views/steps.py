"""The line of a step in a picture: a mark, its name, how long it took, and its figures or a bar. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.text import Text

from selfevo.text import printable, seconds
from selfevo.views import narrate
from selfevo_contract.process import Progress
from selfevo_contract.status import RunStatus, StepProgress, StepStatus

TOOK = 11
"""Columns of the time."""


def cells(
    name: str, step: StepStatus | None, status: RunStatus, reports: Sequence[Progress], room: int, now: datetime
) -> tuple[Text, Text, Text, Text]:
    """Mark, name, time and remark of a step.

    Args:
        reports: The newest report of each of its processes, where they are heard of; else what is recorded is shown.
        room: Columns of the remark.
    """
    if step is None or (step.state == "Pending" and not step.retry_at):
        return Text("·", "dim"), Text(name, "dim"), Text(""), Text("")
    if step.state == "Succeeded":
        spent = narrate.duration(step, status.attempts)
        took = Text("stored" if step.reused or spent is None else seconds(spent), "dim")
        return Text("✓", "green"), Text(name), took, Text(narrate.highlights(step), "dim")
    if step.state == "Failed":
        return Text("✗", "red"), Text(name, "red"), Text(""), Text(printable(step.message), "red")
    if step.state == "Pending" and status.phase == "Suspended":
        return Text("‖", "yellow"), Text(name), Text(""), Text(narrate.remark(step), "dim")
    if step.state == "Pending":
        wait = max(0.0, until(step.retry_at, now))
        return Text("↻", "yellow"), Text(name), Text(f"in {wait:.0f} s"), Text(printable(step.message), "yellow")
    since = seconds(max(0.0, -until(begun(status, step), now)))
    return Text("●", "cyan"), Text(name, "bold"), Text(since), _progress(step.progress, reports, room)


def _progress(recorded: StepProgress | None, reports: Sequence[Progress], room: int) -> Text:
    if reports:
        done, total = sum(report.done for report in reports), sum(report.total for report in reports)
        return _bar(done, total, reports[-1].doing, narrate.newest(reports), room)
    if recorded is None:
        return Text("starting", "dim")
    return _bar(recorded.done, recorded.total, recorded.doing, narrate.recorded_figures(recorded), room)


def _bar(done: int, total: int, doing: str, figures: str, room: int) -> Text:
    text = Text()
    if total > 0:
        count = f"{done}/{total} "
        width = max(5, min(24, room - len(count) - len(doing) - 2))  # numbers and words say more
        text.append_text(bar(done, total, width)).append(f" {count}")
    text.append(printable(doing))
    if figures:
        text.append(f"  {figures}", "dim")
    return text


def bar(done: int, total: int, width: int) -> Text:
    """How much is done, in ``width`` columns; thick and thin: the two differ without colours, too."""
    full = max(0, min(width, width * done // total))
    return Text("━" * full, "cyan").append("─" * (width - full), "bright_black")


def window(names: list[str], records: Mapping[str, StepStatus], room: int) -> tuple[list[str], int, int]:
    """The steps that fit into ``room`` lines, around those that are under way, and how many are left out before and
    after them."""
    return around(names, records, room if len(names) <= room else room - 2)  # those two say what is left out


def around(names: list[str], records: Mapping[str, StepStatus], room: int) -> tuple[list[str], int, int]:
    """``room`` of the steps, likewise."""
    if len(names) <= room:
        return names, 0, 0
    open_ones = [n for n, name in enumerate(names) if name not in records or records[name].state != "Succeeded"]
    first = open_ones[0] if open_ones else len(names)
    start = max(0, min(first - room // 3, len(names) - room))
    return names[start : start + room], start, len(names) - start - room


def begun(status: RunStatus, step: StepStatus) -> str | None:
    """When the attempt began that runs now."""
    attempts = [attempt for attempt in status.attempts if attempt.step == step.name and attempt.state == "Running"]
    return attempts[-1].started_at if attempts else step.started_at


def until(stamp: str | None, now: datetime) -> float:
    """Seconds from ``now``; 0 without a time."""
    return (datetime.fromisoformat(stamp) - now).total_seconds() if stamp else 0.0
