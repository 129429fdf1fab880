"""Where a scene comes from: threads poll, each at its own pace, and the screen shows what they read last."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from selfevo.watching.scene import Scene
from selfevo_contract.errors import SelfevoError

VERBS = {"s": "suspend", "r": "resume", "a": "approve"}


class Source:
    """A run that is watched; a subclass says how. Everything here may be called from any thread."""

    def __init__(self, scene: Scene) -> None:
        self._lock = threading.Lock()
        self._scene = scene
        self.changed = threading.Event()
        """Something is to be drawn."""
        self.over = threading.Event()
        """Nothing more will happen: the run has ended, or ``error`` says why it cannot be followed."""
        self.closed = threading.Event()
        """Nobody watches any more."""
        self.error: BaseException | None = None

    @property
    def scene(self) -> Scene:
        """What was seen last."""
        with self._lock:
            return self._scene

    def update(self, **parts: Any) -> None:
        """Something new was seen."""
        with self._lock:
            self._scene = dataclasses.replace(self._scene, **parts)
        self.changed.set()

    def spawn(self, poll: Callable[[], None], *, decides: bool = False) -> None:
        """Have a thread call ``poll``, which returns at the end or when ``closed`` is set.

        Args:
            decides: With it the watching ends, and with its error.
        """
        threading.Thread(target=self._attend, args=(poll, decides), daemon=True).start()

    def _attend(self, poll: Callable[[], None], decides: bool) -> None:
        try:
            poll()
        except BaseException as error:
            self.error = error  # a defect in what only decorates is a defect, too
            decides = True
        if decides:
            self.over.set()
            self.changed.set()

    def start(self) -> None:
        """Begin to poll."""
        raise NotImplementedError

    def request(self, verb: str) -> str:
        """The question that a person is asked before ``do``.

        Raises:
            SelfevoError: it makes no sense now; why, and what does.
        """
        raise NotImplementedError

    def do(self, verb: str) -> str:
        """Suspend, resume or approve; returns what follows from it. It may take seconds.

        Raises:
            SelfevoError: it cannot be done.
        """
        raise NotImplementedError


def sentence_of(error: BaseException) -> str:
    """An error as a note."""
    return str(error).splitlines()[0] if isinstance(error, SelfevoError) else f"{type(error).__name__}: {error}"
