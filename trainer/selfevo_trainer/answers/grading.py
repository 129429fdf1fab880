"""Whether two answers are mathematically equal, in bounded time, whatever a model wrote (docs/method.md, "Voting").

Rules first (``forms``, ``values``): numbers, words and units are decided exactly, without a parser. What
is left goes to math-verify, in worker processes that the kernel ends at a time or memory limit (``grading_worker.py``,
which also says what in math-verify can be made to run code, and what stops it). No worker is started before the first
such comparison, so a run whose answers are integers never pays for one.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import ServiceError
from selfevo_trainer.answers.values import Ruling, compare

Pair = tuple[str, str]

# No formula holds control characters, and none needs a double underscore, without which Python cannot be talked into
# much. A second line of defence only: what stops code is the worker's gate.
_NO_FORMULA = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]|__")

_WALL_FACTOR = 4
"""Wall-clock seconds that a comparison may take for each second of CPU: other processes want the cores too."""
_STARTS = 3
"""Workers that may fail in a row before grading gives up."""
_START_SECONDS = 300.0
_GRACE_SECONDS = 10.0
# What a worker's interpreter needs; the trainer's environment holds the object store's credentials.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


@dataclass
class GraderStats:
    """How the comparisons so far were decided. Each pair of distinct forms is decided once, then ``cached``."""

    exact: int = 0
    """By form: identical, plain numbers, too long, or no formula at all."""
    symbolic: int = 0
    """By math-verify. Memory errors that sympy itself swallows are in here, as unequal."""
    timed_out: int = 0
    """Over the time limit: not equal."""
    over_budget: int = 0
    """Not begun, or not ended, when the batch's time was over: not equal, and asked anew in the next batch."""
    crashed: int = 0
    """The worker died or ran out of memory: not equal."""
    cached: int = 0
    refused: int = 0
    """Times that a comparison would have run code made from an answer, and was kept from it. Not always malice: the
    numeric value of an infinite sum with a free symbol is computed that way."""

    def as_dict(self) -> dict[str, int]:
        """For metrics."""
        return asdict(self)


class Grader:
    """Compares answers. A context manager; leaving it ends the workers. One batch at a time, from any thread.

    >>> with Grader() as grader:
    ...     grader.equal_many([("1,000", "1000"), ("0.5", "0.50"), ("7", "8")])
    [True, True, False]

    Args:
        timeout_s: CPU seconds that one symbolic comparison may take; four times that by the clock.
        memory_mib: memory that it may take.
        batch_timeout_s: seconds by the clock that the symbolic comparisons of one call may take together.
        workers: processes; by default one for each core that this process may use, at most 8.
        cache_size: decided pairs that are remembered.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 5.0,
        memory_mib: int = 2048,
        batch_timeout_s: float = float("inf"),
        workers: int | None = None,
        cache_size: int = 100_000,
    ) -> None:
        self.stats = GraderStats()
        self._cache: OrderedDict[Pair, _Verdict] = OrderedDict()
        self._cache_size = cache_size
        self._batch_timeout_s = batch_timeout_s
        self._pool = _Pool(workers or min(8, _cores()), timeout_s, memory_mib << 20)
        self._lock = threading.Lock()

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. A later comparison starts new ones."""
        self._pool.close()

    @property
    def slowest_s(self) -> float:
        """Seconds by the clock of the slowest symbolic comparison so far, a second attempt after a crash included."""
        return self._pool.slowest_s

    def equal(self, a: str, b: str) -> bool:
        """``equal_many`` for one pair."""
        return self.equal_many([(a, b)])[0]

    def equal_many(self, pairs: Sequence[Pair]) -> list[bool]:
        """Whether each pair is equal. Symmetric. Undecidable within the limits means not equal.

        Raises:
            ServiceError: no worker could be started.
        """
        return [ruling.equal is True for ruling in self.decide_many(pairs)]

    def decide_many(self, pairs: Sequence[Pair]) -> list[Ruling]:
        """``equal_many``, with the rule or the limit that decided; ``equal`` is never None.

        Raises:
            ServiceError: no worker could be started.
        """
        with self._lock:
            decided = [self._decide_by_form(a, b) for a, b in pairs]
            undecided = list(dict.fromkeys(each for each in decided if not isinstance(each, Ruling)))
            known = {key: self._cache[key] for key in undecided if key in self._cache}
            self.stats.cached += sum(key in known for key in decided if not isinstance(key, Ruling))
            new = [key for key in undecided if key not in known]
            known.update(zip(new, self._compare(new), strict=True))
            for key in undecided:
                if known[key].how == "over_budget":
                    continue  # nothing was found out
                self._cache[key] = known[key]
                self._cache.move_to_end(key)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
            return [each if isinstance(each, Ruling) else known[each].ruling() for each in decided]

    def _decide_by_form(self, a: str, b: str) -> Ruling | Pair:
        """The rules' verdict, else the formulas that are left, in an order that does not depend on that of a and b."""
        ruling = self.rule(a, b)
        if ruling.equal is not None:
            self.stats.exact += 1
            return ruling
        x, y = ruling.pair
        return (x, y) if x < y else (y, x)

    def rule(self, a: str, b: str) -> Ruling:
        """What the rules say, and by which of them; ``equal`` is None where math-verify is asked."""
        ruling = compare(a, b)
        if ruling.equal is None and any(map(_NO_FORMULA.search, ruling.pair)):
            return Ruling(False, "no formula")
        return ruling

    def _compare(self, pairs: Sequence[Pair]) -> list[_Verdict]:
        verdicts = self._pool.run(pairs, self._batch_timeout_s) if pairs else []
        for verdict in verdicts:
            setattr(self.stats, verdict.how, getattr(self.stats, verdict.how) + 1)
            self.stats.refused += verdict.refused
        return verdicts


@dataclass(frozen=True)
class _Verdict:
    equal: bool
    how: str
    """Field of GraderStats."""
    refused: int = 0

    def ruling(self) -> Ruling:
        return Ruling(self.equal, _HOW[self.how])


_HOW = {
    "symbolic": "math-verify",
    "timed_out": "math-verify, over the time limit of a comparison",
    "over_budget": "math-verify, over the time limit of the batch",
    "crashed": "math-verify, whose process died or ran out of memory",
}
_TIMED_OUT = _Verdict(False, "timed_out")
_OVER_BUDGET = _Verdict(False, "over_budget")
_CRASHED = _Verdict(False, "crashed")


class _Worker:
    """One ``grading_worker.py``, and the job that it has."""

    def __init__(self, limits: dict[str, Any]) -> None:
        # -P: the script's folder is not searched for modules. A process group of its own: Ctrl-C in the terminal is for
        # the trainer, which then closes its workers.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("grading_worker.py")), json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            process_group=0,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.ready = False
        self.job: int | None = None
        self.deadline = time.monotonic() + _START_SECONDS
        self._partial = b""

    def give(self, job: int, pair: Pair, seconds: float) -> None:
        """Send a job. At most 2 * MAX_CHARS characters, which is less than a pipe holds: this does not block."""
        self.job, self.deadline = job, time.monotonic() + seconds
        message = json.dumps({"id": job, "a": pair[0], "b": pair[1]}).encode()
        data = len(message).to_bytes(4, "big") + message
        with suppress(BrokenPipeError):  # dead: its end of output says so
            while data:
                data = data[os.write(self.stdin, data) :]

    def messages(self) -> list[dict[str, Any]] | None:
        """The messages that it has written; None when it is gone. Call when its output is readable."""
        data = os.read(self.stdout, 1 << 16)
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None

    def stop(self) -> None:
        """End it, and its comparer, and leave no zombie."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        for act, patience in ((None, 0.5 if self.ready and self.job is None else 0.0), (signal.SIGTERM, 2.0)):
            if act is not None:
                with suppress(ProcessLookupError):
                    self.process.send_signal(act)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                break
        with suppress(ProcessLookupError, PermissionError):  # what is left of the group, if anything
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


class _Pool:
    """Workers that are replaced when they die."""

    def __init__(self, size: int, timeout_s: float, memory_bytes: int) -> None:
        wall_s = _WALL_FACTOR * timeout_s
        self._size = size
        self._limits = {"cpu_s": timeout_s, "wall_s": wall_s, "memory_bytes": memory_bytes}
        self._job_seconds = wall_s + _GRACE_SECONDS
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._numbered = 0
        self.slowest_s = 0.0
        # Also when nobody closed: at garbage collection and at the interpreter's end.
        self._finalizer = weakref.finalize(self, _stop_all, self._workers)

    def close(self) -> None:
        _stop_all(self._workers)

    def run(self, pairs: Sequence[Pair], budget_s: float = float("inf")) -> list[_Verdict]:
        """A verdict for each pair, within ``budget_s`` from the time when the first worker is ready.

        A job whose process died gets a second one, for a kernel short of memory kills whom it likes. Then it counts
        as crashed.
        """
        first = self._numbered  # no number is used twice, so that no late message can be about another job
        self._numbered += len(pairs)
        verdicts: dict[int, _Verdict] = {}
        waiting = deque(range(first, self._numbered))
        retried: set[int] = set()
        begun: dict[int, float] = {}
        until = float("inf")
        try:
            while waiting or any(worker.job is not None for worker in self._workers):
                busy = sum(worker.job is not None for worker in self._workers)
                while len(self._workers) < min(self._size, busy + len(waiting)):
                    self._workers.append(_Worker(self._limits))
                if until == float("inf") and any(worker.ready for worker in self._workers):
                    until = time.monotonic() + budget_s
                if time.monotonic() >= until:
                    for worker in [each for each in self._workers if each.job is not None]:
                        self._workers.remove(worker)
                        worker.stop()
                    verdicts.update({job: _OVER_BUDGET for job in range(first, self._numbered) if job not in verdicts})
                    break
                for worker in self._workers:
                    if waiting and worker.ready and worker.job is None:
                        job = waiting.popleft()
                        begun.setdefault(job, time.monotonic())
                        worker.give(job, pairs[job - first], self._job_seconds)
                for worker in self._wait(until):
                    had = worker.job
                    verdict = self._hear(worker)
                    if had is None or (worker.job == had and worker in self._workers):
                        continue  # nothing is decided
                    if verdict is None and had not in retried:
                        retried.add(had)
                        waiting.appendleft(had)
                    else:
                        verdicts[had] = verdict or _CRASHED
                        self.slowest_s = max(self.slowest_s, time.monotonic() - begun[had])
        except BaseException:
            # An answer that nobody waits for any more would be taken for the next batch's.
            self.close()
            raise
        return [verdicts[job] for job in range(first, first + len(pairs))]

    def _wait(self, until: float) -> list[_Worker]:
        """Workers that have written something or whose time is over; waits no longer than ``until``."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.stdout, selectors.EVENT_READ, worker)
            due = min((worker.deadline for worker in self._workers if self._awaited(worker)), default=float("inf"))
            due = min(due, until)
            events = selector.select(None if due == float("inf") else max(0.0, due - time.monotonic()))
        heard = [key.data for key, _ in events]
        now = time.monotonic()
        return heard + [w for w in self._workers if self._awaited(w) and w.deadline <= now and w not in heard]

    @staticmethod
    def _awaited(worker: _Worker) -> bool:
        return not worker.ready or worker.job is not None

    def _hear(self, worker: _Worker) -> _Verdict | None:
        """The verdict on the worker's job, if it wrote one. A worker that is of no use any more is removed.

        A worker left without its job and without a verdict lost it.
        """
        if self._awaited(worker) and worker.deadline <= time.monotonic():
            # Its own limits did not work, or it hangs at the start.
            self._remove(worker, "it did not answer in time")
            return _TIMED_OUT if worker.job is not None else None
        messages = worker.messages()
        if messages is None:
            self._remove(worker, "it ended")
            return None
        verdict: _Verdict | None = None
        for message in messages:
            if message.get("ready"):
                worker.ready = True
                self._failed_starts = 0
            elif "failed" in message:
                self._remove(worker, str(message["failed"]))
                return None
            elif worker.job is None or message.get("id") != worker.job:
                pass  # a comparer that died idle
            elif "lost" in message:
                verdict = _TIMED_OUT if message["lost"] == "timed_out" else None
                worker.job = None
            else:
                verdict = _Verdict(message["equal"] is True, "symbolic", int(message["refused"]))
                worker.job = None
        return verdict

    def _remove(self, worker: _Worker, why: str) -> None:
        self._workers.remove(worker)
        worker.stop()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                self._failed_starts = 0
                raise ServiceError(
                    f"{_STARTS} grading workers in a row did not start, the last because {why}; check that math-verify "
                    "is installed (pip install 'selfevo[trainer]') and that the pod has memory to spare",
                    reason=reasons.GRADER_UNAVAILABLE,
                )


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stop_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().stop()
