"""What a process of an attempt does, as spans below the attempt's: the process, and within it what its timings name."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from selfevo_contract.process import SHARD_ENV, PhaseConfig, PhaseResult
from selfevo_contract.traces import TRACEPARENT_ENV, Span, SpanId, Value, nanoseconds, parent_of
from selfevo_traces import open_sender
from selfevo_traces.base import CLOSING_S, NOWHERE, Sender

log = logging.getLogger("selfevo")

SHORTEST_S = 0.05
"""What is over sooner is counted in the timings alone."""
PARTS = 500
"""Spans of parts that a process sends; what comes later is counted in the timings alone."""


@dataclass
class _Part:
    id: SpanId
    holds: bool = False
    """A part within it has been sent."""


class Trace:
    """The spans of one process. Used from one thread."""

    def __init__(self, sender: Sender = NOWHERE, parent: SpanId | None = None, started: float = 0.0) -> None:
        self._sender, self._parent, self._started = sender, parent, started
        self._own = None if parent is None else _new(parent)
        self._open: list[_Part] = []
        self._config: PhaseConfig | None = None
        self._sent = self._left_out = 0

    @property
    def traceparent(self) -> str:
        """The header for processes that this one starts; empty where nothing is sent."""
        return "" if self._own is None else self._own.traceparent

    def configure(self, config: PhaseConfig) -> None:
        """Name the step of later spans."""
        self._config = config

    @contextlib.contextmanager
    def part(self, activity: str) -> Iterator[None]:
        """Spend the time inside on ``activity``."""
        if self._own is None:
            yield
            return
        begun, start = time.time_ns(), time.perf_counter_ns()
        self._open.append(_Part(_new(self._own)))
        error = None
        try:
            yield
        except Exception as raised:
            error = type(raised).__name__
            raise
        finally:
            self._end(self._open.pop(), activity, begun, begun + time.perf_counter_ns() - start, error)

    def passed(self, activity: str, start: float, end: float) -> None:
        """``activity`` took from ``start`` to ``end``, Unix times."""
        if self._own is not None:
            self._end(_Part(_new(self._own)), activity, nanoseconds(start), nanoseconds(end), None)

    def _end(self, part: _Part, activity: str, start: int, end: int, error: str | None) -> None:
        # Whatever holds a part that was sent is sent, so that none hangs in the air.
        if not part.holds and (end - start < SHORTEST_S * 1e9 or self._sent >= PARTS):
            self._left_out += 1
            return
        self._sent += 1
        above = self._open[-1] if self._open else None
        if above is not None:
            above.holds = True
        attributes = {**self._place(), "selfevo.activity": activity}
        parent = self._own if above is None else above.id
        self._sender.send(Span(part.id, parent, activity, start, end, attributes, error))

    def ended(self, result: PhaseResult, rank: int | None) -> None:
        """The process, of several that train together the one with this number, has this result."""
        if self._own is None:
            return
        index = os.environ.get(SHARD_ENV, "")
        name = f"process {rank}" if rank is not None else f"trainer {index}".strip()
        figures: dict[str, Value] = {f"selfevo.seconds.{name}": spent for name, spent in result.timings.items()}
        optional: dict[str, Value | None] = {
            "selfevo.index": int(index) if index.isdecimal() else None,
            "selfevo.rank": rank,
            "selfevo.reason": result.reason or None,
            "selfevo.resumed_from": result.resumed_from,
            "selfevo.tokens": result.tokens,
            "selfevo.parts.left_out": self._left_out or None,
        }
        attributes: dict[str, Value] = {
            **self._place(),
            "selfevo.outcome": result.outcome,
            "process.exit.code": result.exit_code,
            "process.pid": os.getpid(),
            **{name: value for name, value in optional.items() if value is not None},
            **figures,
        }
        error = (result.message or result.reason or "failed") if result.outcome == "failed" else None
        self._sender.send(
            Span(self._own, self._parent, name, nanoseconds(self._started), time.time_ns(), attributes, error)
        )

    def close(self, seconds: float = CLOSING_S) -> None:
        """Send what is left, for so long at most."""
        self._sender.close(seconds)

    def _place(self) -> dict[str, Value]:
        config = self._config
        if config is None:
            return {}
        return {
            "selfevo.namespace": config.namespace,
            "selfevo.run": config.run,
            "selfevo.step": config.step,
            "selfevo.phase": config.inputs.phase,
            "selfevo.iteration": config.iteration,
            "selfevo.attempt.name": config.attempt,
        }


def open_trace(environ: MutableMapping[str, str], rank: int | None, started: float) -> Trace:
    """Of a process whose environment names its attempt and a collector; of several ranks, the first one's.

    What the process starts belongs to its own span from here on.
    """
    parent = parent_of(environ)
    if parent is None or rank:  # not the first
        return Trace()
    sender = open_sender("selfevo-trainer", log.warning)
    if not sender.on:
        return Trace()
    trace = Trace(sender, parent, started)
    environ[TRACEPARENT_ENV] = trace.traceparent
    return trace


def _new(parent: SpanId) -> SpanId:
    # Of the system, not of `random`, which a phase seeds: every attempt would have the same.
    return SpanId(parent.trace, secrets.randbits(63) + 1)
