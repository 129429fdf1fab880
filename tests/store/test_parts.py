"""Large objects in parts: what arrives is one object, whole and in order, whatever happens to a part."""

from __future__ import annotations

import io
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ResponseStreamingError
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum

from harness.versitygw import S3Server
from selfevo_contract.errors import InputError, ServiceError
from selfevo_store import open_store
from selfevo_store.digests import digest_of_bytes
from selfevo_store.s3 import S3Store
from selfevo_store.s3_parts import PARTS_AT_ONCE, in_larger_pieces, read_ahead

CONTENT = random.Random(3).randbytes(100_000)
PARTS = 10


@pytest.fixture
def store(s3_server: S3Server) -> S3Store:
    opened = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=s3_server.endpoint)
    assert isinstance(opened, S3Store)
    opened.part_size = len(CONTENT) // PARTS
    opened.put_bytes("key", CONTENT)
    return opened


def spoil(store: S3Store, change: Callable[[int, dict[str, Any]], None]) -> None:
    """Has ``change`` see where each part begins that is got, and the answer, before the store does."""
    get = store._client.get_object

    def get_object(**arguments: Any) -> dict[str, Any]:
        response: dict[str, Any] = get(**arguments)
        change(int(re.findall(r"\d+", arguments["Range"])[0]), response)
        return response

    store._client.get_object = get_object


@pytest.mark.parametrize("size", [0, 1, 9_999, 10_000, 10_001, 20_000, 99_999])
def test_objects_of_any_size_come_down_whole(store: S3Store, tmp_path: Path, size: int) -> None:
    store.put_bytes("sized", CONTENT[:size])
    assert store.download_file("sized", tmp_path / "copy") == digest_of_bytes(CONTENT[:size])
    assert (tmp_path / "copy").read_bytes() == CONTENT[:size]


def test_a_part_that_breaks_off_is_got_again(store: S3Store, tmp_path: Path) -> None:
    breaking = {0, 30_000, 90_000}

    def break_off(start: int, response: dict[str, Any]) -> None:
        if start in breaking:
            breaking.remove(start)
            response["Body"].read = lambda *_: (_ for _ in ()).throw(ResponseStreamingError(error="broken"))

    spoil(store, break_off)
    assert store.download_file("key", tmp_path / "copy") == digest_of_bytes(CONTENT)
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert not breaking


def test_a_proxy_that_weakens_etags_is_read_through(store: S3Store, tmp_path: Path) -> None:
    def weaken(_: int, response: dict[str, Any]) -> None:
        response["ETag"] = f"W/{response['ETag']}"

    spoil(store, weaken)
    assert store.download_file("key", tmp_path / "copy") == digest_of_bytes(CONTENT)


def test_a_part_that_always_breaks_off_leaves_no_file(store: S3Store, tmp_path: Path) -> None:
    def end_early(start: int, response: dict[str, Any]) -> None:
        if start == 50_000:
            response["Body"]._content_length = 10_001

    spoil(store, end_early)
    with pytest.raises(ServiceError, match="10000 read, but total bytes expected is 10001"):
        store.download_file("key", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("other", "etag"), [(CONTENT[::-1], True), (CONTENT * 2, False), (b"short", False)], ids=["equal", "long", "short"]
)
def test_an_object_that_is_replaced_meanwhile_is_not_mixed(
    store: S3Store, tmp_path: Path, other: bytes, etag: bool
) -> None:
    # Where the store gives no ETag, another size tells.

    def replace(start: int, response: dict[str, Any]) -> None:
        if start == 0:
            store.put_bytes("key", other)
            if not etag:
                del response["ETag"]

    spoil(store, replace)
    with pytest.raises(ServiceError, match=r"x/key: the object was replaced while it was read; try again"):
        store.download_file("key", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answered", [None, "bytes 0-9999/*", "bytes 10000-19999/100000", "bytes 0-9998/9999"])
def test_a_store_that_answers_another_range_is_refused(store: S3Store, tmp_path: Path, answered: str | None) -> None:
    get = store._client.get_object

    def whole(**arguments: Any) -> dict[str, Any]:
        if answered is None:
            del arguments["Range"]
        return {**get(**arguments), "ContentRange": answered}

    store._client.get_object = whole
    with pytest.raises(InputError, match=r"bytes 0 to 9999 with (more than )?10000 bytes .*honours Range"):
        store.download_file("key", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_parts_are_read_ahead_and_no_further() -> None:
    begun, go = [], threading.Semaphore(PARTS_AT_ONCE)

    def read(number: int) -> int:
        begun.append(number)
        go.acquire()
        return number

    parts = read_ahead(read, range(10))
    for number in range(10):
        assert next(parts) == number
        assert len(begun) <= number + 1 + PARTS_AT_ONCE
        go.release()
    assert list(parts) == []


def test_what_a_part_raises_ends_the_reading() -> None:
    begun = []

    def read(number: int) -> int:
        begun.append(number)
        return 1 // (2 - number)

    with pytest.raises(ZeroDivisionError):
        list(read_ahead(read, range(1000)))
    assert len(begun) < 10


def test_pieces_of_a_body_are_larger_than_what_is_asked_for_and_make_it_whole() -> None:
    params = {"body": io.BytesIO(CONTENT * 5)}
    in_larger_pieces(params)
    body = params["body"]
    pieces = list(iter(lambda: body.read(16_384), b""))
    assert b"".join(pieces) == CONTENT * 5
    assert [len(piece) for piece in pieces] == [131_072] * 3 + [500_000 - 3 * 131_072]
    assert (body.seek(-3, 2), body.tell(), bytes(body.read())) == (499_997, 499_997, CONTENT[-3:])
    body.seek(499_998)
    buffer = memoryview(bytearray(5))
    assert (body.readinto(buffer), bytes(buffer), body.readinto(buffer)) == (2, CONTENT[-2:] + bytes(3), 0)
    body.seek(0)
    # As it is sent to AWS with storage.checksum: whenSupported.
    sent = AwsChunkedWrapper(body, checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=65_536)
    chunks = re.split(rb"(?<=\r\n)(?=[0-9a-f]{5}\r\n)", sent.read())
    assert b"".join(chunk.partition(b"\r\n")[2][:131_072] for chunk in chunks[:3]) == (CONTENT * 5)[: 3 * 131_072]


def test_what_is_no_file_is_sent_as_it_is() -> None:
    params: dict[str, Any] = {"body": b"bytes"}
    in_larger_pieces(params)
    assert params == {"body": b"bytes"}


def test_a_transfer_that_has_failed_is_not_sent_on() -> None:
    class Failed(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size == 0:
                raise ServiceError("another part failed")
            return super().read(size)

    params = {"body": Failed(CONTENT)}
    in_larger_pieces(params)
    with pytest.raises(ServiceError, match="another part failed"):
        params["body"].read(16_384)
