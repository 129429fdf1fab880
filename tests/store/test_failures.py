"""Each failure is one sentence with the field, its value and the remedy, and ends with the right exit code."""

from __future__ import annotations

import errno
import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from harness.artifacts import KEY, draft, write_files
from harness.ports import free_port
from harness.s3proxy import Faults, Request, proxied
from harness.versitygw import S3Server
from selfevo_contract.errors import ExitCode, SelfevoError
from selfevo_store import ObjectStore, commit, fetch, open_store, read_manifest, verify
from selfevo_store import s3 as s3_module

PREFIX = f"team/solver/{KEY}"
Act = Callable[[ObjectStore, Path], object]

ACTS: dict[str, Act] = {
    "commit": lambda store, tmp: commit(store, PREFIX, write_files(tmp / "out", {"a": b"1"}), draft()),
    "read_manifest": lambda store, tmp: read_manifest(store, PREFIX),
    "list": lambda store, tmp: store.list(PREFIX),
    "exists": lambda store, tmp: store.exists("key"),
    "upload": lambda store, tmp: store.upload_file(write_files(tmp / "out", {"a": b"1"})["a"], "key"),
    "download": lambda store, tmp: store.download_file("key", tmp / "in"),
    "delete": lambda store, tmp: store.delete_prefix("folder"),
}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)


@contextmanager
def fails(code: ExitCode, reason: str, *mentions: str) -> Iterator[None]:
    """Expects one sentence that mentions these."""
    with pytest.raises(SelfevoError) as caught:
        yield
    message = str(caught.value)
    assert (caught.value.exit_code, caught.value.reason) == (code, reason), message
    assert "\n" not in message
    assert len(message) < 500
    assert "; " in message, f"no remedy in: {message}"
    for mention in mentions:
        assert mention in message


# -- the folder ---------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path, tmp_path: Path) -> None:
    store = open_store(f"file://{small_disk}")
    store.put_bytes("old", b"1" * 600_000)
    files = write_files(tmp_path / "out", {"a": b"1", "large": b"2" * 600_000})
    full = (ExitCode.SERVICE, "DiskFull", f"storage.uri file://{small_disk}", "the disk is full", "free space")
    with fails(*full):
        store.put_bytes("new", b"2" * 600_000)
    with fails(*full):
        store.put_if_absent("new", b"2" * 600_000)
    with fails(*full):
        store.put_bytes("old", b"2" * 600_000)
    with fails(*full):
        commit(store, PREFIX, files, draft())
    assert [(info.key, info.size) for info in store.list("")] == [("old", 600_000)]
    assert [p for p in small_disk.rglob("*") if p.is_file()] == [small_disk / "old"]
    (small_disk / "old").unlink()
    assert commit(store, PREFIX, files, draft()).won


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no-cache"])
def test_a_fetch_to_a_full_disk_names_the_path(
    open_fresh: Callable[..., ObjectStore], small_disk: Path, tmp_path: Path, cached: bool
) -> None:
    store = open_fresh(cache_dir=small_disk / "cache" if cached else None)
    files = write_files(tmp_path / "out", {"large": b"2" * 2_000_000})
    manifest = commit(store, PREFIX, files, draft()).manifest
    dest = tmp_path / "in" if cached else small_disk / "in"
    with fails(ExitCode.SERVICE, "DiskFull", str(small_disk), "the disk is full"):
        fetch(store, PREFIX, manifest, dest)
    assert [path for path in small_disk.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_a_disk_that_fills_up_at_the_sync_is_full_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = open_store(f"file://{tmp_path}/store")
    monkeypatch.setattr(os, "fsync", full)
    with fails(ExitCode.SERVICE, "DiskFull", store.uri):
        store.put_if_absent("key", b"1")
    assert store.list("") == []


def test_a_read_only_file_system_is_an_input_error(small_disk: Path, tmp_path: Path) -> None:
    store = open_store(f"file://{small_disk}/store")
    first = commit(store, PREFIX, {}, draft())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for act in ("upload", "commit"):
        with fails(ExitCode.INPUT, "StoreInvalid", f"storage.uri file://{small_disk}/store", "read-only"):
            if act == "commit":
                commit(store, "other/solver/key", {}, draft())
            else:
                ACTS[act](store, tmp_path)
    assert read_manifest(store, PREFIX) == first.manifest
    with fails(ExitCode.INPUT, "StoreInvalid", f"{small_disk}/copy: the file system is read-only"):
        store.download_file(f"{PREFIX}/MANIFEST.json", small_disk / "copy")


@pytest.mark.parametrize("act", ["commit", "read_manifest", "exists", "list", "upload"])
def test_a_folder_of_somebody_else_is_an_input_error(tmp_path: Path, act: str) -> None:
    store = open_store(f"file://{tmp_path}/private/store")
    ACTS["commit"](store, tmp_path)
    write_files(tmp_path / "out", {"a": b"1"})
    for path in (tmp_path, tmp_path / "out", tmp_path / "out/a"):
        path.chmod(0o777)
    parents = [path for path in tmp_path.parents if path.stat().st_mode & 0o005 != 0o005]
    (tmp_path / "private").chmod(0)
    if os.getuid() == 0:
        if any(path != Path("/") and path.stat().st_uid != 0 for path in parents):
            pytest.skip(f"cannot open {parents} to another user")
        modes = [(path, path.stat().st_mode) for path in parents]
        for path in parents:
            path.chmod(0o755)
        os.seteuid(65534)
    try:
        with fails(ExitCode.INPUT, "StoreInvalid", f"storage.uri {store.uri}", "permission denied", "give uid"):
            ACTS[act](store, tmp_path)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
            for path, mode in modes:
                path.chmod(mode)
        (tmp_path / "private").chmod(0o700)


def test_a_file_system_without_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(f"file://{tmp_path}/store")
    with fails(ExitCode.INPUT, "ConditionalPutUnsupported", store.uri, "hard links"):
        commit(store, PREFIX, {}, draft())
    assert store.list("") == []


def test_a_root_that_is_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with fails(ExitCode.INPUT, "StoreInvalid", f"storage.uri file://{tmp_path}/file", "not a folder"):
        commit(open_store(f"file://{tmp_path}/file"), PREFIX, {}, draft())


# -- S3 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
def test_a_missing_bucket(s3_server: S3Server, tmp_path: Path, act: str) -> None:
    store = open_store("s3://no-such-bucket/x", endpoint=s3_server.endpoint)
    mentions = ("storage.uri s3://no-such-bucket/x", "no bucket 'no-such-bucket'", s3_server.endpoint, "create it")
    with fails(ExitCode.INPUT, "BucketNotFound", *mentions):
        ACTS[act](store, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "not-the-right-one")
    store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=s3_server.endpoint)
    mentions = (f"storage.uri {store.uri}", "AWS_ACCESS_KEY_ID", "storage.credentialsSecret")
    with fails(ExitCode.INPUT, "StoreCredentials", *mentions):
        ACTS[act](store, tmp_path)


def test_no_message_holds_the_secret(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3_server.make_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-words")
    for act in ACTS.values():
        with pytest.raises(SelfevoError) as caught:
            act(open_store(f"s3://{bucket}/x", endpoint=s3_server.endpoint), tmp_path)
        assert "very-secret-words" not in str(caught.value)


@pytest.mark.parametrize("left", [(), ("AWS_ACCESS_KEY_ID",)], ids=["none", "half"])
def test_no_credentials(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...]
) -> None:
    bucket = s3_server.make_bucket()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if name not in left:
            monkeypatch.delenv(name)
    with fails(ExitCode.INPUT, "StoreCredentials", f"storage.uri s3://{bucket}/x", "AWS_SECRET_ACCESS_KEY"):
        ACTS["commit"](open_store(f"s3://{bucket}/x", endpoint=s3_server.endpoint), tmp_path)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.usefixtures("s3_server")
def test_nobody_listens(tmp_path: Path, act: str) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    with fails(
        ExitCode.SERVICE, "StoreUnreachable", f"storage.endpoint {endpoint}", "(Connection refused)", "check the"
    ):
        ACTS[act](open_store("s3://bucket/x", endpoint=endpoint), tmp_path)


@pytest.mark.usefixtures("s3_server")
def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    endpoint = "http://store.invalid:9000"
    with fails(ExitCode.SERVICE, "StoreUnreachable", f"storage.endpoint {endpoint}"):
        ACTS["read_manifest"](open_store("s3://bucket/x", endpoint=endpoint), tmp_path)


@pytest.mark.usefixtures("s3_server")
def test_a_store_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_READ_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with fails(ExitCode.SERVICE, "StoreUnreachable", f"storage.endpoint {endpoint}"):
            ACTS["read_manifest"](open_store("s3://bucket/x", endpoint=endpoint), tmp_path)
        assert time.monotonic() - started < 60  # its own patience would be three times that


PAGE = b"<!DOCTYPE html><html><head><meta charset=utf-8><title>Sign &amp; in</title></head><body>...</html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
FOREIGN: dict[str, tuple[int, dict[str, str], bytes, str]] = {
    "301": (301, {"Location": "/login"}, b"", "redirects (301) to '/login'"),
    "302": (302, {"Location": "https://sso.example.com/"}, PAGE, "redirects (302) to 'https://sso.example.com/'"),
    "307": (307, {"Location": "/"}, b"", "redirects (307) to '/'"),
    "308": (308, {}, b"", "redirects (308) to a place that it does not name"),
    "404 page": (404, HTML, PAGE, "answers 404 with a web page ('Sign & in')"),
    "404 empty": (404, {}, b"", "answers 404 with an empty body"),
    "404 json": (404, {"Content-Type": "application/json"}, b'{"error": 1}', "application/json ('{\"error\": 1}')"),
    "405 page": (405, HTML, PAGE, "answers 405 with a web page"),
    "413 page": (413, HTML, PAGE, "a proxy in front of the store takes no requests of this size"),
    "200 page": (200, HTML, PAGE, "answers 200 with a web page"),
    "200 page of XML": (200, HTML, b"<html><body>It works!</body></html>", "answers 200 with a web page"),
    "200 json": (200, {"Content-Type": "application/json"}, b"{}", "answers 200 with"),
    "204": (204, {}, b"", "answers 204 with an empty body"),
}
"""What is no S3 store: its status, headers and body, and what its message must have."""


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that answers so to everything: its address, and the methods that it was asked with."""
    asked: list[str] = []

    class Always(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            asked.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Always) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_s3_store_is_reported_at_once(tmp_path: Path, case: str) -> None:
    *answer, expected = FOREIGN[case]
    with answering(*answer) as (endpoint, asked):
        for act in ACTS.values():
            asked.clear()
            store = open_store("s3://bucket/x", endpoint=endpoint)
            # The answer to HEAD has no body, so that a page cannot be distinguished from S3's own refusal by it.
            heads = case in ("405 page", "413 page")
            with pytest.raises(SelfevoError) as caught:
                act(store, tmp_path)
            assert (caught.value.exit_code, caught.value.reason) == (ExitCode.INPUT, "StoreInvalid")
            assert len(asked) <= 2, asked
            if not (heads and "HEAD" in asked) and not (answer[0] == 200 and "HEAD" in asked):
                assert expected in str(caught.value)
            if "HEAD" not in asked:
                assert str(caught.value).startswith(f"storage.endpoint {endpoint}: ")
            assert "\n" not in str(caught.value)
            assert "; " in str(caught.value)


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("region", [True, False])
def test_a_bucket_elsewhere_is_reported_with_what_to_set(tmp_path: Path, region: bool) -> None:
    body = b"<Error><Code>PermanentRedirect</Code><Endpoint>s3.eu-1.example.com</Endpoint></Error>"
    headers = {"Content-Type": "application/xml", **({"x-amz-bucket-region": "eu-1"} if region else {})}
    with answering(301, headers, body) as (endpoint, asked):
        with fails(ExitCode.INPUT, "StoreInvalid", "storage.region", "" if region else "s3.eu-1.example.com"):
            open_store("s3://bucket/x", endpoint=endpoint).list("x")
        assert len(asked) <= 2


@pytest.mark.usefixtures("s3_server")
def test_a_gateway_that_fails_with_a_page_is_asked_again(tmp_path: Path) -> None:
    with answering(502, HTML, PAGE) as (endpoint, asked), fails(ExitCode.SERVICE, "StoreFailed", "502"):
        open_store("s3://bucket/x", endpoint=endpoint).list("x")
    assert len(asked) == 4


def test_a_bucket_that_wants_checksums(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one with Object Lock does. The field helps, and so does the SDK's own variable; the field goes before it."""
    words = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"

    def locked(request: Request) -> tuple[int, str] | None:
        has = any(name == "content-md5" or name.startswith("x-amz-checksum-") for name in request.headers)
        has = has or "x-amz-trailer" in request.headers
        return (400, "InvalidRequest") if request.method == "PUT" and not has else None

    with proxied(s3_server, Faults(answer=locked, message=words)) as proxy:
        uri = f"s3://{s3_server.make_bucket()}/x"
        files = write_files(tmp_path / "out", {"a": b"1", "large": b"2" * 6_000_000})

        def committed(**arguments: Any) -> bool:
            store = open_store(uri, endpoint=proxy.endpoint, **arguments)
            store.part_size = 5_500_000  # type: ignore[attr-defined]
            prefix = f"{PREFIX}{len(proxy.seen)}"
            return commit(store, prefix, files, draft()).won and verify(store, prefix) == []

        with fails(ExitCode.INPUT, "StoreInvalid", f"storage.uri {uri}", "storage.checksum: whenSupported"):
            committed()
        assert committed(checksum="whenSupported")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_SUPPORTED")
        assert committed()
        with fails(ExitCode.INPUT, "StoreInvalid", "storage.checksum: whenSupported"):
            committed(checksum="whenRequired")
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "sometimes")
        with fails(ExitCode.INPUT, "StoreInvalid", "sometimes", "storage.checksum"):
            committed()


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://bad host:1"])
def test_an_endpoint_that_is_no_address(endpoint: str) -> None:
    with pytest.raises(SelfevoError, match=r"storage\.endpoint") as caught:
        open_store("s3://bucket/x", endpoint=endpoint).list("")
    assert caught.value.exit_code is ExitCode.INPUT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (500, ExitCode.SERVICE, "StoreFailed"),
        (503, ExitCode.SERVICE, "StoreFailed"),
        (429, ExitCode.SERVICE, "StoreFailed"),
        (507, ExitCode.SERVICE, "DiskFull"),
        (403, ExitCode.INPUT, "StoreCredentials"),
        (400, ExitCode.INPUT, "StoreInvalid"),
    ],
)
@pytest.mark.parametrize("act", ["commit", "upload", "read_manifest", "exists"])
def test_what_the_store_answers(
    s3_server: S3Server, tmp_path: Path, status: int, code: ExitCode, reason: str, act: str
) -> None:
    with proxied(s3_server, Faults(answer=lambda _: status)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        with fails(code, reason, f"storage.uri {store.uri}"):
            ACTS[act](store, tmp_path)


def test_a_store_that_stumbles_is_asked_again(s3_server: S3Server, tmp_path: Path) -> None:
    turn = iter(range(10**6))
    with proxied(s3_server, Faults(answer=lambda _: 503 if next(turn) % 2 == 0 else None)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        assert commit(store, PREFIX, write_files(tmp_path, {"a": b"1", "b": b"2"}), draft()).won
        assert verify(store, PREFIX) == []
