"""An HTTP proxy in front of the apiserver, for what networks and apiservers do wrong, and for counting.

    proxy.inject(DropAfter(), verb="create", path="/jobs$")          the first Job is made and nobody hears of it
    proxy.inject(Answer(429, retry_after=1), times=3)                three answers, to whatever comes
    proxy.hook = lambda stage, request: ...                          called at each stage of each write
    proxy.end_watches("hold")                                        those that run now say nothing any more

The client speaks plain HTTP on loopback; its token goes on to the apiserver, and so does everything else.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from harness.cluster.controlplane import ControlPlane
from harness.cluster.faults import (
    Answer,
    BlackHole,
    Delay,
    DropAfter,
    DropBefore,
    Fault,
    Request,
    Rule,
    Truncate,
    WatchEnds,
    error_event,
)

Stage = Literal["before", "stored", "replied"]
"""Not sent to the apiserver yet; answered by it, and not passed on yet; passed on."""
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


class FaultProxy:
    """Passes requests on until it is stopped, and does wrong as it is set to."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.requests: list[Request] = []
        self.hook: Callable[[Stage, Request], object] = lambda *_: None
        """Called for writes that pass on. While it is, no other write arrives: who is killed and cut off in it will not
        have sent the next one. Truthy: this request, or its answer, goes no further."""
        self.decide: Callable[[Request], Fault | None] = lambda _: None
        """For what rules cannot say; asked first."""
        self._rules: list[Rule] = []
        self._write_numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._writing = threading.RLock()
        self._connections: set[_Handler] = set()
        self._tls = ssl.create_default_context(cafile=str(plane.ca))
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._listener = _Listener(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)

    @property
    def server(self) -> str:
        """What to write into a kubeconfig."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def start(self) -> FaultProxy:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
        self.cut_off()

    # -- what tests tell

    def inject(self, fault: Fault, **when: Any) -> Rule:
        """From now on; ``when`` are the fields of `Rule`. Of the rules that match, the first one added counts."""
        rule = Rule(fault, **when)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """No more faults by rules."""
        with self._lock:
            self._rules.clear()

    def cut_off(self) -> None:
        """Breaks every connection. What came by one of them and was not passed on yet never will be."""
        for connection in self._running():
            connection.cut_off()

    def end_watches(self, how: str = "drop", path: str = "", code: int = 410) -> int:
        """Ends watches that run now as `WatchEnds` says; their number."""
        ended = [c for c in self._running() if c.watching and re.search(path, c.watching)]
        for connection in ended:
            connection.end_watch(WatchEnds(how, code=code))
        return len(ended)

    # -- what tests read

    @property
    def writes(self) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if request.write is not None]

    def count(self, verb: str = "", path: str = "") -> int:
        with self._lock:
            return sum(verb in ("", r.verb) and bool(re.search(path, r.path)) for r in self.requests)

    def watching(self, path: str = "") -> int:
        """How many watches run now."""
        return sum(1 for c in self._running() if c.watching and re.search(path, c.watching))

    # -- for the connections

    def _running(self) -> list[_Handler]:
        with self._lock:
            return list(self._connections)

    def arrived(self, method: str, target: str) -> tuple[Request, Fault | None]:
        with self._lock:
            request = Request.of(len(self.requests) + 1, method, target)
            if method not in ("GET", "HEAD"):
                request.write = next(self._write_numbers)
            self.requests.append(request)
            rules = [rule for rule in self._rules if rule.applies(request)]
        return request, self.decide(request) or (rules[0].fault if rules else None)

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.plane.port, timeout=None, context=self._tls)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one of its own to the apiserver."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    proxy: FaultProxy

    def setup(self) -> None:
        super().setup()
        self.watching = ""
        """The path of the watch that runs on this connection."""
        self._dead = False
        self._held = False
        self._output = threading.Lock()
        self._behind = self.proxy.connect()
        with self.proxy._lock:
            self.proxy._connections.add(self)

    def finish(self) -> None:
        with self.proxy._lock:
            self.proxy._connections.discard(self)
        self._behind.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Tests count, they do not read."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command in ("GET", "HEAD"):
            return self._pass(*self.proxy.arrived(self.command, self.path), body)
        # In the gate: a write arrives after everything that its forerunner's hook did, and not if that cut it off.
        with self.proxy._writing:
            if self._dead:
                return None
            request, fault = self.proxy.arrived(self.command, self.path)
            if isinstance(fault, DropBefore) or (fault is None and self.proxy.hook("before", request)):
                return self.cut_off()
        return self._pass(request, fault, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _serve

    def _pass(self, request: Request, fault: Fault | None, body: bytes) -> None:
        match fault:
            case Answer(code, retry_after):
                headers = {"Content-Type": "application/json"}
                if retry_after is not None:
                    headers["Retry-After"] = str(retry_after)
                return self._reply(request, code, headers, json.dumps(fault.status).encode())
            case DropBefore():
                return self.cut_off()
            case BlackHole():
                return self._wait_until_the_client_leaves()
            case Delay(seconds):
                threading.Event().wait(seconds)
        if self._dead:
            return None
        try:
            answer = self._ask(body)
            if request.streams and answer.status == 200:
                request.code = 200
                return self._stream(request, answer, fault)
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return self.cut_off()  # as the apiserver, so the proxy
        request.code = answer.status
        if isinstance(fault, DropAfter):
            return self.cut_off()
        headers = dict(answer.getheaders())
        if isinstance(fault, Truncate):
            self._reply(request, answer.status, headers, content[: fault.size], len(content))
            return self.cut_off()
        if request.write is None:
            return self._reply(request, answer.status, headers, content)
        with self.proxy._writing:
            if self._dead or self.proxy.hook("stored", request):
                return self.cut_off()
            self._reply(request, answer.status, headers, content)
            self.proxy.hook("replied", request)
        return None

    def _ask(self, body: bytes) -> http.client.HTTPResponse:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        idle = self._behind.sock
        if idle is None or select.select([idle], [], [], 0)[0]:
            # The apiserver has closed it: a request on it would be lost, and nobody had asked for that.
            self._behind.close()
            self._behind = self.proxy.connect()
        self._behind.request(self.command, self.path, body=body or None, headers=headers)
        return self._behind.getresponse()

    def _reply(self, request: Request, code: int, headers: dict[str, str], content: bytes, length: int = -1) -> None:
        request.answered = code
        self.send_response_only(code)
        for name, value in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length < 0 else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    # -- watches

    def _stream(self, request: Request, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        end = fault if isinstance(fault, WatchEnds) else None
        self.close_connection = True
        request.answered = 200
        self.send_response_only(200)
        self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        self.watching = request.path
        threading.Thread(target=self._wait_until_the_client_leaves, daemon=True).start()
        events = 0
        with suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            while not self._dead:
                if end is not None and events >= end.after:
                    self.end_watch(end)
                    end = None
                line = answer.readline()
                if not line:
                    break
                events += 1
                self._chunk(line)
            if not self._held:
                self._chunk(b"")
        if self._held:
            self._wait_until_the_client_leaves()

    def _chunk(self, data: bytes) -> None:
        """An empty one is the last."""
        with self._output:
            if not self._held and not self._dead:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

    def end_watch(self, end: WatchEnds) -> None:
        if end.how == "drop":
            self.cut_off()
        elif end.how == "hold":
            self._held = True
        elif end.how == "error":
            with suppress(OSError):
                self._chunk(error_event(end.code))
                self._chunk(b"")
            self.cut_off()
        else:
            raise ValueError(f"a watch ends by drop, hold or error, not by {end.how!r}")

    def _wait_until_the_client_leaves(self) -> None:
        """Then the apiserver need not go on either."""
        with suppress(OSError):
            while self.connection.recv(1, socket.MSG_PEEK):
                threading.Event().wait(0.05)
        self.cut_off()

    def cut_off(self) -> None:
        """From any thread."""
        self._dead = True
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self._hang_up_behind()

    def _hang_up_behind(self) -> None:
        sock = self._behind.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(plane: ControlPlane) -> Iterator[FaultProxy]:
    """A proxy before the plane's apiserver, until the block ends."""
    proxy = FaultProxy(plane)
    try:
        yield proxy.start()
    finally:
        proxy.stop()
