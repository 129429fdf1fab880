"""For whom a kubeconfig speaks. Pure, and without a client library, so that the command has it too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def impersonated(user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The headers by which kubectl speaks for somebody else, of a kubeconfig's ``user``; none where it does not."""
    name = user.get("as")
    if not name:
        return ()
    uid = [("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []
    groups = [("Impersonate-Group", str(group)) for group in user.get("as-groups") or []]
    extra = [
        (f"Impersonate-Extra-{quote(key, safe='')}", str(value))
        for key, values in (user.get("as-user-extra") or {}).items()
        for value in values
    ]
    return (("Impersonate-User", str(name)), *uid, *groups, *extra)
