"""What API servers wrote down about who asked for what.

Every control plane below `SELFEVO_AUDIT_LOGS`, which a run of the tests sets, keeps a log of its ServiceAccounts there,
so that the rights which ship can be held against all that the operator did (harness/cluster/rights.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = "SELFEVO_AUDIT_LOGS"
_STARTS = "starts.txt"
RBAC = "rbac.authorization.k8s.io"
BINDINGS = ("rolebindings", "clusterrolebindings")
_WATCHED = {"level": "Metadata", "userGroups": ["system:serviceaccounts"]}
_TAKEN_AWAY: list[dict[str, Any]] = [
    {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"],
     "resources": [{"group": RBAC, "resources": list(BINDINGS)}]},
    {"level": "Metadata", "verbs": ["delete"], "resources": [{"group": "", "resources": ["namespaces"]}]},
]  # fmt: skip
"""What a test does to an account's rights."""


@dataclass(frozen=True)
class Access:
    """What somebody asked of the apiserver, as RBAC sees it."""

    user: str
    verb: str
    group: str
    resource: str
    """With its subresource: ``jobs/status``. Where it is about no resource: the path."""
    namespace: str
    code: int
    name: str = ""
    agent: str = ""
    """The program, as it calls itself."""
    denied: bool = False
    """By RBAC. An admission plugin may refuse with 403 what RBAC allows, and an apiserver that is not ready everything:
    it has yet to read who is bound to what."""
    received: str = ""
    """When the question came; times in this form are in order as text."""


def policy(everybody: bool) -> dict[str, Any]:
    """For the apiserver: who is written down. Only ServiceAccounts, unless ``everybody``: a log of all is costly."""
    rules = [{"level": "Metadata"}] if everybody else [_WATCHED, *_TAKEN_AWAY, {"level": "None"}]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}


def flags(folder: Path, everybody: bool) -> list[str]:
    """For an apiserver that keeps its log in ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.json").write_text(json.dumps(policy(everybody)))
    return [f"--audit-log-path={folder / 'audit.log'}", f"--audit-policy-file={folder / 'policy.json'}"]


def note_start(folder: Path, began: datetime) -> None:
    """An apiserver that began then is ready now."""
    with (folder / _STARTS).open("a") as starts:
        starts.write(f"{_as_logged(began)} {_as_logged(datetime.now(UTC))}\n")


def _as_logged(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _starts(folder: Path) -> list[list[str]]:
    file = folder / _STARTS
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def read(folder: Path) -> Iterator[Access]:
    """Every request that was answered so far, in the order of the answers. A watch is there when it has begun."""
    starts = _starts(folder)
    for file in sorted(folder.glob("audit*.log")):  # audit-<time>.log when a log has grown large, then audit.log
        with file.open() as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # half a line of an apiserver that a test killed
                    continue
                if entry["stage"] in ("ResponseStarted", "ResponseComplete"):
                    yield _access(entry, starts)


def _access(entry: dict[str, Any], starts: list[list[str]]) -> Access:
    received = entry.get("requestReceivedTimestamp", "")
    forbidden = entry.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
    about = entry.get("objectRef") or {"resource": entry["requestURI"].partition("?")[0]}
    return Access(
        user=entry["user"].get("username", ""),
        verb=entry["verb"],
        group=about.get("apiGroup", ""),
        resource="/".join(filter(None, [about["resource"], about.get("subresource")])),
        namespace=about.get("namespace", ""),
        code=entry.get("responseStatus", {}).get("code", 0),
        name=about.get("name", ""),
        agent=entry.get("userAgent", ""),
        denied=forbidden and not any(began <= received <= ready for began, ready in starts),
        received=received,
    )
