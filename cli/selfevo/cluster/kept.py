"""Logs of pods that are gone, as their trainers kept them in the store: read with this machine's credentials."""

from __future__ import annotations

import re
from dataclasses import dataclass

from selfevo.cluster.client import Resource
from selfevo.stores import open_run_store, prefix_of
from selfevo_contract.artifacts import logs_prefix
from selfevo_store import ObjectStore

_NAME = re.compile(r"(?P<index>\d{1,6})\.(?P<begun>\d{8}T\d{6}Z)(\.(rank-(?P<rank>\d{1,6})|(?P<server>server)))?\.log")


@dataclass(frozen=True)
class KeptLog:
    """One process's log."""

    index: int
    """Of its pod among those of the attempt."""
    begun: str
    rank: int | None
    """Of its process among those of a training; None of the only one, or of the one that started the others."""
    server: bool
    """Of the server beside the trainer."""
    key: str

    def lines(self, store: ObjectStore) -> list[str]:
        """Raises SelfevoError when the store fails."""
        return store.read_bytes(self.key).decode("utf-8", "replace").splitlines()


def kept_logs(resource: Resource, step: str, attempt: str) -> tuple[ObjectStore, list[KeptLog]] | None:
    """The store, and the logs that it has of the attempt, pod after pod; None where the step is not known.

    Raises:
        SelfevoError: the store cannot be read from here.
    """
    plan = resource.plan
    planned = plan.by_name.get(step) if plan else None
    if planned is None or resource.run is None:
        return None
    store = open_run_store(resource.run)
    place = logs_prefix(prefix_of(resource.run, planned), attempt)
    return store, logs_of(place, [info.key for info in store.list(place)])


def logs_of(place: str, keys: list[str]) -> list[KeptLog]:
    """Those of ``keys`` that are logs, in order. Pure."""
    found = []
    for key in keys:
        match = _NAME.fullmatch(key.removeprefix(f"{place}/"))
        if match:
            rank = None if match["rank"] is None else int(match["rank"])
            found.append(KeptLog(int(match["index"]), match["begun"], rank, match["server"] is not None, key))
    return sorted(found, key=lambda log: (log.index, log.server, log.begun, -1 if log.rank is None else log.rank))
