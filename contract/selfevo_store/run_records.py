"""The records that runs leave in their store (selfevo_contract.run_record): written once each, read whole."""

from __future__ import annotations

import re
from datetime import datetime

from selfevo_contract.errors import InputError
from selfevo_contract.run_record import (
    RunRecord,
    newest_records,
    parsed,
    record_key,
    records_prefix,
)
from selfevo_store.base import ObjectStore

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def leave_record(store: ObjectStore, record: RunRecord, now: datetime) -> bool:
    """Write ``record`` unless the newest of its run says the same, or is of a later spec; whether it was written.

    Two that do it at the same time leave the same object, or two that say the same.

    Raises:
        SelfevoError: the store cannot be used.
    """
    newest = known_records(store, record.namespace, record.name).get((record.namespace, record.name), "")
    if newest and (before := _readable(store, newest)) is not None and not record.follows(before):
        return False
    key = record_key(record, now, newest)
    store.put_bytes(key, record.to_bytes())  # the name has the content's digest: what it replaces is the same
    return True


def known_records(store: ObjectStore, namespace: str = "", name: str = "") -> dict[tuple[str, str], str]:
    """Namespace and name of each run that left a record -> where its newest one lies.

    Raises:
        SelfevoError: the store cannot be used.
    """
    there = [namespace] if namespace else [each for each in store.folders() if _NAMESPACE.fullmatch(each)]
    return newest_records(info.key for each in there for info in store.list(records_prefix(each, name)))


def _readable(store: ObjectStore, key: str) -> RunRecord | None:
    try:
        return read_record(store, key)
    except InputError:
        return None


def read_record(store: ObjectStore, key: str) -> RunRecord:
    """The record at ``key``.

    Raises:
        SelfevoError: it is damaged, of another version, or the store cannot be used.
    """
    return parsed(store.read_bytes(key), key, store.uri_of(key))
