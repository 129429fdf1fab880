"""Who a bearer token is: the apiserver asks this webhook, so that a test can make users while the server runs."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Users:
    """Answers TokenReviews on loopback."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}
        handler = type("Handler", (_Handler,), {"known": self._known})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, name: str, groups: Sequence[str] = ()) -> str:
        """A token of the user ``name``; without a role it may do nothing."""
        token = secrets.token_hex(16)
        self._known[token] = {"username": name, "groups": [*groups, "system:authenticated"]}
        return token

    def write_config(self, path: Path) -> Path:
        """The kubeconfig with which the apiserver finds the webhook."""
        server = f"http://127.0.0.1:{self._server.server_address[1]}/"
        path.write_text(json.dumps(_kubeconfig({"server": server}, {}, {})))
        return path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    known: dict[str, dict[str, Any]]

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = self.known.get(review["spec"]["token"])
        review["status"] = {"authenticated": user is not None, **({"user": user} if user else {})}
        answer = json.dumps(review).encode()
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def write_kubeconfig(path: Path, server: str, token: str, ca: Path | None, namespace: str | None = None) -> Path:
    """A kubeconfig with one context."""
    cluster = {"server": server}
    if ca is not None and server.startswith("https"):
        cluster["certificate-authority"] = str(ca)
    context = {"namespace": namespace} if namespace else {}
    path.write_text(json.dumps(_kubeconfig(cluster, {"token": token}, context)))
    path.chmod(0o600)
    return path


def _kubeconfig(cluster: dict[str, str], user: dict[str, str], context: dict[str, str]) -> dict[str, Any]:
    # JSON is YAML.
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", **context}}],
        "current-context": "test",
    }
