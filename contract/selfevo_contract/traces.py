"""One trace a run: the identities of its spans, and where they are sent. Pure.

Every identity is made of what a run is anyway, so that the operator, one that is started anew, and each trainer come to
the same without any exchange, and no status has to keep them.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from selfevo_contract.errors import InputError

TRACEPARENT_ENV = "TRACEPARENT"
"""Environment variable of the span that a process belongs to (W3C Trace Context)."""
ENDPOINT_ENVS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Environment variables that say where spans are sent; the first that is set counts. Nothing is sent without."""
_PROTOCOL_ENVS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1

Value = str | bool | int | float


@dataclass(frozen=True)
class SpanId:
    """Which span: its trace, and itself."""

    trace: int
    span: int

    @property
    def traceparent(self) -> str:
        """The header of W3C Trace Context, as a process finds it in its environment."""
        return f"00-{self.trace:032x}-{self.span:016x}-{_SAMPLED:02x}"


@dataclass(frozen=True)
class Span:
    """A span that has ended."""

    id: SpanId
    parent: SpanId | None
    name: str
    start: int
    """Nanoseconds since 1970."""
    end: int
    attributes: Mapping[str, Value]
    error: str | None = None
    """Why it failed; None where it did not."""


def nanoseconds(seconds: float) -> int:
    """Of a Unix time, by the microsecond: a record's milliseconds arrive as they are."""
    return round(seconds * 1_000_000) * 1000


def run_span(uid: str) -> SpanId:
    """The root. Its trace is the run's UID without the dashes, so that a person can find it."""
    try:
        trace = uuid.UUID(uid).int
    except ValueError:
        trace = 0
    return SpanId(trace or _number(16, "trace", uid), _number(8, "run", uid))


def step_span(uid: str, step: str, key: str) -> SpanId:
    """A step's: with another key it is another one, as after a rollback."""
    return SpanId(run_span(uid).trace, _number(8, "step", uid, step, key))


def attempt_span(uid: str, attempt: str) -> SpanId:
    """An attempt's, by the name of its Job or process."""
    return SpanId(run_span(uid).trace, _number(8, "attempt", uid, attempt))


def _number(length: int, *parts: str) -> int:
    # Zero is no identity.
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:length], "big") or 1


def parent_of(environ: Mapping[str, str]) -> SpanId | None:
    """The span that this process belongs to; None where the environment names none, or one that is not recorded."""
    found = _TRACEPARENT.fullmatch(environ.get(TRACEPARENT_ENV, ""))
    if found is None or not int(found[3], 16) & _SAMPLED:
        return None
    parent = SpanId(int(found[1], 16), int(found[2], 16))
    return parent if parent.trace and parent.span else None


def collector_of(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that says where spans are sent, and its value; None where they are sent nowhere.

    Raises:
        InputError: they cannot be sent there.
    """
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return None
    named = [(name, environ[name].strip()) for name in ENDPOINT_ENVS if environ.get(name, "").strip()]
    if not named:
        return None
    name, value = named[0]
    if not _is_address(value):
        raise InputError(f"{name} is {value!r}, which is no address; write it as http://<host>:4318")
    for variable in _PROTOCOL_ENVS:
        protocol = environ.get(variable, "").strip()
        if protocol and protocol != _PROTOCOL:
            raise InputError(
                f"{variable} is {protocol!r}, and traces are sent by {_PROTOCOL}; remove it, and name the collector's "
                f"port for HTTP (4318) in {name}"
            )
        if protocol:
            break
    return name, value


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
