"""What etcd holds, and the API server's manners with it. Objects are never changed in place: they are handed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from simulation.agenda import Agenda

Kind = Literal["runs", "jobs"]
Object = dict[str, Any]
Listener = Callable[[Kind, str, Object], None]

NAMESPACE = "default"
MANAGED_BY = "app.kubernetes.io/managed-by"


class Refusal(Exception):
    """The API server says no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


def not_found(kind: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{kind} "{name}" not found')


def controller_of(obj: Object) -> str:
    """UID of the object's controller, read independently of the code under test."""
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


class ApiServer:
    """Runs and Jobs of one namespace, by name. Services and Events matter by their names alone."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self.version = 100
        self.kinds: dict[Kind, dict[str, Object]] = {"runs": {}, "jobs": {}}
        self.services: set[str] = set()
        self.events: dict[str, Object] = {}
        self.listeners: list[Listener] = []
        self._uids = 0

    @property
    def runs(self) -> dict[str, Object]:
        return self.kinds["runs"]

    @property
    def jobs(self) -> dict[str, Object]:
        return self.kinds["jobs"]

    def get(self, kind: Kind, name: str) -> Object:
        try:
            return self.kinds[kind][name]
        except KeyError:
            raise not_found(kind, name) from None

    def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        name = obj["metadata"]["name"]
        if name in self.kinds[kind]:
            raise Refusal(409, "AlreadyExists", f'{kind} "{name}" already exists')
        self._uids += 1
        born = {"uid": f"{kind}-{self._uids}", "creationTimestamp": self._agenda.stamp(), "generation": 1}
        return self._put(kind, "ADDED", {**obj, "metadata": {**obj["metadata"], "namespace": NAMESPACE, **born}})

    def update(self, kind: Kind, name: str, *, metadata: Mapping[str, Any] | None = None, **parts: Any) -> Object:
        """Replace parts of an object; a write that changes nothing is none. A changed spec makes a new generation."""
        old = self.get(kind, name)
        new = {**old, **parts, "metadata": {**old["metadata"], **(metadata or {})}}
        if new == old:
            return old
        if "spec" in parts and parts["spec"] != old["spec"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._put(kind, "MODIFIED", new)

    def remove(self, kind: Kind, name: str) -> None:
        """The object is gone."""
        old = self.kinds[kind].pop(name)
        self.version += 1
        gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._tell(kind, "DELETED", gone)

    def patch_status(self, name: str, operations: list[dict[str, Any]]) -> Object:
        """A JSON patch on the subresource: what it says of anything but the status is ignored."""
        status = self._patched(self.get("runs", name), operations)
        return self.update("runs", name, status=status)

    @staticmethod
    def _patched(run: Object, operations: list[dict[str, Any]]) -> Object:
        status = dict(run.get("status") or {})
        there = "status" in run
        for operation in operations:
            verb, path = operation["op"], operation["path"]
            if verb == "test":
                found = {"/metadata/resourceVersion": run["metadata"]["resourceVersion"]}[path]
                if found != operation["value"]:
                    raise Refusal(422, "Invalid", f"testing value {path} failed")
            elif path == "/status" and verb in ("add", "replace"):
                status, there = dict(operation["value"]), True
            elif path.startswith("/status/") and there and verb in ("add", "remove"):
                field = path.removeprefix("/status/")
                if verb == "remove" and field not in status:
                    raise Refusal(422, "Invalid", f"remove operation does not apply: {path} is missing")
                status.pop(field, None)
                if verb == "add":
                    status[field] = operation["value"]
            else:
                raise Refusal(422, "Invalid", f"{verb} operation does not apply: {path}")
        return status

    def snapshot(self, kind: Kind) -> tuple[list[Object], int]:
        """A list, and the version that it is of."""
        return list(self.kinds[kind].values()), self.version

    def owned_by(self, uid: str) -> list[Object]:
        return [job for job in self.jobs.values() if controller_of(job) == uid]

    def _put(self, kind: Kind, how: str, obj: Object) -> Object:
        self.version += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self.kinds[kind][obj["metadata"]["name"]] = stored
        self._tell(kind, how, stored)
        return stored

    def _tell(self, kind: Kind, how: str, obj: Object) -> None:
        for listener in self.listeners:
            listener(kind, how, obj)
