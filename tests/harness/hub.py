"""A stand-in for the model hub on loopback: as much of its HTTP interface as a download takes.

    with hub({"tiny/model": {"main": folder}}) as running:      # HF_ENDPOINT=running.endpoint
        ...

What a revision says of a repository, the tree of its files, and each file, with the headers that the client checks.
A data set is named with the prefix of its kind: hub({"datasets/tiny/sums": {"main": folder}}).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import yaml

T = TypeVar("T")
Repositories = Mapping[str, Mapping[str, Path]]
"""owner/name, or datasets/owner/name -> revision -> the folder that it holds."""


@dataclass
class Hub:
    """A running stand-in."""

    endpoint: str
    repositories: Repositories
    broken: tuple[str, ...] = ()
    """Answer with 503 what begins with one of these: ("/",) is everything."""
    hang_up: tuple[str, ...] = ()
    """Close the connection on these."""
    refuse_unknown: int = 404
    """Status for a repository that is not there: 404, or 401 as the hub answers people without a token."""
    gated: tuple[str, ...] = ()
    """Repositories whose files are given to nobody: 403, as the hub answers who has not accepted the conditions."""
    refuse_all: int | None = None
    """Status for everything: 401, as the hub answers who comes with a token that has expired."""
    seen: list[str] = field(default_factory=list)
    """Method and path of each request."""

    def commit(self, repository: str, revision: str) -> tuple[str, Path] | None:
        """The commit that ``revision`` names (a branch, or a commit itself), and its files."""
        for name, folder in self.repositories.get(repository, {}).items():
            sha = hashlib.sha1(f"{repository}@{name}".encode()).hexdigest()
            if revision in (name, sha):
                return sha, folder
        return None


@contextmanager
def served(of: type[BaseHTTPRequestHandler], make: Callable[[str], T]) -> Iterator[T]:
    """What ``make`` returns for the address at which ``of`` answers, which has it as ``hub``, until the block ends."""
    handler = type("Handler", (of,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running = make(f"http://127.0.0.1:{server.server_address[1]}")
    handler.hub = running  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub(repositories: Repositories) -> AbstractContextManager[Hub]:
    """A hub with ``repositories``, until the block ends."""
    return served(_Handler, lambda address: Hub(address, repositories))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Tests read ``seen``."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.hub.hang_up and path.startswith(self.hub.hang_up):
            self.close_connection = True
        elif self.hub.refuse_all is not None:
            self._reply(self.hub.refuse_all, b'{"error": "Invalid credentials in Authorization header"}')
        elif self.hub.broken and path.startswith(self.hub.broken):
            self._reply(503, b"down")
        elif parts[:2] in (["api", "models"], ["api", "datasets"]) and len(parts) >= 6:
            repository = "/".join(parts[2:4] if parts[1] == "models" else parts[1:4])
            if parts[4] == "revision":
                self._revision(repository, "/".join(parts[5:]))
            elif parts[4] == "tree":
                self._tree(repository, parts[5], "/".join(parts[6:]))
            else:
                self._reply(404, b"no such page")
        elif parts[0] == "datasets" and len(parts) >= 6 and parts[3] == "resolve":
            self._file("/".join(parts[:3]), parts[4], "/".join(parts[5:]))
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._reply(404, b"no such page")

    def _revision(self, repository: str, revision: str) -> None:
        if (found := self._found(repository, revision)) is None:
            return
        sha, folder = found
        siblings = [{"rfilename": name} for name in _files(folder)]
        info = {"_id": "1", "id": repository.removeprefix("datasets/"), "sha": sha, "siblings": siblings, "tags": []}
        if repository.startswith("datasets/"):
            self._json(info | {"cardData": _card(folder), "gated": repository in self.hub.gated, "private": False})
        else:
            self._json(info | {"modelId": repository})

    def _tree(self, repository: str, revision: str, below: str = "") -> None:
        if (found := self._found(repository, revision)) is None:
            return
        files = _files(found[1])
        folders = {name.rpartition("/")[0] for name in files} - {""}
        if below and below not in folders:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        entries = [_entry(name, file) for name, file in files.items() if name.startswith(f"{below}/" if below else "")]
        self._json([{"type": "directory", "path": name, "size": 0, "oid": "0"} for name in sorted(folders)] + entries)

    def _file(self, repository: str, revision: str, name: str) -> None:
        if (found := self._found(repository, revision)) is None:
            return
        sha, folder = found
        if repository in self.hub.gated:
            self._reply(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        file = folder / name
        if file.is_file():
            self._reply(200, file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": sha})
        else:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})

    def _found(self, repository: str, revision: str) -> tuple[str, Path] | None:
        found = self.hub.commit(repository, revision)
        if found is None:
            known = repository in self.hub.repositories
            code = "RevisionNotFound" if known else "RepoNotFound"
            self._reply(404 if known else self.hub.refuse_unknown, b"", {"X-Error-Code": code})
        return found

    def _json(self, value: object) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> dict[str, Path]:
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in found}


def _entry(name: str, file: Path) -> dict[str, object]:
    size = file.stat().st_size
    entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": _etag(file)}
    return entry | ({"lfs": {"oid": _etag(file), "size": size, "pointerSize": 134}} if _is_large(file) else {})


def _card(folder: Path) -> dict[str, object]:
    """The YAML at the head of README.md."""
    card = folder / "README.md"
    text = card.read_text() if card.is_file() else ""
    return yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}


def _is_large(file: Path) -> bool:
    """Kept in LFS, where a file's name is its sha256."""
    return file.suffix in (".safetensors", ".bin", ".parquet")


def _etag(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha256(data).hexdigest() if _is_large(file) else hashlib.sha1(data).hexdigest()
