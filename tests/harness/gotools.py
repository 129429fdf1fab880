"""Builds a Go program once, from its module, into a cache outside the checkout.

The cache is ``~/.cache/selfevo`` or what ``SELFEVO_CACHE`` says; a program lies at ``bin/<name>-<version>/<binary>``.
Go finds modules as it is set up on this machine. Test processes that want the same program at the same time wait for
the one that builds it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUILD_LIMIT_S = 1800.0


class ToolUnavailable(Exception):
    """This machine cannot have the tool (no Go): the tests that need it skip with this message."""


class ToolBuildFailed(Exception):
    """Go is here and the build failed: an error to see, not one to skip."""


@dataclass(frozen=True)
class GoTool:
    """One module at one version, and the programs built from it.

    ``GoTool("versitygw", "v1.8.0", "github.com/versity/versitygw", ("github.com/versity/versitygw/cmd/versitygw",))``
    """

    name: str
    version: str
    module: str
    packages: tuple[str, ...]
    """Import paths of the programs; each binary is called after the last element of its path."""
    tags: tuple[str, ...] = ()
    ldflags: str = "-s -w"
    go_mod: str = ""
    """Further lines for go.mod, such as ``replace`` directives."""
    binary: str = ""
    """What the one program is called, where the last element of its path is no name."""

    @property
    def binaries(self) -> tuple[str, ...]:
        if self.binary:
            return (self.binary,)
        return tuple(package.rsplit("/", 1)[-1] for package in self.packages)


def cache_dir() -> Path:
    """Where built tools and other things worth keeping between checkouts lie."""
    return Path(os.environ.get("SELFEVO_CACHE") or Path.home() / ".cache" / "selfevo")


def ensure(tool: GoTool) -> dict[str, Path]:
    """The tool's programs by name; builds them if the cache lacks one.

    Raises:
        ToolUnavailable: when there is no Go here to build with.
        ToolBuildFailed: when Go could not build it, with the end of Go's output.
    """
    folder = cache_dir() / "bin" / f"{tool.name}-{tool.version}"
    programs = {binary: folder / binary for binary in tool.binaries}
    if _present(programs):
        return programs
    go = shutil.which("go")
    if go is None:
        raise ToolUnavailable(f"{tool.name} {tool.version} is not in {folder} and there is no Go to build it with")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not _present(programs):  # else another process built it while this one waited
            _build(go, tool, folder)
    return programs


def _present(programs: dict[str, Path]) -> bool:
    return all(os.access(program, os.X_OK) for program in programs.values())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the file's lock; another process that wants it waits."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(go: str, tool: GoTool, folder: Path) -> None:
    go_version = _run([go, "env", "GOVERSION"], folder).removeprefix("go").split(" ", 1)[0]
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as build:
        work = Path(build)
        (work / "go.mod").write_text(
            f"module selfevo.test/{tool.name}\n\ngo {go_version}\n\nrequire {tool.module} {tool.version}\n{tool.go_mod}"
        )
        for package, binary in zip(tool.packages, tool.binaries, strict=True):
            flags = ["-mod=mod", "-trimpath", f"-ldflags={tool.ldflags}", f"-tags={','.join(tool.tags)}"]
            _run([go, "build", *flags, "-o", str(work / binary), package], work)
        for binary in tool.binaries:
            (work / binary).replace(folder / binary)


def _run(command: list[str], cwd: Path) -> str:
    # GOTOOLCHAIN=local: a module that asks for a newer Go fails with a sentence instead of fetching a compiler.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise ToolBuildFailed(f"{' '.join(command)} took more than {BUILD_LIMIT_S:.0f} s") from error
    if done.returncode != 0:
        raise ToolBuildFailed(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout.strip()
