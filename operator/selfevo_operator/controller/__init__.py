"""One run is reconciled: read what there is, act on what is decided, write what became of it."""

from selfevo_operator.controller.controller import Controller, MetricsHooks
from selfevo_operator.controller.memory import AT_ONCE

__all__ = ["AT_ONCE", "Controller", "MetricsHooks"]
