"""Container images without a container engine: an OCI archive that `ctr image import` reads."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_image(
    path: Path,
    name: str,
    *,
    folders: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """An image of one layer. Paths are relative to its root; ``config`` is the OCI image's (Env, Cmd, ...)."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for link, target in (links or {}).items():
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for file, content in (files or {}).items():
            _add(tar, file, content)
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    content = layer.getvalue()
    packed = blob(content, "layer.v1.tar")
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [packed["digest"]]},
    }
    described = blob(json.dumps(image).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    whole = blob(json.dumps({**manifest, "config": described, "layers": [packed]}).encode(), "manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [{**whole, "annotations": {"io.containerd.image.name": name}}]}
    with tarfile.open(path, mode="w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", data)
    return path


def with_libraries(program: Path) -> dict[str, bytes]:
    """``program`` of this machine and the libraries that it needs, as files of an image."""
    output = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    paths = [program, *map(Path, re.findall(r"(/\S+) \(0x", output))]
    return {str(path).lstrip("/"): path.read_bytes() for path in paths}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755
    tar.addfile(entry, io.BytesIO(content))
