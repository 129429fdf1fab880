"""Spans, sent to an OpenTelemetry collector as OTLP over HTTP.

The SDK's batch processor holds a bounded queue and a thread of its own: whoever hands over a span never waits, and what
does not fit is dropped. Settings are the standard variables, OTEL_EXPORTER_OTLP_ENDPOINT and its like. Without them
nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import os

from selfevo_contract.errors import InputError
from selfevo_contract.traces import collector_of
from selfevo_traces.base import NOWHERE, Say, Sender


def open_sender(service: str, say: Say) -> Sender:
    """A sender to the collector that the environment names; to nowhere by default, and where that fails, which ``say``
    reports.

    Args:
        service: service.name, where OTEL_SERVICE_NAME says nothing.
    """
    try:
        found = collector_of(os.environ)
        if found is None:
            return NOWHERE
        try:
            from selfevo_traces.otlp import Collector
        except ModuleNotFoundError:
            raise InputError(
                f"{found[0]} is set, and the packages that send traces are not installed here; "
                "pip install 'selfevo[traces]', or unset it"
            ) from None
        return Collector(service, found[1], say)
    except InputError as error:
        say(f"no traces are sent: {error}")
    except Exception as error:  # a setting of the SDK's that it does not understand, a certificate that is not there
        say(f"no traces are sent: {type(error).__name__}: {error}")
    return NOWHERE
