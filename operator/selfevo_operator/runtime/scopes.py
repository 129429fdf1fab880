"""What is served: each namespace, or the whole cluster; what has been listed of it, and what is refused to us."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prometheus_client import Gauge

from selfevo_operator.observed.cache import Key

log = logging.getLogger("selfevo")

Scope = str | None
"""A namespace; None for the whole cluster."""


class Scopes:
    """The scopes of one operator.

    Args:
        namespaces: whose runs it drives; empty for all.
        refused: is 1 for a namespace while the API server refuses it.
    """

    def __init__(self, namespaces: Sequence[str], refused: Gauge) -> None:
        self.all: tuple[Scope, ...] = tuple(namespaces) or (None,)
        self.listed = False
        """Whether everything has been listed once: until then nothing is decided."""
        self._by_namespace = bool(namespaces)
        self._unlisted: set[Scope] = set()
        """Those that could never be listed yet: of their runs nothing is decided."""
        self._refusals: set[tuple[Scope, str]] = set()
        """Those that the API server refuses to us, and whether that was a list or a watch."""
        self._refused = refused

    def of(self, key: Key) -> Scope:
        return key.namespace if self._by_namespace else None

    def may_decide(self, key: Key) -> bool:
        """Whether the scope of the run has been listed; one that never was lacks Jobs that there are."""
        return self.of(key) not in self._unlisted

    def list_begins(self, scope: Scope) -> None:
        if not self.listed:  # of runs without their Jobs nothing may be decided
            self._unlisted.add(scope)

    def list_ended(self, scope: Scope) -> bool:
        """The scope has been listed; returns whether that was the first time."""
        self.say_refused(scope, "list", "")
        first = scope in self._unlisted
        self._unlisted.discard(scope)
        return first

    def say_refused(self, scope: Scope, what: str, words: str) -> None:
        """Log once that the scope cannot be served; the others go on.

        Args:
            what: "list" or "watch".
            words: the API server's; empty when it lets us through.
        """
        where = f"namespace {scope}" if scope else "the cluster"
        if words and (scope, what) not in self._refusals:
            self._refusals.add((scope, what))
            log.warning("%s cannot be served: %s; it is tried again, and the others go on", where, words)
        elif not words and (scope, what) in self._refusals:
            self._refusals.discard((scope, what))
            log.info("%s: the %s is let through again", where, what)
        else:
            return
        self._refused.labels(scope or "").set(any(refused == scope for refused, _ in self._refusals))
