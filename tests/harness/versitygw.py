"""A real S3 server for tests: versitygw over a folder, on loopback."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from harness.gotools import GoTool, ensure
from harness.ports import free_port, wait_for_port

VERSITYGW = GoTool(
    name="versitygw",
    version="v1.8.0",
    module="github.com/versity/versitygw",
    packages=("github.com/versity/versitygw/cmd/versitygw",),
)
REGION = "us-east-1"


@dataclass
class S3Server:
    """A running server and the keys to it."""

    port: int
    access_key: str
    secret_key: str
    folder: Path
    """Where the buckets lie as folders, the objects in them as files."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3's own chain needs to find the keys, and nothing else of this machine."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self) -> Any:
        """A plain boto3 client, for what a test does behind the store's back."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def make_bucket(self) -> str:
        """A new bucket with a name of its own."""
        name = f"test-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """A server over ``folder``, until the block ends.

    Raises:
        ToolUnavailable: when versitygw is not in the cache and there is no Go to build it with.
    """
    program = ensure(VERSITYGW)["versitygw"]
    buckets = folder / "buckets"
    buckets.mkdir(parents=True)
    log = folder / "versitygw.log"
    for _ in range(3):  # a free port may be taken by somebody else before the server has it
        server = S3Server(free_port(), f"key{secrets.token_hex(4)}", secrets.token_hex(16), buckets)
        environment = {
            "PATH": os.environ["PATH"],
            "ROOT_ACCESS_KEY": server.access_key,
            "ROOT_SECRET_KEY": server.secret_key,
        }
        command = [str(program), "--quiet", "--port", f"127.0.0.1:{server.port}", "posix", str(buckets)]
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
        try:
            if wait_for_port(server.port, partial(_is_running, process)):
                yield server
                return
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise RuntimeError(f"versitygw did not start:\n{log.read_text(errors='replace')[-2000:]}")
