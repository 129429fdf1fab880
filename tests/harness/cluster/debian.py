"""Programs from Debian packages, unpacked into the cache and not installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from harness.gotools import ToolUnavailable, cache_dir

NODE_PACKAGES = ("containerd", "runc", "containernetworking-plugins")


def unpacked(packages: tuple[str, ...] = NODE_PACKAGES) -> Path:
    """The folder under which the packages' ``usr`` lies; downloads them if it is not there.

    Raises:
        ToolUnavailable: when this is no Debian, or its archive cannot be reached.
    """
    folder = cache_dir() / "debian" / "-".join(packages)
    if folder.is_dir():
        return folder
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise ToolUnavailable(f"{', '.join(packages)} come as Debian packages, and there is no apt-get or dpkg here")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():  # else another process fetched them while this one waited
            _fetch(packages, folder)
    return folder


def _fetch(packages: tuple[str, ...], folder: Path) -> None:
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    (draft / "archives").mkdir(parents=True)
    try:
        download = ["apt-get", "download", "--quiet", *packages]
        if _run(download, draft / "archives").returncode:
            _run(["apt-get", "update", "--quiet"], draft)  # the lists may be missing or old
            done = _run(download, draft / "archives")
            if done.returncode:
                raise ToolUnavailable(f"apt-get cannot download {', '.join(packages)}: {done.stderr.strip()[-300:]}")
        for archive in (draft / "archives").glob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, draft / "root"], check=True)
        (draft / "root").rename(folder)
    finally:
        shutil.rmtree(draft)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
