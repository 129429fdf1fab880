"""A stand-in for the hub on loopback that is written to: as much of its HTTP interface as a publication takes.

    with writable_hub({"acme-token": ("acme",)}) as running:      # HF_ENDPOINT=running.endpoint
        ...

Repositories are made, have branches, and are committed to with large files beside (git LFS's basic transfer). A private
one is not there for who has no right to it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.hub import served

LARGE = (".safetensors", ".parquet")
ATTRIBUTES = {".gitattributes": b"*.safetensors filter=lfs\n"}


@dataclass
class Branch:
    """The files of a branch, and how often it was committed to."""

    files: dict[str, bytes]
    commits: int = 1

    def sha(self, name: str) -> str:
        return hashlib.sha1(f"{name}/{self.commits}".encode()).hexdigest()


@dataclass
class Repository:
    """A model, or a data set."""

    private: bool
    branches: dict[str, Branch] = field(default_factory=lambda: {"main": Branch(dict(ATTRIBUTES))})

    def files(self, branch: str = "main") -> dict[str, bytes]:
        """What was put there."""
        return {name: data for name, data in self.branches[branch].files.items() if name not in ATTRIBUTES}


@dataclass
class WritableHub:
    """A running stand-in."""

    endpoint: str
    rights: Mapping[str, Sequence[str]]
    """Token -> the owners for which it may write."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    """models/owner/name or datasets/owner/name."""
    large: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, list[int]] = field(default_factory=dict)
    """What the next requests are answered with, whose method and path hold this text."""
    moved: bool = False
    """Somebody else commits to a branch just before each commit."""
    seen: list[str] = field(default_factory=list)

    def put(self, repository: str, name: str, data: bytes, *, private: bool = True) -> None:
        """A file that a person has put there."""
        made = self.repositories.setdefault(repository, Repository(private))
        made.branches["main"].files[name] = data
        made.branches["main"].commits += 1


def writable_hub(rights: Mapping[str, Sequence[str]]) -> AbstractContextManager[WritableHub]:
    """A hub without repositories, until the block ends."""
    return served(_Handler, lambda address: WritableHub(address, rights))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: WritableHub

    def log_message(self, format: str, *args: object) -> None:
        """Tests read ``seen``."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.hub.seen.append(asked)
        for text, statuses in self.hub.refuse.items():
            if text in asked and statuses:
                self._json({"error": "by order"}, statuses.pop(0))
                return
        parts = path.strip("/").split("/")
        match [self.command, *parts]:
            case ["POST", "api", "repos", "create"]:
                self._create(json.loads(body))
            case ["POST", "api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["PUT", "large", oid]:
                self.hub.large[oid] = body
                self._json({})
            case ["GET", "api", kind, owner, name]:
                self._info(f"{kind}/{owner}/{name}", "main")
            case ["GET", "api", kind, owner, name, "revision", branch]:
                self._info(f"{kind}/{owner}/{name}", branch)
            case ["POST", "api", kind, owner, name, action, branch] if self._may(f"{kind}/{owner}/{name}"):
                self._act(action, f"{kind}/{owner}/{name}", branch, body)
            case ["POST", *where] if where[-3:] == ["lfs", "objects", "batch"]:
                self._batch(json.loads(body))
            case _:
                self._json({"error": "no such page"}, 404)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    @property
    def _owners(self) -> Sequence[str]:
        return self.hub.rights.get(self.headers.get("Authorization", "").removeprefix("Bearer "), ())

    def _may(self, repository: str) -> bool:
        known = repository in self.hub.repositories
        return known and repository.split("/")[1] in self._owners

    def _act(self, action: str, name: str, branch: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        match action:
            case "branch":
                self._branch(repository, branch)
            case "preupload":
                self._preupload(json.loads(body)["files"])
            case "commit":
                self._commit(name.removeprefix("models/"), repository, branch, body)
            case _:
                self._json({"error": "no such page"}, 404)

    def _create(self, asked: Mapping[str, Any]) -> None:
        name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        if asked["organization"] not in self._owners:
            self._json({"error": "you have no right to create a repository there"}, 403)
        elif name in self.hub.repositories:
            self._json({"error": "it is there already", "url": f"{self.hub.endpoint}/{name}"}, 409)
        else:
            self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
            self._json({"url": f"{self.hub.endpoint}/{name.removeprefix('models/')}"})

    def _info(self, repository: str, branch: str) -> None:
        found = self.hub.repositories.get(repository)
        if found is None or (found.private and repository.split("/")[1] not in self._owners):
            self._json({}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        if branch not in found.branches:
            self._json({}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        there = found.branches[branch]
        name = repository.partition("/")[2]
        siblings = [_sibling(name, data) for name, data in sorted(there.files.items())]
        info = {"_id": "1", "id": name, "modelId": name, "sha": there.sha(branch), "private": found.private}
        self._json(info | {"siblings": siblings, "tags": [], "gated": False})

    def _branch(self, repository: Repository, branch: str) -> None:
        if branch in repository.branches:
            self._json({"error": "it is there already"}, 409)
            return
        repository.branches[branch] = Branch(dict(repository.branches["main"].files))
        self._json({})

    def _preupload(self, files: Sequence[Mapping[str, Any]]) -> None:
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"} for file in files
        ]
        self._json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})

    def _batch(self, asked: Mapping[str, Any]) -> None:
        objects = []
        for each in asked["objects"]:
            to = {"upload": {"href": f"{self.hub.endpoint}/large/{each['oid']}"}}
            objects.append({**each, **({} if each["oid"] in self.hub.large else {"actions": to})})
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        there = repository.branches[branch]
        there.commits += self.hub.moved
        entries = [json.loads(line) for line in body.splitlines()]
        [header] = [line["value"] for line in entries if line["key"] == "header"]
        if header.get("parentCommit") not in (None, there.sha(branch)):
            self._json({"error": "the branch has moved"}, 412)
            return
        for line in entries:
            if line["key"] == "file":
                there.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                there.files[line["value"]["path"]] = self.hub.large[line["value"]["oid"]]
        there.commits += 1
        oid = there.sha(branch)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"})

    def _json(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _sibling(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    sha256 = hashlib.sha256(data).hexdigest()
    large = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return found | ({"lfs": large, "blobId": "pointer"} if name.endswith(LARGE) else {})
