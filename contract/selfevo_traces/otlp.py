"""An OpenTelemetry collector, by the SDK's own queue and exporter."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from selfevo_contract.traces import Span, SpanId
from selfevo_contract.version import selfevo_version
from selfevo_traces.base import CLOSING_S, Say


class Collector:
    """Takes spans from any thread."""

    on = True

    def __init__(self, service: str, address: str, say: Say) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # ``say`` says it, and once
        version = selfevo_version()
        resource = Resource.create({"service.version": version, "host.name": socket.gethostname()})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service}))
        self._resource, self._scope = resource, InstrumentationScope("selfevo", version)
        self._exporter = _Watched(OTLPSpanExporter(), address, say)
        self._processor = BatchSpanProcessor(self._exporter)

    def send(self, span: Span) -> None:
        """Into the queue; the oldest of a full one is dropped."""
        with contextlib.suppress(Exception):
            self._processor.on_end(self._readable(span))

    def close(self, seconds: float = CLOSING_S) -> None:
        """A collector that has just failed had its time, and is not waited for."""
        # The processor's own limits are 30 s, or none at all.
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        if not self._exporter.failing:
            closing.join(max(0.0, seconds))

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.id),
            parent=None if span.parent is None else _context(span.parent),
            resource=self._resource,
            attributes=span.attributes,
            status=Status() if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )


def _context(identity: SpanId) -> SpanContext:
    return SpanContext(identity.trace, identity.span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class _Watched(SpanExporter):
    """The exporter; when it begins to fail, ``say`` reports it."""

    def __init__(self, exporter: SpanExporter, address: str, say: Say) -> None:
        self._exporter, self._address, self._say = exporter, address, say
        self.failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self.failing:
            self._say(f"traces are not taken by {self._address}; what it does not take is dropped")
        self.failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
