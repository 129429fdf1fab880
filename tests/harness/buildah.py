"""Images built from the Dockerfile by buildah, with a root of Debian's in place of the base image.

buildah, debootstrap and what they need are Debian packages, unpacked into the cache and not installed: they run in a
mount namespace of their own, laid over this machine's /usr and /etc, so that nothing of theirs is left behind. The
store of layers is kept in the cache; a build begins with the first step that has changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cluster import debian
from harness.gotools import ToolUnavailable, cache_dir

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "buildah",
    "libgpgme11",
    "libsubid4",
    "golang-github-containers-common",
    "golang-github-containers-image",
    "debootstrap",
)
BASE = "localhost/base"
"""Debian bookworm with its Python 3.11 where python:3.11-slim-bookworm has it."""
STORE_LIMIT_BYTES = 4 << 30
LIMIT_S = 1200.0
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

_INSIDE = """
set -e
mount -t overlay -o lowerdir="$PACKAGES/usr:/usr" selfevo-test /usr
mount -t overlay -o lowerdir="$PACKAGES/etc:/etc" selfevo-test /etc
mount -t tmpfs selfevo-test /run
mkdir -p "$STORE/var"
mount --bind "$STORE/var" /var/lib
export CONTAINERS_STORAGE_CONF=$STORE/storage.conf BUILDAH_ISOLATION=chroot
"""
_RUN = """
container=$(buildah from --pull-never "$1"); shift
trap 'buildah umount "$container" >/dev/null; buildah rm "$container" >/dev/null' EXIT
mkdir /run/root
mount --bind "$(buildah mount "$container")" /run/root
mount -o remount,bind,ro /run/root
mount -t proc selfevo-test /run/root/proc
mount -t tmpfs -o mode=1777 selfevo-test /run/root/tmp
rc=0
env -i "${VARIABLES[@]}" "$(command -v chroot)" --userspec="$USERSPEC" /run/root "$@" || rc=$?
exit $rc
"""


@dataclass(frozen=True)
class Builder:
    """buildah with a store that holds `BASE`."""

    packages: Path
    store: Path

    def buildah(self, *arguments: str | Path) -> str:
        """What buildah prints. Raises with the end of its output when it fails."""
        done = self._inside('exec buildah "$@"', *arguments)
        if done.returncode != 0:
            raise RuntimeError(f"buildah {' '.join(map(str, arguments))}:\n{(done.stdout + done.stderr)[-6000:]}")
        return done.stdout.strip()

    def build(self, target: str, **arguments: str) -> str:
        """Builds a target of the Dockerfile; the image's name."""
        name = f"localhost/selfevo-{target}"
        given = {"SLIM_IMAGE": BASE, "SLIM_DIGEST": self.digest(BASE), **arguments}
        build_args = [f"--build-arg={key}={value}" for key, value in given.items()]
        self.buildah("build", "--layers", "--format=oci", f"--target={target}", *build_args, f"--tag={name}", ROOT)
        return name

    def digest(self, name: str) -> str:
        return self.buildah("images", "--format", "{{.Digest}}", name).splitlines()[0]

    def config(self, name: str) -> dict[str, Any]:
        """The image's configuration, as a container runtime reads it."""
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
        return found

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """``command`` as the image's user, with its environment, on a read-only root; only /tmp can be written."""
        config = self.config(name)
        variables = {"VARIABLES": config["Env"], "USERSPEC": config["User"]}
        return self._inside(_RUN, name, *command, arrays=variables)

    def _inside(
        self, script: str, *arguments: str | Path, arrays: Mapping[str, str | Sequence[str]] | None = None
    ) -> subprocess.CompletedProcess[str]:
        setting = "".join(f"{name}=({_quoted(value)})\n" for name, value in (arrays or {}).items())
        command = ["unshare", "--mount", "--propagation", "private", "nice", "bash", "-c", _INSIDE + setting + script]
        return subprocess.run(
            [*command, "buildah", *map(str, arguments)],
            env={**os.environ, "PACKAGES": str(self.packages), "STORE": str(self.store)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )


def _quoted(value: str | Sequence[str]) -> str:
    values = [value] if isinstance(value, str) else value
    return " ".join("'" + item.replace("'", "'\\''") + "'" for item in values)


@contextmanager
def builder() -> Iterator[Builder]:
    """A builder, alone with its store until the block ends.

    Raises:
        ToolUnavailable: this machine cannot build images: the reason.
    """
    if os.getuid() != 0:
        raise ToolUnavailable("building an image needs root, for mounts and for chroot")
    packages = debian.unpacked(PACKAGES)
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = _base(packages, folder / "bookworm")
        made = Builder(packages, folder / "store")
        if _size(made.store) > STORE_LIMIT_BYTES:
            shutil.rmtree(made.store)
        if not made.store.is_dir():
            _fill(made, base)
        yield made


def _fill(made: Builder, base: Path) -> None:
    try:
        made.store.mkdir()
        paths = {"graphroot": made.store / "layers", "runroot": "/run/containers"}
        lines = "".join(f'{name} = "{path}"\n' for name, path in paths.items())
        (made.store / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\n{lines}')
        if made._inside("exec buildah images").returncode != 0:
            raise ToolUnavailable("buildah cannot mount overlays here")
        container = made.buildah("from", "scratch")
        made.buildah("copy", "--quiet", container, base, "/")
        # As a company's base image has it: where its own authority is, and that uv reads it there.
        made.buildah("config", "--env", f"SSL_CERT_FILE={_CERTIFICATES}", container)
        made.buildah("commit", "--rm", "--quiet", container, BASE)
    except BaseException:
        shutil.rmtree(made.store, ignore_errors=True)
        raise


def _base(packages: Path, folder: Path) -> Path:
    """A fresh root of Debian's with Python, made once."""
    if folder.is_dir():
        return folder
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        done = subprocess.run(
            [
                packages / "usr/sbin/debootstrap",
                *("--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm"),
                draft,
            ],
            env={**os.environ, "DEBOOTSTRAP_DIR": str(packages / "usr/share/debootstrap")},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        if done.returncode != 0:
            raise ToolUnavailable(f"debootstrap could not make a root: {done.stdout[-300:]}")
        for name in ("python", "python3", "python3.11"):
            (draft / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
        shutil.rmtree(draft / "var/cache/apt")
        shutil.rmtree(draft / "var/lib/apt/lists")
        if _CERTIFICATES.is_file():
            shutil.copy(_CERTIFICATES, draft / _CERTIFICATES.relative_to("/"))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _size(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    done = subprocess.run(["du", "--summarize", "--bytes", folder], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])
