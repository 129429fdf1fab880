"""Does the store keep the promise that a commit rests on? Create an object, create it again, expect to be refused."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from urllib.parse import urlsplit

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_store.base import ObjectStore
from selfevo_store.problems import ObjectNotFound

_log = logging.getLogger(__name__)
_sound: set[tuple[str, str | None]] = set()
_lock = threading.Lock()


def probe_conditional_put(store: ObjectStore) -> None:
    """Asks once per process and store; later calls return at once.

    Raises:
        InputError: when the store ignores the condition, or refuses what it should accept, and the store was opened
            with ``require_conditional_put``. Without it, a warning is logged instead.
    """
    identity = (store.uri, store.endpoint)
    with _lock:
        if identity in _sound:
            return
        flaw = _flaw(store)
        if flaw is not None:
            message = f"storage.uri {store.uri}: the store {flaw}, so two attempts could overwrite each other's output"
            if store.require_conditional_put:
                raise InputError(
                    f"{message}; {_instead(store)}, or accept the risk with storage.requireConditionalPut: false",
                    reason=reasons.CONDITIONAL_PUT_UNSUPPORTED,
                )
            _log.warning("%s; storage.requireConditionalPut is false, so the run goes on", message)
        _sound.add(identity)


def _instead(store: ObjectStore) -> str:
    if store.endpoint and (urlsplit(store.endpoint).hostname or "").endswith("storage.googleapis.com"):
        return (
            "Google Cloud Storage has this condition in its own API only, not in its S3 interface: use another store "
            "(S3, R2, MinIO, Ceph)"
        )
    return "use a store that honours `If-None-Match: *`"


def _flaw(store: ObjectStore) -> str | None:
    folder = f".probe/{secrets.token_hex(8)}"
    key = f"{folder}/object"
    # A lost reply makes put_if_absent answer False to its own success: what is stored decides.
    store.put_if_absent(key, b"first")
    try:
        store.read_bytes(key)
    except ObjectNotFound:
        return "refuses `If-None-Match: *` where nothing is stored (the condition is inverted)"
    accepted = store.put_if_absent(key, b"second")
    kept = store.read_bytes(key) == b"first"
    with contextlib.suppress(SelfevoError):  # no right to delete: a few bytes stay
        store.delete_prefix(folder)
    return None if kept and not accepted else "ignores `If-None-Match: *` and overwrites"
