"""The phase's end of tracking: a process for each tracker, a queue before it, and a limit to waiting for it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfevo_contract.process import PhaseConfig
from selfevo_trainer.process.signals import StopRequest
from selfevo_trainer.tracking.base import Figures, Job

log = logging.getLogger(__name__)

WAIT_SHARE = 0.01
WAIT_MOST_S = 60.0
ENDING_S = 5.0
"""The least that is waited for a tracker which keeps up: what it has not taken was given to it no longer ago."""
FOLDERS = ("TMPDIR", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR")
QUEUED = 10_000
"""Messages that wait for a tracker; further ones are lost, and counted."""


def seconds_to_wait(spent: float) -> float:
    """How long the end of a phase that took ``spent`` seconds waits for any tracker: a hundredth of it, at most
    ``WAIT_MOST_S``."""
    return min(WAIT_SHARE * spent, WAIT_MOST_S)


class _Process:
    """One tracker's process."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.kind = job.tracker.kind
        self._lost = 0
        self._untaken: deque[float] = deque()
        self._messages: queue.Queue[str | None] = queue.Queue(QUEUED)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "selfevo_trainer.tracking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # a line a message that it has taken
            start_new_session=True,  # Ctrl-C is for the phase, which then tells it
            cwd=folder,  # libraries leave files behind, and a pod's other folders cannot be written
            env=os.environ | {name: str(folder) for name in FOLDERS},
        )
        self._thread = threading.Thread(target=self._write, name=f"tracking-{self.kind}", daemon=True)
        self._thread.start()
        threading.Thread(target=self._count, name=f"tracked-{self.kind}", daemon=True).start()
        self.send(job.model_dump_json(by_alias=True, exclude_none=True))

    def behind(self, now: float) -> bool:
        """Whether it has not taken what was given to it ``ENDING_S`` before (time.monotonic()): it is slow or hangs."""
        with contextlib.suppress(IndexError):  # it has taken everything, perhaps this very moment
            return now - self._untaken[0] > ENDING_S
        return False

    def send(self, line: str) -> None:
        self._untaken.append(time.monotonic())
        try:
            self._messages.put_nowait(line)
        except queue.Full:
            self._untaken.pop()
            self._lost += 1

    def _count(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        for _ in pipe:
            self._untaken.popleft()

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # it has ended, and logged why
            while (line := self._messages.get()) is not None:
                pipe.write(line.encode() + b"\n")
                pipe.flush()
            pipe.close()

    def close(self, begun: float, seconds: float, stop: StopRequest) -> None:
        """Wait for it, ``seconds`` from ``begun`` on (time.monotonic()); at least ``ENDING_S`` where it was not behind
        then, and not at all for no seconds or when the phase is asked to stop. Then end it."""
        least = 0.0 if self.behind(begun) or not seconds else ENDING_S
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)
        while self._process.poll() is None and not stop.requested:
            if time.monotonic() - begun >= max(seconds, least):
                break
            time.sleep(0.05)
        if self._process.poll() is None:
            log.warning("tracking: %s has not taken everything in time, and is not waited for", self.kind)
            # Its own children too. Once it is reaped the number may be another's.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._lost:
            log.warning("tracking: %s was too slow, and %d messages were not sent to it", self.kind, self._lost)


class Tracking:
    """What a phase tells its trackers. No method waits or raises."""

    def __init__(self, processes: Sequence[_Process] = ()) -> None:
        self._processes = processes

    def update(self, number: int, figures: Mapping[str, object]) -> None:
        """TRL's metrics of one optimizer update."""
        if self._processes:
            kept = {name: value for name, value in figures.items() if _is_figure(value)}
            self._send({"event": "update", "number": number, "figures": kept})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of what the step made."""
        if self._processes:
            self._send({"event": "table", "name": name, "columns": columns, "rows": rows})

    def result(self, iteration: int, figures: Figures) -> None:
        """What the step came to."""
        if self._processes:
            self._send({"event": "result", "iteration": iteration, "figures": dict(figures)})

    def _send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message, allow_nan=True)
        for process in self._processes:
            process.send(line)

    def close(self, seconds: float, stop: StopRequest) -> None:
        """Wait so long for all trackers together."""
        begun = time.monotonic()
        with stop.deferred():
            for process in self._processes:
                process.close(begun, seconds, stop)


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def jobs(config: PhaseConfig) -> list[Job]:
    """The first message to each tracker of the run."""
    return [
        Job(
            tracker=tracker,
            run=config.run,
            namespace=config.namespace,
            step=config.step,
            phase=config.inputs.phase,
            iteration=config.iteration,
            key=config.key,
            attempt=config.attempt,
            storage=config.storage,
            settings=dict(_flat(config.inputs.wire())),
        )
        for tracker in config.tracking or ()
    ]


def _flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def tracking(config: PhaseConfig, stop: StopRequest, folder: Path, *, speaks: bool = True) -> Iterator[Tracking]:
    """Inside, messages can be sent to the run's trackers; behind it they are delivered, or given up. The files of the
    trackers lie in ``folder``, which the caller removes. Of several processes, the one that ``speaks`` for them sends.

    A phase that ends before its time, by an error or on request, waits for none of them.
    """
    begun = time.monotonic()
    trackers = Tracking([_Process(job, folder) for job in jobs(config) if speaks])
    seconds = 0.0
    try:
        yield trackers
        seconds = seconds_to_wait(time.monotonic() - begun)
    finally:
        trackers.close(seconds, stop)
