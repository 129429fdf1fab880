"""The user's cluster: the few calls that the command makes, with the user's kubeconfig and the user's rights.

The official client does what is hard (kubeconfig, login commands, certificates, proxies) and is imported when a cluster
is asked for: its import takes half a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from selfevo.cluster.errors import (
    GROUP,
    RUNS,
    Asked,
    NotFound,
    Server,
    no_run,
    refused,
    unreachable,
)
from selfevo.cluster.login import login_complaints
from selfevo.stores import recorded_plan
from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.plan import Plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.layout import laid_out
from selfevo_contract.status import RunStatus

VERSION = "v1alpha1"
CONTAINER = "trainer"
JOB_LABEL = "batch.kubernetes.io/job-name"

CONNECT_S = 10.0
READ_S = 30.0
WATCH_S = 50
"""A watch is asked for as long as this."""
SLACK_S = 10
"""One that has been silent for so much longer is dead, whatever TCP says."""
PAGE = 500


@dataclass(frozen=True)
class Resource:
    """A SelfEvolutionRun as it is in the cluster."""

    name: str
    namespace: str
    uid: str
    generation: int
    version: str
    """Its resourceVersion."""
    created: str
    deleting: bool
    suspend: bool
    queue: str
    status: RunStatus
    run: SelfEvolutionRun | None
    """None when this version of selfevo cannot read the spec; the status is shown all the same."""

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def plan(self) -> Plan | None:
        """With what its record says; None when its spec cannot be read."""
        return recorded_plan(self.run.spec, self.status) if self.run else None

    @property
    def seen(self) -> bool:
        """Whether the operator has reconciled the newest spec."""
        return self.status.observed_generation >= self.generation

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more. A spec that the operator has not seen may set it going again."""
        return self.seen and self.status.phase in ("Succeeded", "Failed")

    @classmethod
    def read(cls, value: Mapping[str, Any], *, leniently: bool = False) -> Resource:
        """The run in ``value``.

        Args:
            leniently: Of a status that a newer operator wrote, take what we understand, and the phase as it stands:
                one run must not keep a list from being shown.

        Raises:
            InputError: the status is not one that we understand.
        """
        metadata, spec = value["metadata"], value.get("spec") or {}
        try:
            status = RunStatus.model_validate(value.get("status") or {})
        except ValidationError as error:
            if leniently:
                return cls.read({**value, "status": {}})._with(_valid_parts(value["status"], error))
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InputError(
                f"run {metadata['namespace']}/{metadata['name']} has a status.{field} that this version of selfevo "
                "does not know; install the version that the cluster's operator has",
                reason=reasons.UNKNOWN_STATUS,
            ) from None
        try:
            parsed = SelfEvolutionRun.model_validate({**value, "status": None})
            run = laid_out(parsed.model_copy(update={"status": status}))
        except (ValidationError, InputError):
            run = None
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 1),
            version=metadata.get("resourceVersion", ""),
            created=metadata.get("creationTimestamp", ""),
            deleting="deletionTimestamp" in metadata,
            suspend=bool(spec.get("suspend")),
            queue=str(spec.get("queue") or ""),
            status=status,
            run=run,
        )

    def _with(self, status: RunStatus) -> Resource:
        return dataclasses.replace(self, status=status)


def _valid_parts(status: Mapping[str, Any], error: ValidationError) -> RunStatus:
    """What of a status we can read: without the fields that are wrong, but with the phase's own word."""
    wrong = {str(detail["loc"][0]) for detail in error.errors()}
    known = RunStatus.model_validate({name: item for name, item in status.items() if name not in wrong})
    return known.model_copy(update={"phase": status["phase"]}) if isinstance(status.get("phase"), str) else known


class Cluster:
    """A namespace of a cluster. Every method raises a SelfevoError of one sentence: InputError where the user or an
    administrator must do something, ServiceError where the next try may succeed."""

    def __init__(self, client: Any, server: Server, namespace: str) -> None:
        self._client = client
        self.server = server
        self.namespace = namespace

    # --- runs ---------------------------------------------------------------------------------------------------------

    def run(self, name: str) -> Resource:
        """Raises NotFound with the names that are near."""
        asked = Asked("get", RUNS, self.namespace, name)
        try:
            return Resource.read(self._json(asked, "GET", self._runs_path(name)))
        except NotFound:
            pass
        try:
            others = [other.name for other in self.runs()]
        except SelfevoError:
            others = None
        raise no_run(name, self.namespace, others)

    def runs(self, all_namespaces: bool = False) -> list[Resource]:
        """Of the namespace, or of all, by name."""
        namespace = None if all_namespaces else self.namespace
        path = f"/apis/{GROUP}/{VERSION}/{RUNS}" if all_namespaces else self._runs_path()
        asked = Asked("list", RUNS, namespace)
        found: list[Resource] = []
        query = [("limit", str(PAGE))]
        while True:
            page = self._json(asked, "GET", path, query)
            found += [Resource.read(item, leniently=True) for item in page.get("items") or []]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return sorted(found, key=lambda run: (run.namespace, run.name))
            query = [("limit", str(PAGE)), ("continue", more)]

    def changes(self, name: str, version: str) -> Iterator[Resource | None]:
        """The run whenever it changes after ``version``, for a minute at most; None when it is deleted.

        The watch is open when this returns.

        Raises:
            Expired: ``version`` is too old.
            Forbidden: to watch is a right of its own.
        """
        query = [
            ("watch", "true"),
            ("fieldSelector", f"metadata.name={name}"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(WATCH_S)),
        ]
        asked = Asked("watch", RUNS, self.namespace, name)
        return self._events(self._lines(asked, self._runs_path(), query, WATCH_S + SLACK_S), asked)

    def _events(self, lines: Generator[tuple[bytes, bool], None, None], asked: Asked) -> Iterator[Resource | None]:
        with contextlib.closing(lines):
            for line, _ in lines:
                try:
                    event = json.loads(line)
                except ValueError:  # cut off in the middle
                    raise ServiceError(f"{self.server} broke off in the middle of an event; try again") from None
                kind, value = event.get("type"), event.get("object") or {}
                if kind == "ERROR":
                    raise refused(int(value.get("code") or 500), json.dumps(value).encode(), asked, self.server)
                if kind == "DELETED":
                    yield None
                elif kind in ("ADDED", "MODIFIED"):
                    yield Resource.read(value)

    def set_suspend(self, name: str, suspend: bool) -> Resource:
        """Say whether the run shall rest. Nothing else of it is touched."""
        return self._set(name, {"suspend": suspend})

    def approve(self, name: str, iteration: int) -> Resource:
        """Say that the run may go on with ``iteration``."""
        return self._set(name, {"approvedIteration": iteration})

    def _set(self, name: str, fields: dict[str, Any]) -> Resource:
        asked = Asked("patch", RUNS, self.namespace, name)
        body = {"spec": fields}
        query = [("fieldManager", "selfevo-cli")]
        return Resource.read(self._json(asked, "PATCH", self._runs_path(name), query, body))

    # --- pods ---------------------------------------------------------------------------------------------------------

    def pods(self, job: str) -> list[dict[str, Any]]:
        """The pods of a Job, oldest first."""
        asked = Asked("list", "pods", self.namespace)
        path = f"/api/v1/namespaces/{quote(self.namespace)}/pods"
        pods: list[dict[str, Any]] = self._json(asked, "GET", path, [("labelSelector", f"{JOB_LABEL}={job}")])["items"]
        return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))

    def log(
        self, pod: str, *, follow: bool = False, since: str | None = None, tail: int | None = None
    ) -> Iterator[tuple[str, bool]]:
        """The lines of the trainer in ``pod``, each with its time in front when ``follow``, and whether it is whole;
        the last ``tail`` of them."""
        query = [("container", CONTAINER)]
        if follow:
            query += [("follow", "true"), ("timestamps", "true")]
        if since is not None:
            query.append(("sinceTime", since))
        if tail is not None:
            query.append(("tailLines", str(tail)))
        asked = Asked("get", "pods/log", self.namespace, pod)
        path = f"/api/v1/namespaces/{quote(self.namespace)}/pods/{quote(pod)}/log"
        # A trainer may be silent for as long as a step takes.
        lines = self._lines(asked, path, query, None if follow else READ_S)
        return ((line.decode(errors="replace"), whole) for line, whole in lines)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _runs_path(self, name: str | None = None) -> str:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{quote(self.namespace)}/{RUNS}"
        return path if name is None else f"{path}/{quote(name)}"

    def _json(
        self, asked: Asked, method: str, path: str, query: list[tuple[str, str]] | None = None, body: Any = None
    ) -> Any:
        response = self._request(asked, method, path, query or [], body, READ_S)
        try:
            content = response.data
        except Exception as error:
            raise unreachable(error, self.server) from None
        try:
            return json.loads(content)
        except ValueError:
            raise InputError(
                f"{self.server} answers, but not as an API server does; correct the server of {self.server.whose}"
            ) from None

    def _lines(
        self, asked: Asked, path: str, query: list[tuple[str, str]], read_s: float | None
    ) -> Generator[tuple[bytes, bool], None, None]:
        """Lines as they arrive, without their ends, and whether each had one: the last may not."""
        return self._split(self._request(asked, "GET", path, query, None, read_s))

    def _split(self, response: Any) -> Generator[tuple[bytes, bool], None, None]:
        rest = b""
        try:
            while True:
                try:
                    chunk = response.read1(65536)
                except Exception as error:
                    raise unreachable(error, self.server) from None
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line, True
            if rest:
                yield rest, False
        finally:
            # Not back into the pool: what is left of the answer would be read as the next one.
            response.close()

    def _request(
        self, asked: Asked, method: str, path: str, query: list[tuple[str, str]], body: Any, read_s: float | None
    ) -> Any:
        """urllib3's answer, unread, when it is 2xx."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            with login_complaints(self.server):
                request = self._client.param_serialize(
                    method,
                    path,
                    query_params=query,
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
            response = self._client.call_api(*request, _request_timeout=(CONNECT_S, read_s)).response
            if 200 <= response.status < 300:
                return response
            content = response.data
        except SelfevoError:
            raise
        except Exception as error:  # the client lets those of urllib3, ssl and socket through
            raise unreachable(error, self.server) from None
        raise refused(response.status, content, asked, self.server)
