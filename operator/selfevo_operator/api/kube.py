"""The few calls to the API server that the operator makes, as plain JSON over one HTTP session.

Not the official client: its generated models cost more time in one read than a whole reconcile of a run, and its import
costs 45 MiB (docs/decisions/0007-kube-by-hand.md). No call is tried again here: whoever asks has a queue for that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import aiohttp
from pydantic_core import from_json

from selfevo_operator.api.pod_lists import CONTROLLER_UID, PodLists
from selfevo_operator.manifests.labels import MANAGED_BY, MANAGER, TRAINER

FIELD_MANAGER = MANAGER
JOB_SELECTOR = f"{MANAGED_BY}={MANAGER}"
PAGE = 100
JOB_UID = "kueue.x-k8s.io/job-uid"
"""Label by which Kueue marks a Workload with the UID of its Job."""
_LOG_LINES, _LOG_BYTES = 20, 64 * 1024
KUEUE_VERSIONS = ("v1beta2", "v1beta1")
_RUNS = "/apis/selfevo.dev/v1alpha1"
_BATCH = "/apis/batch/v1"


class ApiError(Exception):
    """The API server refused, or did not answer (status 0)."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server wants us to wait."""


class Page(NamedTuple):
    """Some objects of a list: thousands are never in memory at once."""

    items: list[dict[str, Any]]
    version: int
    """Resource version of the list."""
    first: bool
    """The list begins, perhaps anew."""


class Api(Protocol):
    """What the controller needs of a cluster."""

    async def get_run(self, namespace: str, name: str) -> dict[str, Any]: ...

    async def patch_status(self, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]: ...

    async def get_job(self, namespace: str, name: str) -> dict[str, Any]: ...

    async def create_job(self, namespace: str, job: Mapping[str, Any]) -> dict[str, Any]: ...

    async def delete_job(self, namespace: str, name: str, uid: str, version: int) -> dict[str, Any]: ...

    async def create_service(self, namespace: str, service: Mapping[str, Any]) -> None: ...

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, Any]]:
        """The pods of a Job; ``cached``: they may be a little old."""

    async def pod_log(self, namespace: str, pod: str) -> str:
        """The last lines of the log of the pod's trainer, each behind its time."""

    async def list_events(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        """The Events about the object ``uid``, in any order."""

    async def list_workloads(self, namespace: str, job_uid: str) -> list[dict[str, Any]] | None:
        """Kueue's Workloads of a Job; None where they are not to be read, or there is no Kueue."""

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Endpoint:
    """Where the API server is, and how we show who we are."""

    server: str
    ssl: Any
    headers: Callable[[], Iterable[tuple[str, str]]]
    """Asked for every request: the token of a ServiceAccount changes while we run."""
    proxy: str | None = None
    """What stands between, as in http://proxy.example:3128."""
    renew: Callable[[], bool] = lambda: False
    """Called, in a thread, when the server does not know us any more; whether there is something new to show."""


Observer = Callable[[str, str, int], None]
"""Is called for every call: verb, resource, status code (0: no answer)."""
Decode = Callable[[bytes], Any]
"""What a reply's bytes say; raises ValueError where they say nothing."""


class Kube:
    """`Api` on a real cluster."""

    def __init__(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, observer: Observer, *, workloads: bool = False
    ) -> None:
        self._session, self._endpoint, self._observer = session, endpoint, observer
        self._workloads = workloads
        self._pods = PodLists(self._list_pods)

    @staticmethod
    def session(timeout: float) -> aiohttp.ClientSession:
        """A session whose calls end: a black hole is an error after ``timeout`` seconds."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10),
            trust_env=False,
        )

    async def get_run(self, namespace: str, name: str) -> dict[str, Any]:
        return await self._call("get", "selfevolutionruns", self._run(namespace, name))

    async def patch_status(self, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        path = f"{self._run(namespace, name)}/status?fieldManager={FIELD_MANAGER}"
        content = "application/json-patch+json"
        return await self._call("patch", "selfevolutionruns/status", path, patch, content=content)

    async def get_job(self, namespace: str, name: str) -> dict[str, Any]:
        return await self._call("get", "jobs", f"{_BATCH}/namespaces/{namespace}/jobs/{name}")

    async def create_job(self, namespace: str, job: Mapping[str, Any]) -> dict[str, Any]:
        path = f"{_BATCH}/namespaces/{namespace}/jobs?fieldManager={FIELD_MANAGER}"
        return await self._call("create", "jobs", path, job)

    async def delete_job(self, namespace: str, name: str, uid: str, version: int) -> dict[str, Any]:
        """In the foreground: the Job stays until its pods are gone. Only the Job with this UID, as it was seen."""
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid, "resourceVersion": str(version)}}
        return await self._call("delete", "jobs", f"{_BATCH}/namespaces/{namespace}/jobs/{name}", options)

    async def create_service(self, namespace: str, service: Mapping[str, Any]) -> None:
        path = f"/api/v1/namespaces/{namespace}/services?fieldManager={FIELD_MANAGER}"
        await self._call("create", "services", path, service)

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[dict[str, Any]]:
        return await self._pods.of(namespace, job_uid, cached=cached)

    async def _list_pods(self, namespace: str, job_uids: Sequence[str], cached: bool) -> list[dict[str, Any]]:
        query = {"labelSelector": f"{CONTROLLER_UID} in ({','.join(job_uids)})"}
        if cached:
            query["resourceVersion"] = "0"
        found = await self._call("list", "pods", f"/api/v1/namespaces/{namespace}/pods?{urlencode(query)}")
        return list(found.get("items") or [])

    async def pod_log(self, namespace: str, pod: str) -> str:
        query = urlencode(
            {"container": TRAINER, "timestamps": "true", "tailLines": _LOG_LINES, "limitBytes": _LOG_BYTES}
        )
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{query}"
        return str(await self._ask("get", "pods/log", path, None, "text/plain", _as_text))

    async def list_events(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        query = urlencode({"fieldSelector": f"involvedObject.uid={uid}"})
        found = await self._call("list", "events", f"/api/v1/namespaces/{namespace}/events?{query}")
        return list(found.get("items") or [])

    async def list_workloads(self, namespace: str, job_uid: str) -> list[dict[str, Any]] | None:
        query = urlencode({"labelSelector": f"{JOB_UID}={job_uid}", "resourceVersion": "0"})
        for version in KUEUE_VERSIONS if self._workloads else ():
            path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/workloads?{query}"
            try:
                return list((await self._call("list", "workloads", path)).get("items") or [])
            except ApiError as error:
                if error.status == 403:
                    return None
                if error.status != 404:
                    raise
        return None

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        await self._call("create", "events", f"/api/v1/namespaces/{namespace}/events", event)

    def list_runs(self, namespace: str | None) -> AsyncIterator[Page]:
        """All runs."""
        return self._list("selfevolutionruns", self._in(_RUNS, namespace, "selfevolutionruns"), "")

    def list_jobs(self, namespace: str | None) -> AsyncIterator[Page]:
        """All Jobs that are ours."""
        return self._list("jobs", self._in(_BATCH, namespace, "jobs"), JOB_SELECTOR)

    @staticmethod
    def _run(namespace: str, name: str) -> str:
        return f"{_RUNS}/namespaces/{namespace}/selfevolutionruns/{name}"

    @staticmethod
    def _in(group: str, namespace: str | None, resource: str) -> str:
        return f"{group}/namespaces/{namespace}/{resource}" if namespace else f"{group}/{resource}"

    async def _list(self, resource: str, path: str, selector: str) -> AsyncIterator[Page]:
        start = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        query = dict(start)
        while True:
            try:
                found = await self._call("list", resource, f"{path}?{urlencode(query)}")
            except ApiError as error:
                if error.status != 410 or "continue" not in query:
                    raise
                query = dict(start)  # the server has forgotten what we began to read: once more
                continue
            metadata = found.get("metadata") or {}
            yield Page(found.get("items") or [], int(metadata.get("resourceVersion") or 0), "continue" not in query)
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def _call(
        self, verb: str, resource: str, path: str, body: Any = None, *, content: str = "application/json"
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask(verb, resource, path, body, content, from_json)
        return found

    async def _ask(self, verb: str, resource: str, path: str, body: Any, content: str, decode: Decode) -> Any:
        method = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}[verb]
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            return await self._once(method, verb, resource, path, data, content, decode)
        except ApiError as error:
            # Tokens that a plugin makes end while we run.
            if error.status != 401 or not await asyncio.to_thread(self._endpoint.renew):
                raise
        return await self._once(method, verb, resource, path, data, content, decode)

    async def _once(
        self, method: str, verb: str, resource: str, path: str, data: bytes | None, content: str, decode: Decode
    ) -> Any:
        headers = [*self._endpoint.headers(), ("Accept", "application/json"), ("Content-Type", content)]
        status = 0
        try:
            async with self._session.request(
                method,
                self._endpoint.server + path,
                data=data,
                headers=headers,
                ssl=self._endpoint.ssl,
                proxy=self._endpoint.proxy,
            ) as response:
                text = await response.read()
                status = response.status
                if status < 300:
                    return decode(text)
                retry_after = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            what = str(error) or type(error).__name__
            raise ApiError(
                0, "Unreachable", f"{verb} {resource}: no answer from {self._endpoint.server}: {what}"
            ) from None
        finally:
            self._observer(verb, resource, status)
        raise _error(status, text, float(retry_after) if retry_after.isdecimal() else 0.0)


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _error(status: int, text: bytes, retry_after: float) -> ApiError:
    try:
        reply = json.loads(text)
        return ApiError(status, reply.get("reason") or "", reply.get("message") or "no message", retry_after)
    except (ValueError, AttributeError):
        return ApiError(status, "", text.decode("utf-8", "replace")[:200] or "no message", retry_after)
