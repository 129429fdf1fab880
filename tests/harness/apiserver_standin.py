"""An API server as far as the command `selfevo` talks to one: runs, pods and their logs, over plain HTTP on loopback.

Quick to start and easy to hurt. What the real one does is asked of the real one, in tests/cluster/test_cli.py.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Object = dict[str, Any]
Fault = Callable[["Handler"], bool]
"""Answers a request in the server's place and returns True, or lets it pass."""


class ApiServer:
    """Tests write into it directly and ask it through the command."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.runs: dict[tuple[str, str], Object] = {}
        self.pods: dict[tuple[str, str], Object] = {}
        self.logs: dict[str, list[tuple[str, str]]] = {}
        """Pod -> its lines with their times."""
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self._events: list[tuple[int, str, Object]] = []
        self._version = 100
        self._oldest = 0
        self._epoch = 0
        self._closed = False
        handler = type("Bound", (Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    # --- what tests do ------------------------------------------------------------------------------------------------

    def put(self, run: Object) -> Object:
        """Create or replace a run; its status may come along."""
        with self.changed:
            run = copy.deepcopy(run)
            metadata = run["metadata"]
            place = (metadata.setdefault("namespace", "default"), metadata["name"])
            old = self.runs.get(place)
            self._version += 1
            changed = old is not None and old["spec"] != run["spec"]
            generation = old["metadata"]["generation"] + changed if old else 1
            metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self._version}")
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            metadata.update(generation=generation, resourceVersion=str(self._version))
            self.runs[place] = run
            self._tell("MODIFIED" if old else "ADDED", run)
            return run

    def set_status(self, name: str, status: Object, namespace: str = "default") -> None:
        with self.changed:
            run = copy.deepcopy(self.runs[namespace, name])
            run["status"] = {"observedGeneration": run["metadata"]["generation"], **status}
            self.put(run)

    def delete(self, name: str, namespace: str = "default") -> None:
        with self.changed:
            run = self.runs.pop((namespace, name))
            self._version += 1
            run["metadata"]["resourceVersion"] = str(self._version)
            self._tell("DELETED", run)

    def compact(self) -> None:
        """What happened until now cannot be watched from any more, and every open watch ends."""
        with self.changed:
            self._version += 1
            self._oldest = self._version
            self.cut()

    def cut(self) -> None:
        """End every open watch and log."""
        with self.changed:
            self._epoch += 1
            self.changed.notify_all()

    def add_pod(self, name: str, job: str, state: str = "running", *, index: int | None = None, age: int = 0) -> Object:
        """``state``: waiting, running or ended."""
        labels = {"batch.kubernetes.io/job-name": job}
        if index is not None:
            labels["batch.kubernetes.io/job-completion-index"] = str(index)
        stamp = f"2026-01-01T00:00:{59 - age:02d}Z"
        pod = {"metadata": {"name": name, "uid": f"uid-{name}", "labels": labels, "creationTimestamp": stamp}}
        with self.changed:
            self.pods["default", name] = pod
            self.set_pod(name, state)
            self.logs.setdefault(name, [])
        return pod

    def set_pod(self, name: str, state: str) -> None:
        container = {
            "waiting": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
            "running": {"running": {}},
            "ended": {"terminated": {"exitCode": 0}},
        }[state]
        phase = {"waiting": "Pending", "running": "Running", "ended": "Succeeded"}[state]
        with self.changed:
            statuses = [{"name": "other", "state": {"running": {}}}, {"name": "trainer", "state": container}]
            self.pods["default", name]["status"] = {"phase": phase, "containerStatuses": statuses}
            self.changed.notify_all()

    def write(self, pod: str, *lines: str, at: str | None = None) -> None:
        """Lines of a pod's log, each a millisecond later, or all ``at`` one moment."""
        with self.changed:
            for line in lines:
                number = len(self.logs[pod])
                self.logs[pod].append((at or f"2026-01-01T00:00:00.{number:09d}Z", line))
            self.changed.notify_all()

    def fail(self, code: int, times: int = 1, *, method: str = "", path: str = "", message: str = "by order") -> None:
        """Answer the next requests that fit with an error."""

        def fault(handler: Handler) -> bool:
            nonlocal times
            if times <= 0 or method not in handler.command or path not in handler.path:
                return False
            times -= 1
            handler.answer(code, failure(code, "", message))
            return True

        self.faults.append(fault)

    def drop(self, times: int = 1, *, path: str = "") -> None:
        """Close the connection of the next requests that fit without an answer."""

        def fault(handler: Handler) -> bool:
            nonlocal times
            if times <= 0 or path not in handler.path:
                return False
            times -= 1
            handler.close_connection = True
            return True

        self.faults.append(fault)

    def hold(self, *, path: str = "") -> None:
        """Begin to answer the next request that fits, and never go on: a connection of which no packet arrives."""

        def fault(handler: Handler) -> bool:
            if path not in handler.path:
                return False
            self.faults.remove(fault)
            handler.send_response_only(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            while not self._closed:
                self.changed.wait(0.2)
            return True

        self.faults.append(fault)

    def kubeconfig(self, path: Path, *, server: str | None = None, namespace: str | None = None) -> Path:
        """Two contexts: ``here``, which is current, and ``nowhere``, whose port is closed."""
        contexts = [
            {
                "name": "here",
                "context": {"cluster": "here", "user": "ann", **({"namespace": namespace} if namespace else {})},
            },
            {"name": "nowhere", "context": {"cluster": "nowhere", "user": "ann"}},
        ]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "here", "cluster": {"server": server or self.url}},
                {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:9"}},
            ],
            "users": [{"name": "ann", "user": {"token": "t"}}],
            "contexts": contexts,
            "current-context": "here",
        }
        path.write_text(json.dumps(config))
        return path

    def close(self) -> None:
        self._closed = True
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    # --- what the server does -----------------------------------------------------------------------------------------

    def _tell(self, kind: str, run: Object) -> None:
        self._events.append((int(run["metadata"]["resourceVersion"]), kind, copy.deepcopy(run)))
        self.changed.notify_all()

    def events(self, namespace: str, name: str, version: int) -> Iterator[tuple[str, Object]]:
        """Events after ``version`` until the watches are cut."""
        if version < self._oldest:
            yield "ERROR", failure(410, "Expired", "too old resource version")
            return
        sent, epoch = version, self._epoch
        while epoch == self._epoch:
            new = [event for event in self._events if event[0] > sent]
            for at, kind, run in new:
                sent = at
                if (run["metadata"]["namespace"], run["metadata"]["name"]) == (namespace, name):
                    yield kind, run
            if not new:
                self.changed.wait(5)

    def lines(self, pod: str, follow: bool) -> Iterator[tuple[str, str]]:
        """A log's lines; when it is followed, until its pod has ended or is gone, or the connection is cut."""
        sent, epoch = 0, self._epoch
        while epoch == self._epoch:
            for line in self.logs[pod][sent:]:
                sent += 1
                yield line
            there = self.pods.get(("default", pod))
            ended = there is None or there["status"]["phase"] != "Running"
            if not follow or (ended and sent == len(self.logs[pod])):
                return
            self.changed.wait(5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ApiServer

    def do_GET(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        with self.api.changed:
            self.api.requests.append(f"{self.command} {self.path}")
            if any(fault(self) for fault in list(self.api.faults)):
                return
            parts = url.path.strip("/").split("/")
            if parts[:3] == ["apis", "selfevo.dev", "v1alpha1"]:
                self._runs(parts[3:], query, body)
            elif parts[:2] == ["api", "v1"] and parts[4] == "pods":
                self._pods(parts[5:], query)
            else:
                self.answer(404, "404 page not found\n")

    def _runs(self, parts: list[str], query: dict[str, str], body: Any) -> None:
        namespace = parts[1] if parts[0] == "namespaces" else None
        name = parts[3] if len(parts) > 3 else None
        if name is not None:
            run = self.api.runs.get((namespace or "", name))
            if run is None:
                message = f'selfevolutionruns.selfevo.dev "{name}" not found'
                self.answer(404, failure(404, "NotFound", message))
            elif self.command == "PATCH":
                changed = copy.deepcopy(run)
                changed["spec"] |= body["spec"]
                self.answer(200, self.api.put(changed) if changed != run else run)
            else:
                self.answer(200, run)
        elif "watch" in query:
            watched = query["fieldSelector"].removeprefix("metadata.name=")
            events = self.api.events(namespace or "", watched, int(query["resourceVersion"]))
            self._stream(json.dumps({"type": kind, "object": run}) + "\n" for kind, run in events)
        else:
            items = [run for (ns, _), run in self.api.runs.items() if namespace in (None, ns)]
            start, limit = int(query.get("continue", 0)), int(query.get("limit", 500))
            more = str(start + limit) if start + limit < len(items) else ""
            self.answer(200, {"metadata": {"continue": more}, "items": items[start : start + limit]})

    def _pods(self, parts: list[str], query: dict[str, str]) -> None:
        if parts:
            pod, follow = parts[0], query.get("follow") == "true"
            if ("default", pod) not in self.api.pods:
                self.answer(404, failure(404, "NotFound", f'pods "{pod}" not found'))
                return
            assert query["container"] == "trainer"
            since = query.get("sinceTime", "")[:19]  # a second's grain, as the real one has
            self._stream(
                (f"{stamp} " if query.get("timestamps") else "") + line + "\n"
                for stamp, line in self.api.lines(pod, follow)
                if stamp[:19] >= since
            )
        else:
            label, _, value = query["labelSelector"].partition("=")
            items = [pod for pod in self.api.pods.values() if pod["metadata"]["labels"].get(label) == value]
            self.answer(200, {"items": items})

    def answer(self, code: int, body: Object | str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response_only(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, pieces: Iterator[str]) -> None:
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                data = piece.encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def failure(code: int, reason: str, message: str) -> Object:
    """A metav1.Status."""
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@contextmanager
def serving() -> Iterator[ApiServer]:
    """An API server until the block ends."""
    server = ApiServer()
    try:
        yield server
    finally:
        server.close()
