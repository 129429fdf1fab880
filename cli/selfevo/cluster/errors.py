"""What went wrong between us and the API server, as one sentence with the remedy. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError

GROUP = "selfevo.dev"
RUNS = "selfevolutionruns"

# As the API server's authorizer says it: User "ann" cannot get resource "pods/log" in API group "" in the namespace "x"
_FORBIDDEN = re.compile(r'User "([^"]*)" cannot (\S+) resource "([^"]+)"')


class Forbidden(InputError):
    """The user lacks a right."""

    reason = reasons.FORBIDDEN


class NotFound(InputError):
    """The object is not there."""

    reason = reasons.NOT_FOUND


class Unauthorized(InputError):
    """The user is nobody, or no longer somebody."""

    reason = reasons.UNAUTHORIZED


class Expired(ServiceError):
    """The version from which a watch was asked is too old (410): list again, then watch from there."""

    reason = reasons.EXPIRED


@dataclass(frozen=True)
class Asked:
    """A request, for the sentence about its failure."""

    verb: str
    resource: str
    namespace: str | None
    name: str | None = None

    @property
    def place(self) -> str:
        return "all namespaces" if self.namespace is None else f"namespace {self.namespace}"


@dataclass(frozen=True)
class Server:
    """Who was asked."""

    host: str
    context: str | None = None
    """None: the pod's own cluster."""
    kubeconfig: str = ""

    def __str__(self) -> str:
        return self.host

    @property
    def whose(self) -> str:
        return "this pod's service account" if self.context is None else f"context {self.context!r}"


def refused(code: int, body: bytes, asked: Asked, server: Server) -> SelfevoError:
    """The error for an answer that is not 2xx."""
    status = _status(body)
    message = str(status.get("message") or "").strip()
    if code == 401:
        return Unauthorized(
            f"{server} does not accept the credentials of {server.whose} (401 Unauthorized); log in again"
        )
    if code == 403:
        return _forbidden(message, asked)
    if code == 404 and status.get("reason") != "NotFound" and asked.resource == RUNS:
        # Not "no such object" but "no such path".
        return InputError(
            f"the cluster at {server} does not know SelfEvolutionRun; install selfevo's CRD and operator there, or "
            "choose another --context",
            reason=reasons.NOT_INSTALLED,
        )
    if code == 404:
        return NotFound(message or f"{asked.resource} {asked.name} is not in {asked.place}")
    if code == 410:
        return Expired(message or "the watch is too old")
    if 400 <= code < 500 and code != 429:
        return InputError(f"{server} refused to {asked.verb} {_what(asked)}: {message or f'status {code}'}")
    return ServiceError(
        f"{server} answered {code} to {asked.verb} {_what(asked)}: {message or 'no reason given'}; try again"
    )


def _status(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _what(asked: Asked) -> str:
    return f"{asked.resource} {asked.name}" if asked.name else asked.resource


def _forbidden(message: str, asked: Asked) -> Forbidden:
    denied = _FORBIDDEN.search(message)
    if denied is None and message:  # a policy's word, not a missing right
        return Forbidden(f"it is forbidden to {asked.verb} {_what(asked)} in {asked.place}: {message}")
    who = f"user {denied[1]!r}" if denied else "you"
    kind = "ClusterRole" if asked.namespace is None else "Role"
    return Forbidden(
        f"{who} may not {asked.verb} {asked.resource} in {asked.place}; ask for a {kind} with the verb "
        f"{asked.verb!r} on {asked.resource!r} there"
    )


def unreachable(error: Exception, server: Server) -> ServiceError:
    """The error for no answer at all."""
    text = str(error)
    choose = f"see to the cluster of {server.whose}"
    if server.context is not None:
        choose += ", or choose another --context"
    untrusted = re.search(r"certificate verify failed:? ?([^(\n]*)", text)
    if untrusted:
        return ServiceError(
            f"{server} cannot be trusted ({untrusted[1].strip() or 'its certificate is not valid'}); correct the "
            f"certificate-authority of {server.whose}",
            reason=reasons.UNTRUSTED,
        )
    for mark, why in (
        ("refused", "connection refused"),
        ("resolve", "its name cannot be resolved"),
        ("timed out", "no answer in time"),
        ("unreachable", "the network is unreachable"),
        ("wrong_version_number", "it does not speak TLS"),
    ):
        if mark in text.lower():
            return ServiceError(f"nothing answers at {server} ({why}); {choose}", reason=reasons.UNREACHABLE)
    marks = ("RemoteDisconnected", "IncompleteRead", "reset by peer", "Broken pipe", "EOF")
    first = text.splitlines()[0] if text else "no reason given"
    why = "it was closed in the middle" if any(mark in text for mark in marks) else f"{type(error).__name__}: {first}"
    return ServiceError(f"the connection to {server} broke ({why}); {choose}", reason=reasons.UNREACHABLE)


def brief(error: SelfevoError) -> str:
    """What is wrong, without the remedy: for those who go on by themselves."""
    return str(error).rsplit("; ", 1)[0]


def no_run(name: str, namespace: str, others: Collection[str] | None) -> NotFound:
    """There is no such run; ``others`` are those of the namespace, None when they may not be listed."""
    what = f"there is no run {name!r} in namespace {namespace}"
    if others is None:
        return NotFound(f"{what}; correct the name, or name another namespace with -n")
    near = difflib.get_close_matches(name, others, n=3) or sorted(o for o in others if name in o or o in name)[:3]
    if near:
        return NotFound(f"{what}; did you mean {' or '.join(repr(other) for other in near)}?")
    if others:
        some = sorted(others)
        more = f" and {len(some) - 8} more" if len(some) > 8 else ""
        return NotFound(f"{what}, only {', '.join(some[:8])}{more}; choose one of them, or another namespace with -n")
    return NotFound(f"{what}, nor any other; name another namespace with -n")


def first_line(value: object) -> str:
    """Of an error's text; its type where it has none."""
    lines = [line.strip() for line in str(value).splitlines() if line.strip()]
    return (lines[0] if lines else type(value).__name__).rstrip(".")
