"""`selfevo logs --follow` in a cluster: lines as they are written, through lost connections and successors of pods."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from typing import Any

from selfevo.cluster.client import Cluster, Resource
from selfevo.cluster.errors import Forbidden, NotFound, Unauthorized, brief
from selfevo.cluster.pods import missing, prefix, print_line, state
from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.status import AttemptStatus

RELIST_S = 1.0
"""Between two lists of pods."""
QUIET_S = 30.0
"""So long after the last pod has ended another one may come; then following ends, whatever the status says."""
REFUSED_S = 30.0
"""For so long a right that was good before may be refused: an API server that has just started knows nobody's."""


class _Reader:
    """Reads one pod's log in a thread of its own, in passes: a connection may break, and what was read is known by its
    time."""

    def __init__(self, cluster: Cluster, pod: str, front: str, lines: Queue[tuple[str, str]]) -> None:
        self._cluster, self._pod, self._front, self._lines = cluster, pod, front, lines
        self._place = Place()
        self._thread: threading.Thread | None = None
        self.last = False
        """Whether the pass under way, or the one before, began after the pod's end, so that none need follow."""
        self.error: SelfevoError | None = None

    @property
    def reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, ended: bool) -> None:
        self.last = ended
        self._thread = threading.Thread(target=self._pass, daemon=True)
        self._thread.start()

    def _pass(self) -> None:
        try:
            lines = self._cluster.log(self._pod, follow=True, since=self._place.stamp)
            for text in self._place.new(lines, self.last):
                self._lines.put((self._front, text))
        except NotFound:
            self.last = True
        except SelfevoError as error:
            # What was lost is found by the next pass, and what was allowed once is not forbidden for long.
            if self._place.stamp is None and not isinstance(error, ServiceError):
                self.error = error


class Place:
    """How far a log has been read: the time of the last line, and how many lines have that time."""

    def __init__(self) -> None:
        self.stamp: str | None = None
        self._repeats = 0

    def new(self, lines: Iterable[tuple[str, bool]], last: bool) -> Iterator[str]:
        """Those of ``lines`` that were not read before, without their times. sinceTime has a second's grain only.

        Half a line at the end is left to the next pass, unless this is the ``last`` one.
        """
        start, skip, same = self.stamp, self._repeats, 0
        for line, whole in lines:
            stamp, _, text = line.partition(" ")
            if start is not None and stamp < start:
                continue
            if stamp == start:
                same += 1
                if same <= skip:
                    continue
            if not whole and not last:
                return
            self._repeats = self._repeats + 1 if stamp == self.stamp else 1
            self.stamp = stamp
            yield text


def follow_logs(cluster: Cluster, resource: Resource, attempt: AttemptStatus) -> None:
    """Print lines as they are written, of pods that come later too, until the attempt has ended."""
    lines: Queue[tuple[str, str]] = Queue(maxsize=10_000)
    readers: dict[str, _Reader] = {}
    printed, idle_since = "", time.monotonic()
    refused_since: float | None = None
    while True:
        try:
            pods: list[dict[str, Any]] | None = cluster.pods(attempt.name)
            refused_since = None
        except (ServiceError, Forbidden, Unauthorized) as error:
            now = time.monotonic()
            refused_since = None if isinstance(error, ServiceError) else refused_since or now
            if refused_since is not None and (not readers or now - refused_since > REFUSED_S):
                raise
            printed, pods = _print_once(printed, f"{brief(error)}; going on when it answers"), None
        live = False
        for pod in pods or []:
            how, uid = state(pod), pod["metadata"].get("uid") or pod["metadata"]["name"]
            if how == "Waiting":
                live = live or (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
                continue
            if uid not in readers:
                front = prefix(resource, attempt, pod)
                readers[uid] = _Reader(cluster, pod["metadata"]["name"], front, lines)
            reader = readers[uid]
            if reader.error is not None:
                raise reader.error
            if not reader.reading and not reader.last:
                reader.start(ended=how == "Ended")
            live = live or how == "Running"
        live = live or pods is None or any(reader.reading for reader in readers.values())
        _drain(lines, RELIST_S)
        if live:
            idle_since = time.monotonic()
            if readers or not pods:
                continue
        if not readers:
            sentence = missing(attempt, pods or [])
            if attempt.state not in ("Running", "Pending") and not pods:
                raise InputError(sentence, reason=reasons.NO_LOG)
            printed = _print_once(printed, f"{sentence.split('; ')[0]}; waiting")
        attempt = _reread(cluster, attempt, resource)
        over = attempt.state not in ("Running", "Pending")
        if readers and not live and (over or time.monotonic() - idle_since > QUIET_S):
            _drain(lines, 0.0)
            return


def _print_once(printed: str, sentence: str) -> str:
    """Say on standard error what is waited for, once."""
    if sentence != printed:
        print(f"selfevo: {sentence}", file=sys.stderr)
    return sentence


def _reread(cluster: Cluster, attempt: AttemptStatus, resource: Resource) -> AttemptStatus:
    """What the run's status says of the attempt now."""
    try:
        now = cluster.run(resource.name)
    except NotFound:
        return attempt.model_copy(update={"state": "Failed"})
    except (ServiceError, Forbidden, Unauthorized):
        return attempt
    found = [a for a in now.status.attempts if a.name == attempt.name]
    return found[0] if found and now.uid == resource.uid else attempt.model_copy(update={"state": "Failed"})


def _drain(lines: Queue[tuple[str, str]], seconds: float) -> None:
    """Print what comes within ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        try:
            front, text = lines.get(timeout=max(0.0, end - time.monotonic())) if seconds else lines.get_nowait()
        except Empty:
            return
        print_line(front, text)
        if seconds and time.monotonic() >= end:
            return
