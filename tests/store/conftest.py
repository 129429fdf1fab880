"""A store of each kind, empty."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.hooks
import botocore.loaders
import botocore.session
import pytest

from harness.versitygw import REGION, S3Server
from selfevo_store import ObjectStore, open_store

OpenStore = Callable[..., ObjectStore]


@pytest.fixture(scope="session", autouse=True)
def _api_description_read_once() -> Iterator[None]:
    """boto3 reads its description of S3 anew for each session, a tenth of a second: here one reading serves all.

    It also inspects the arguments of each of its 130 handlers for each session: here once.
    """
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.hooks, "accepts_kwargs", functools.cache(botocore.hooks.accepts_kwargs))
        patch.setattr(
            botocore.session.Session,
            "_register_data_loader",
            lambda session: session._components.register_component("data_loader", loader),
        )
        yield


@pytest.fixture(params=["file", "s3"])
def open_fresh(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens an empty store: the same one at each call, with the arguments of the call."""
    if request.param == "file":
        uri = f"file://{tmp_path}/store"
        return lambda **arguments: open_store(uri, **arguments)
    server: S3Server = request.getfixturevalue("s3_server")
    uri = f"s3://{server.make_bucket()}/some/prefix"
    return lambda **arguments: open_store(uri, endpoint=server.endpoint, region=REGION, **arguments)


@pytest.fixture
def store(open_fresh: OpenStore) -> ObjectStore:
    return open_fresh()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB. Needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "selfevo-test", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
