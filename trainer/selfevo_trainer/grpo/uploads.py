"""Work beside the training: one thread, one piece of work at a time, and no error of it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("selfevo")

_POLL_S = 0.05


class Uploads:
    """What is on its way to the store. Used by one thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, upload: Callable[[], None]) -> None:
        """Have ``upload`` done beside.

        Raises:
            whatever the one before raised.
        """
        assert not self.busy, "one at a time"
        self.check()

        def run() -> None:
            try:
                upload()
            except BaseException as error:
                self._error = error

        # A process that has to end does not wait for it: what was not committed, no attempt sees.
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise, once, what the last one raised."""
        if not self.busy and self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self, until: float | None = None, unless: Callable[[], bool] = lambda: False) -> bool:
        """Until it is done, or ``until`` by time.monotonic(), or ``unless``.

        Returns:
            whether it is.

        Raises:
            whatever it raised.
        """
        while self._thread is not None and self.busy:
            if unless() or (until is not None and time.monotonic() >= until):
                return False
            self._thread.join(_POLL_S)
        self.check()
        return True

    def settle(self, until: float | None = None) -> None:
        """Wait for it where another error is under way, which it is not to hide: its own is logged."""
        try:
            self.wait(until)
        except BaseException as error:
            log.warning("the checkpoint under way was not committed either: %s", error)
