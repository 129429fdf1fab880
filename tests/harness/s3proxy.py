"""An HTTP proxy in front of an S3 server, for what networks and stores do wrong: it loses requests, loses replies, and
takes headers away. It also counts, for tests that say what may not be asked again."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.versitygw import REGION, S3Server


@dataclass(frozen=True)
class Request:
    """One request as it went through."""

    method: str
    path: str
    """With the query."""
    headers: dict[str, str]
    """Names in lower case."""


def _never(*_: Any) -> bool:
    return False


@dataclass
class Faults:
    """What the proxy does wrong. Both are called from many threads."""

    lose_request: Callable[[Request], bool] = _never
    """Close the connection and tell the server nothing?"""
    lose_reply: Callable[[Request, int], bool] = _never
    """The server has answered with this status: close the connection and tell the client nothing?"""
    strip: frozenset[str] = frozenset()
    """Headers (lower case) that the server does not get to see; the request is signed anew without them."""
    answer: Callable[[Request], int | tuple[int, str] | None] = lambda _: None
    """Answer with this status, or status and S3 error code, in place of the server?"""
    message: str = "by the proxy"
    """What such an answer with a code says."""


@dataclass
class Proxy:
    """A running proxy."""

    endpoint: str
    faults: Faults
    seen: list[Request] = field(default_factory=list)

    def count(self, method: str, pattern: str = "") -> int:
        """How many requests with this method had a path in which ``pattern`` is found."""
        return sum(1 for r in list(self.seen) if r.method == method and re.search(pattern, r.path))


@contextmanager
def proxied(server: S3Server, faults: Faults | None = None) -> Iterator[Proxy]:
    """A proxy before ``server``, until the block ends."""
    handler = type("Handler", (_Handler,), {"server_behind": server})
    listener = _Listener(("127.0.0.1", 0), handler)
    proxy = Proxy(f"http://127.0.0.1:{listener.server_address[1]}", faults or Faults())
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server_behind: S3Server
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self._behind = http.client.HTTPConnection("127.0.0.1", self.server_behind.port, timeout=60)

    def finish(self) -> None:
        self._behind.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Tests count, they do not read."""

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        faults = self.proxy.faults
        self.proxy.seen.append(request)
        if faults.lose_request(request):
            return self._hang_up()
        instead = faults.answer(request)
        if instead is not None:
            status, code = instead if isinstance(instead, tuple) else (instead, "")
            content = f"<Error><Code>{code}</Code><Message>{faults.message}</Message></Error>" if code else ""
            return self._reply(status, {}, content.encode())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
        if faults.strip & request.headers.keys():
            headers = self._signed_anew(headers, body)
        self._behind.request(self.command, self.path, body=body, headers=headers)
        answer = self._behind.getresponse()
        got = answer.read()
        if faults.lose_reply(request, answer.status):
            return self._hang_up()
        return self._reply(answer.status, dict(answer.getheaders()), got)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

    def _reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers.items():
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _signed_anew(self, headers: dict[str, str], body: bytes) -> dict[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        unsigned = ("authorization", "x-amz-date", "x-amz-content-sha256")
        kept = {
            name: value
            for name, value in headers.items()
            if name.lower() not in self.proxy.faults.strip and name.lower() not in unsigned
        }
        request = AWSRequest(self.command, f"http://{self.headers['Host']}{self.path}", headers=kept, data=body)
        keys = Credentials(self.server_behind.access_key, self.server_behind.secret_key)
        S3SigV4Auth(keys, "s3", REGION).add_auth(request)
        return dict(request.headers.items())
