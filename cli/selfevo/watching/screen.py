"""The loop: draws what was seen last, and does what keys say."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live

from selfevo.watching.keys import ESCAPE, INTERRUPT, end_signals, keys_at_once, pressed
from selfevo.watching.picture import picture
from selfevo.watching.scene import Focus
from selfevo.watching.source import VERBS, Source, sentence_of

_TICK_S = 0.2
"""Between two checks whether something is to be drawn."""
_REDRAW_S = 1.0
"""Clocks go on, whether or not anything happens."""
_FOCUS: dict[str, Focus] = {"l": "log", "n": "questions"}


class Desk:
    """What a person has asked for. Pure but for what ``source`` is asked to do."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._asked = ""
        """The verb that waits for a yes."""
        self.left: str | None = None
        """How the person left: with q or with Ctrl-C."""

    def press(self, key: str) -> None:
        """A key was pressed."""
        if key in ("q", INTERRUPT, ESCAPE) and not (self._asked and key != INTERRUPT):
            self._leave(key)
        elif self._asked:
            verb, self._asked = self._asked, ""
            if key in ("y", "Y"):
                self._source.update(note=f"{verb} ...")
                self._source.spawn(lambda: self._do(verb))
            else:
                self._source.update(note=f"not done: {verb}")
        elif key in VERBS:
            self._ask(VERBS[key])
        elif key in _FOCUS:
            focus = _FOCUS[key]
            self._source.update(focus="" if self._source.scene.focus == focus else focus)

    def _leave(self, key: str) -> None:
        if key == ESCAPE and self._source.scene.focus:
            self._source.update(focus="")
        elif key != ESCAPE:
            self.left = key

    def _ask(self, verb: str) -> None:
        try:
            question = self._source.request(verb)
        except Exception as error:
            self._source.update(note=sentence_of(error))
            return
        self._asked = verb
        self._source.update(note=f"{question} y / n")

    def _do(self, verb: str) -> None:
        try:
            note = self._source.do(verb)
        except Exception as error:
            note = sentence_of(error)
        self._source.update(note=note)


def show(source: Source) -> str | int | None:
    """Show the run until it ends, or a person or a signal does.

    Returns:
        the key or signal that ended it; None when the run itself has.
    """
    console = Console(highlight=False)
    desk = Desk(source)
    live = Live(console=console, screen=True, auto_refresh=False)
    with end_signals() as signals, keys_at_once():
        source.start()
        drawn = -_REDRAW_S
        try:
            with contextlib.suppress(BrokenPipeError), live:
                while not source.over.is_set() and not signals and desk.left is None:
                    now = console.get_time()
                    if source.changed.is_set() or now - drawn >= _REDRAW_S:
                        source.changed.clear()
                        drawn = now
                        size = console.size
                        lines = picture(source.scene, size.width, size.height, datetime.now(UTC))
                        live.update(Group(*lines), refresh=True)
                    keys = pressed(_TICK_S)
                    if keys is None:
                        return INTERRUPT
                    for key in keys:
                        desk.press(key)
        finally:
            source.closed.set()
    return signals[0] if signals else desk.left
