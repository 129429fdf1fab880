"""What goes wrong with a call to the API server."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from simulation.apiserver import Refusal

Moment = Literal["before", "after"]


class Crash(BaseException):
    """The operator's process ends here. Nothing in it may catch this."""


@dataclass(frozen=True)
class Trouble:
    """One call goes wrong, before or after it has had its effect."""

    moment: Moment
    error: Refusal | None = None
    """What the caller gets; None when the caller does not live to get anything."""
    retry_after: float = 0.0
    late: float | None = None
    """The caller is gone, and its request arrives so many seconds later."""

    def __str__(self) -> str:
        if self.error is not None:
            return str(self.error)
        return "crash" if self.late is None else f"crash, and it arrives {self.late:.2f} s later"


@dataclass
class Outage:
    """One verb fails for a while."""

    verb: str
    until: float
    status: int


_REFUSED = {
    403: ("Forbidden", "exceeded quota: compute, requested: count/jobs.batch=1"),
    409: ("Conflict", "the object has been modified; please apply your changes to the latest version"),
    410: ("Expired", "too old resource version"),
    429: ("TooManyRequests", "too many requests"),
    500: ("InternalError", "etcdserver: request timed out"),
    503: ("ServiceUnavailable", "apiserver is shutting down"),
    504: ("Timeout", "request did not complete within the allotted timeout"),
    0: ("Unreachable", "no answer"),
}


class Faults:
    """How bad this seed is, and what it does to each call."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.errors = rng.choice((0.03, 0.1, 0.3))
        self.lost_replies = rng.choice((0.3, 0.6))
        self.stalls = rng.choice((0.01, 0.04, 0.15))
        """Share of events that hold the watch up."""
        self.breaks = rng.choice((0.003, 0.01, 0.03))
        """Share of events with which the watch breaks."""
        self.no_write_slot = rng.choice((0.0, 0.1, 0.5))
        self.lost_results = rng.choice((0.05, 0.2, 0.5))
        self.crashes = rng.choice((0.0, 0.01, 0.03, 0.08))
        self.outages: list[Outage] = []

    def outage(self, now: float) -> None:
        """From now on something does not work for a while."""
        verb = self._rng.choice(("patch", "patch", "create", "delete", "delete", "list", "get", "all"))
        status = self._rng.choice((0, 429, 500, 503, {"create": 403, "delete": 409}.get(verb, 500)))
        self.outages.append(Outage(verb, now + self._rng.uniform(5, 150), status))

    def draw(self, verb: str, now: float) -> Trouble | None:
        """What happens to this call; None for nothing."""
        rng = self._rng
        for outage in self.outages:
            if outage.until > now and outage.verb in (verb, "all"):
                return self._refused("before", outage.status)
        luck = rng.random()
        if luck < self.crashes:
            how = rng.random()
            if how < 0.2 and verb in ("create", "delete", "patch"):
                return Trouble("before", late=rng.uniform(0.05, 3))
            return Trouble("before" if how < 0.6 else "after")
        if luck < self.crashes + self.errors:
            if rng.random() < self.lost_replies:
                return self._refused("after", rng.choice((0, 0, 500, 504)))
            statuses = (409, 409, 429, 500, 503, 410, 0) + ((403, 403) if verb == "create" else ())
            return self._refused("before", rng.choice(statuses))
        return None

    def _refused(self, moment: Moment, status: int) -> Trouble:
        reason, message = _REFUSED[status]
        retry_after = float(self._rng.randint(1, 5)) if status == 429 else 0.0
        return Trouble(moment, Refusal(status, reason, message), retry_after)
