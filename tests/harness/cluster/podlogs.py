"""The logs of pods, as a kubelet serves them to the API server: the one thing that the stand-in does not play."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from harness.cluster.controlplane import ControlPlane


class PodLogs:
    """``lines_of`` gives the lines of a pod, each with its time; ``asked`` keeps what was asked: pod and query."""

    def __init__(self, lines_of: Callable[[str], list[tuple[str, str]]]) -> None:
        self.lines_of = lines_of
        self.asked: list[tuple[str, dict[str, list[str]]]] = []


@contextmanager
def serving_logs(plane: ControlPlane, node: str, lines_of: Callable[[str], list[tuple[str, str]]]) -> Iterator[PodLogs]:
    """The node ``node``, which exists, serves logs until the block ends."""
    logs = PodLogs(lines_of)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"logs": logs}))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates = plane.folder / "certificates"
    context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    status = {
        "addresses": [{"type": "Hostname", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_address[1]}},
    }
    plane.admin.patch("nodes", node, {"status": status}, subresource="status")
    try:
        yield logs
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    logs: PodLogs

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        kind, _, pod, container = url.path.strip("/").split("/")
        query = parse_qs(url.query)
        assert (kind, container) == ("containerLogs", "trainer")
        self.logs.asked.append((pod, query))
        lines = self.logs.lines_of(pod)[-int(query["tailLines"][0]) :]
        text = "".join(f"{at} {line}\n" if "timestamps" in query else f"{line}\n" for at, line in lines)
        data = text.encode()[: int(query["limitBytes"][0])]
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""
