"""What a network and an apiserver do wrong, for the proxy in `proxy`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Request:
    """A request that arrived, and what became of it."""

    number: int
    """From 1, in the order of arrival."""
    method: str
    path: str
    query: Mapping[str, list[str]]
    write: int | None = None
    """The how manieth write it is, from 1. None: it only reads."""
    code: int | None = None
    """What the apiserver answered; None when it was not asked, or has not answered."""
    answered: int | None = None
    """The status code that the client got; None when it got none."""

    @classmethod
    def of(cls, number: int, method: str, target: str) -> Request:
        parts = urlsplit(target)
        return cls(number, method, parts.path, parse_qs(parts.query))

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch", ["false"])[0] in ("true", "1")

    @property
    def streams(self) -> bool:
        return self.is_watch or self.query.get("follow", ["false"])[0] in ("true", "1")

    @property
    def verb(self) -> str:
        """As RBAC calls it."""
        if self.method != "GET":
            return _VERBS.get(self.method, self.method.lower())
        if self.is_watch:
            return "watch"
        return "list" if _COLLECTION.search(self.path) else "get"


_COLLECTION = re.compile(r"^/(api|apis/[^/]+)/[^/]+(/namespaces/[^/]+)?/[^/]+$")


@dataclass(frozen=True)
class Answer:
    """The proxy answers in place of the apiserver, which is not asked."""

    code: int
    retry_after: int | None = None
    """Seconds."""

    @property
    def status(self) -> dict[str, Any]:
        """The Status object that goes with it."""
        return status(self.code)


@dataclass(frozen=True)
class DropBefore:
    """The connection breaks, and the apiserver never hears of the request."""


@dataclass(frozen=True)
class DropAfter:
    """The apiserver does what was asked, and the connection breaks before its answer."""


@dataclass(frozen=True)
class Delay:
    """The request takes so much longer."""

    seconds: float


@dataclass(frozen=True)
class Truncate:
    """The answer breaks off after so many bytes of its body."""

    size: int = 10


@dataclass(frozen=True)
class BlackHole:
    """The request is taken and nothing ever comes back."""


@dataclass(frozen=True)
class WatchEnds:
    """A watch works for some events, and then ends."""

    how: str = "drop"
    """`drop`: the connection breaks. `hold`: it stays, and nothing comes any more. `error`: an ERROR event."""
    after: int = 0
    """Events that still come through."""
    code: int = 410
    """Of the ERROR event."""


Fault = Answer | DropBefore | DropAfter | Delay | Truncate | BlackHole | WatchEnds


@dataclass
class Rule:
    """When a fault happens: to requests that match, after ``skip`` of them, ``times`` times."""

    fault: Fault
    method: str = ""
    verb: str = ""
    path: str = ""
    """A regular expression found in the path."""
    skip: int = 0
    times: int | None = 1
    """None: to every one."""
    matched: int = field(default=0, init=False)

    def applies(self, request: Request) -> bool:
        """Counts the request when it matches."""
        if self.method not in ("", request.method) or self.verb not in ("", request.verb):
            return False
        if not re.search(self.path, request.path):
            return False
        self.matched += 1
        position = self.matched - self.skip
        return position > 0 and (self.times is None or position <= self.times)


def status(code: int) -> dict[str, Any]:
    """A Status that says no."""
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "reason": _REASONS.get(code, "Unknown"),
        "message": f"{code} by the proxy",
        "code": code,
    }


def error_event(code: int) -> bytes:
    """The line of a watch that ends it with an error."""
    return json.dumps({"type": "ERROR", "object": status(code)}).encode() + b"\n"
