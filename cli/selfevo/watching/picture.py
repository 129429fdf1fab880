"""A scene -> the lines of a terminal. Pure.

From top to bottom: how the run stands, its steps, curves and guards, the newest questions with their votes, the log,
the keys. Questions stand beside the steps where there is room for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from selfevo.watching import blocks
from selfevo.watching.blocks import cut
from selfevo.watching.scene import Scene

BESIDE = 110
"""Columns from which on two things stand beside each other."""
LEAST_COLUMNS, LEAST_ROWS = 20, 6
_ASKED, _LOG = 8, 6
"""Lines of the questions and of the log, with their headings, that others leave to them where there are so many."""


def picture(scene: Scene, columns: int, rows: int, now: datetime) -> list[Text]:
    """``rows`` lines of at most ``columns`` cells."""
    columns, rows = max(columns, LEAST_COLUMNS), max(rows, LEAST_ROWS)
    head = blocks.head(scene, columns, now)
    foot = blocks.foot(scene, columns)
    head = head[: max(1, rows - len(foot) - 2)]
    room = rows - len(head) - len(foot)
    if scene.focus == "log":
        body = blocks.log(scene, columns, room)
    elif scene.focus == "questions":
        body = blocks.questions(scene, columns, room)
    elif columns >= BESIDE:
        body = _wide(scene, columns, room, now)
    else:
        body = _narrow(scene, columns, room, now)
    body = body[:room] + [Text()] * (room - len(body))
    return [cut(line, columns) for line in (*head, *body, *foot)]


def _narrow(scene: Scene, columns: int, room: int, now: datetime) -> list[Text]:
    """Everything below each other. Steps want to be whole; the log has what is left over, and where little is, curves
    are cut off and questions give way."""
    guards, curves = blocks.guards(scene, columns), blocks.curves(scene, columns)
    asked = min(_ASKED, 1 + max(1, len(scene.questions.rows))) if blocks.has_questions(scene) else 0
    rest = room - len(guards) - len(curves) - asked - _LOG
    found = blocks.steps(scene, columns, max(3, min(_count(scene), max(rest, room // 3))), now)
    room -= len(found)
    for block in (guards, curves[: max(0, room - _LOG)], blocks.questions(scene, columns, asked)):
        if 2 <= len(block) <= room - min(_LOG, room // 3):
            found += block
            room -= len(block)
    return found + blocks.log(scene, columns, room)


def _wide(scene: Scene, columns: int, room: int, now: datetime) -> list[Text]:
    """Steps, curves and guards on the left, questions on the right, the log below both."""
    left = columns * 6 // 10
    right = columns - left - 3
    curves, guards = blocks.curves(scene, left), blocks.guards(scene, left)
    log_room = max(4, room // 3)
    steps_room = max(3, min(_count(scene), room - log_room - len(curves) - len(guards)))
    side = blocks.steps(scene, left, steps_room, now)
    for block in (curves, guards):
        if len(side) + len(block) + 3 <= room:
            side += block
    height = max(len(side), min(room - log_room, 1 + len(scene.questions.rows)))
    other = blocks.questions(scene, right, height)
    found = beside(side, other, left, height)
    return found + blocks.log(scene, columns, room - height)


def beside(left: Sequence[Text], right: Sequence[Text], width: int, height: int) -> list[Text]:
    """Two blocks with a rule between them."""
    found = []
    for n in range(height):
        line = left[n].copy() if n < len(left) else Text()
        line.truncate(width, overflow="ellipsis", pad=True)
        line.append(" │ ", "bright_black")
        found.append(line + right[n] if n < len(right) else line)
    return found


def _count(scene: Scene) -> int:
    return 1 + (len(scene.plan.steps) if scene.plan else len(scene.status.steps))
