"""A small client of the Kubernetes API for tests: JSON in, JSON out, nothing cached but names. Threads may share it.

It shares no code with the operator's own client, so that what one gets wrong the other can see.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

Object = dict[str, Any]

_GROUPS = {
    "v1": "bindings configmaps endpoints events namespaces nodes persistentvolumeclaims pods resourcequotas secrets "
    "serviceaccounts services",
    "batch/v1": "jobs",
    "apps/v1": "deployments",
    "policy/v1": "poddisruptionbudgets",
    "coordination.k8s.io/v1": "leases",
    "scheduling.k8s.io/v1": "priorityclasses",
    "rbac.authorization.k8s.io/v1": "roles rolebindings clusterroles clusterrolebindings",
    "authorization.k8s.io/v1": "subjectaccessreviews selfsubjectaccessreviews",
    "apiextensions.k8s.io/v1": "customresourcedefinitions",
    "admissionregistration.k8s.io/v1": "validatingadmissionpolicies validatingadmissionpolicybindings",
    "selfevo.dev/v1alpha1": "selfevolutionruns",
}
_VERSION_OF = {plural: version for version, plurals in _GROUPS.items() for plural in plurals.split()}
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """The apiserver refused."""

    def __init__(self, status: int, reason: str, message: str, body: Any = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.body = status, reason, message, body


class Watch:
    """The events of one watch request: ``(type, object)``, until the server or ``close`` ends it."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        rest = b""
        with suppress(urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            for chunk in self._response.stream(65536, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    yield event["type"], event["object"]
        self._response.close()

    def close(self) -> None:
        """Ends the iteration, also one that waits in another thread."""
        if not self._closed:
            self._closed = True
            with suppress(Exception):
                self._response.shutdown()


class Api:
    """The API at ``server`` as who holds ``token``.

    A resource is named by its plural, ``jobs``, or, where that is not in the table above, ``group/version/plural``.
    """

    def __init__(self, server: str, token: str, ca: Path | None = None) -> None:
        self.server, self.token = server.rstrip("/"), token
        self._pool = urllib3.PoolManager(maxsize=64, retries=False, ca_certs=str(ca) if ca else None)
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def path(self, resource: str, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Where it lies: ``/apis/batch/v1/namespaces/research/jobs/run-1/status``."""
        version, _, plural = resource.rpartition("/")
        version = version or _VERSION_OF[plural]
        parts = ["api" if version == "v1" else "apis", version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        return "/" + "/".join([*parts, plural, *filter(None, [quote(name, safe=""), subresource])])

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout_s: float = 30.0,
    ) -> Any:
        """The decoded answer; text where it is no JSON.

        Raises:
            ApiError: for every status but 2xx.
            urllib3.exceptions.HTTPError: when nobody answered.
        """
        response = self._send(method, path, body, query or {}, content_type, timeout_s, stream=False)
        data = response.data
        if response.headers.get("Content-Type", "").startswith("application/json"):
            return json.loads(data)
        return data.decode(errors="replace")

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any],
        content_type: str,
        timeout_s: float,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        asked = {name: value for name, value in query.items() if value not in (None, "")}
        response = self._pool.request(
            method,
            self.server + path + (f"?{urlencode(asked)}" if asked else ""),
            body=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": content_type,
                "Accept": "application/json",
            },
            preload_content=not stream,
            timeout=urllib3.Timeout(connect=5.0, read=None if stream else timeout_s),
        )
        if response.status >= 300:
            text = response.data.decode(errors="replace")
            try:
                status = json.loads(text)
            except ValueError:
                status = {}
            raise ApiError(
                response.status, status.get("reason", ""), status.get("message", text[:500]), status.get("details")
            )
        return response

    # -- by resource

    def get(self, resource: str, name: str, namespace: str | None = None, subresource: str = "", **query: Any) -> Any:
        return self.request("GET", self.path(resource, namespace, name, subresource), query=query)

    def find(self, resource: str, name: str, namespace: str | None = None) -> Object | None:
        """As ``get``; None when there is none."""
        try:
            found: Object = self.get(resource, name, namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return found

    def list(self, resource: str, namespace: str | None = None, labels: str = "", fields: str = "") -> list[Object]:
        items: list[Object] = self.listing(resource, namespace, labels, fields)["items"]
        return items

    def listing(self, resource: str, namespace: str | None = None, labels: str = "", fields: str = "") -> Object:
        """The list as an object, for its resourceVersion."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        answer: Object = self.request("GET", self.path(resource, namespace), query=query)
        return answer

    def patch(
        self,
        resource: str,
        name: str,
        body: Any,
        namespace: str | None = None,
        subresource: str = "",
        kind: str = "merge",
        **query: Any,
    ) -> Object:
        path = self.path(resource, namespace, name, subresource)
        answer: Object = self.request("PATCH", path, body, query=query, content_type=_PATCHES[kind])
        return answer

    def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_s: int | None = None,
        propagation: str = "Background",
    ) -> None:
        """Asks for its deletion; no error when it is gone."""
        body: Object = {"propagationPolicy": propagation}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            self.request("DELETE", self.path(resource, namespace, name), body)
        except ApiError as error:
            if error.status != 404:
                raise

    def delete_all(self, resource: str, namespace: str, *, grace_s: int | None = None, labels: str = "") -> None:
        """Each by a call of its own: the apiserver cuts off one call for all when it takes too long."""
        for found in self.list(resource, namespace, labels):
            self.delete(resource, found["metadata"]["name"], namespace, grace_s=grace_s)

    def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        version: str = "",
        labels: str = "",
        fields: str = "",
        timeout_s: int | None = None,
    ) -> Watch:
        query = {
            "watch": "true",
            "resourceVersion": version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": timeout_s,
        }
        path = self.path(resource, namespace)
        return Watch(self._send("GET", path, None, query, "application/json", 0, stream=True))

    def follow_log(self, pod: str, namespace: str) -> Iterator[bytes]:
        """What its container writes, until it ends or the connection does."""
        path = self.path("pods", namespace, pod, "log")
        response = self._send("GET", path, None, {"follow": "true"}, "application/json", 0, stream=True)
        with suppress(urllib3.exceptions.HTTPError, OSError):
            yield from response.stream(65536, decode_content=True)

    def wait(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[Object | None], Any],
        limit_s: float = 180.0,
    ) -> Any:
        """Asks until ``until(object or None)`` is true, and returns the object."""
        deadline = time.monotonic() + limit_s
        while not until(found := self.find(resource, name, namespace)):
            assert time.monotonic() < deadline, f"{resource}/{name} after {limit_s} s: {json.dumps(found)[:3000]}"
            time.sleep(0.05)
        return found

    # -- by manifest

    def create(self, manifest: Object, namespace: str | None = None, **query: Any) -> Object:
        """``dryRun="All"`` and ``fieldValidation="Strict"`` are queries."""
        answer: Object = self.request("POST", self._place(manifest, namespace), manifest, query=query)
        return answer

    def apply(self, manifest: Object, namespace: str | None = None, *, manager: str = "tests", **query: Any) -> Object:
        """Server-side, taking fields from others."""
        path = f"{self._place(manifest, namespace)}/{quote(manifest['metadata']['name'], safe='')}"
        query = {"fieldManager": manager, "force": "true", **query}
        answer: Object = self.request("PATCH", path, manifest, query=query, content_type=_PATCHES["apply"])
        return answer

    def replace(self, manifest: Object, namespace: str | None = None, subresource: str = "") -> Object:
        parts = [self._place(manifest, namespace), quote(manifest["metadata"]["name"], safe=""), subresource]
        answer: Object = self.request("PUT", "/".join(filter(None, parts)), manifest)
        return answer

    def _place(self, manifest: Object, namespace: str | None) -> str:
        plural, namespaced = self._kind(manifest["apiVersion"], manifest["kind"])
        namespace = manifest["metadata"].get("namespace") or namespace or "default"
        return self.path(f"{manifest['apiVersion']}/{plural}", namespace if namespaced else None)

    def _kind(self, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._kinds:
            served = self.request("GET", f"/{'api' if version == 'v1' else 'apis'}/{version}")["resources"]
            for one in served:
                if "/" not in one["name"]:
                    self._kinds[version, one["kind"]] = (one["name"], one["namespaced"])
        return self._kinds[version, kind]
