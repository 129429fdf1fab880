"""What every store promises, whatever is behind it."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.s3proxy import Faults, Request, proxied
from harness.versitygw import S3Server
from selfevo_contract.errors import InputError, ServiceError
from selfevo_store import ObjectInfo, ObjectNotFound, ObjectStore, open_store
from selfevo_store.digests import digest_of_bytes
from selfevo_store.s3 import MIB, S3Store


def test_bytes_come_back_and_can_be_replaced(store: ObjectStore) -> None:
    store.put_bytes("a/b.bin", b"one")
    assert store.read_bytes("a/b.bin") == b"one"
    store.put_bytes("a/b.bin", b"")
    assert store.read_bytes("a/b.bin") == b""


def test_put_if_absent_writes_once(store: ObjectStore) -> None:
    assert store.put_if_absent("x/MANIFEST.json", b"first")
    assert not store.put_if_absent("x/MANIFEST.json", b"second")
    assert store.read_bytes("x/MANIFEST.json") == b"first"


def test_of_many_threads_one_creates_the_object(store: ObjectStore) -> None:
    results: dict[int, bool] = {}
    start = threading.Barrier(16)

    def write(i: int) -> None:
        start.wait()
        results[i] = store.put_if_absent("race", b"%d" % i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [i for i, won in results.items() if won]
    assert store.read_bytes("race") == b"%d" % winner
    assert [info.key for info in store.list("")] == ["race"]


def test_an_absent_object_is_reported_absent(store: ObjectStore, tmp_path: Path) -> None:
    store.put_bytes("a/file", b"1")
    for key in ("nothing", "a", "a/file/below"):
        assert not store.exists(key)
        with pytest.raises(ObjectNotFound, match="there is no such object"):
            store.read_bytes(key)
        with pytest.raises(ObjectNotFound, match="there is no such object"):
            store.download_file(key, tmp_path / "out")
    assert store.exists("a/file")
    assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == []


def test_a_listing_is_of_a_folder_not_of_a_piece_of_a_name(store: ObjectStore) -> None:
    for key in ("s/1/a", "s/1/b/c", "s/10/a", "t"):
        store.put_bytes(key, key.encode())
    assert store.list("s/1") == [ObjectInfo("s/1/a", 5), ObjectInfo("s/1/b/c", 7)]
    assert [info.key for info in store.list("")] == ["s/1/a", "s/1/b/c", "s/10/a", "t"]
    assert store.list("s/1/a") == []
    assert store.list("nothing") == []


def test_a_listing_has_no_limit(store: ObjectStore) -> None:
    if isinstance(store, S3Store):
        page = store._client.list_objects_v2
        store._client.list_objects_v2 = lambda **arguments: page(**{**arguments, "MaxKeys": 10})
    keys = [f"many/{i:03d}" for i in range(35)]
    for key in keys:
        store.put_bytes(key, b"")
    assert [info.key for info in store.list("many")] == keys


def test_deleting_a_folder_leaves_its_neighbours(store: ObjectStore) -> None:
    for key in ("s/1/a", "s/1/b/c", "s/10/a"):
        store.put_bytes(key, b"")
    store.delete_prefix("s/1")
    store.delete_prefix("s/1")
    store.delete_prefix("nothing")
    assert [info.key for info in store.list("")] == ["s/10/a"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\\b", "a/\x00", "a/"])
def test_no_key_leaves_the_root(store: ObjectStore, key: str, tmp_path: Path) -> None:
    for act in (
        lambda: store.read_bytes(key),
        lambda: store.put_bytes(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.exists(key),
        lambda: store.delete_prefix(key),
        lambda: store.download_file(key, tmp_path / "out"),
        lambda: store.upload_file(Path(__file__), key),
    ):
        with pytest.raises(InputError, match="object key"):
            act()


def test_files_go_up_and_come_down_with_their_digest(store: ObjectStore, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(300_000)
    source = tmp_path / "source"
    source.write_bytes(content)
    assert store.upload_file(source, "deep/er/file") == digest_of_bytes(content)
    assert store.digest_of("deep/er/file") == digest_of_bytes(content)
    assert store.download_file("deep/er/file", tmp_path / "new/folder/copy") == digest_of_bytes(content)
    assert (tmp_path / "new/folder/copy").read_bytes() == content
    assert store.list("deep") == [ObjectInfo("deep/er/file", len(content))]


def test_an_upload_of_no_file_names_it(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.bin: there is no such file"):
        store.upload_file(tmp_path / "gone.bin", "key")
    assert store.list("") == []


def test_names_that_need_escaping_are_kept(store: ObjectStore) -> None:
    keys = sorted(["with space", "per%20cent", "plus+and&", "ümläut", "a=b", "q?x#y", "…/日本"])
    for key in keys:
        store.put_bytes(key, key.encode())
    assert [info.key for info in store.list("")] == keys
    assert [store.read_bytes(key).decode() for key in keys] == keys


def test_uris_say_where_an_object_lies(store: ObjectStore) -> None:
    assert store.uri_of("a/b") == f"{store.uri}/a/b"
    assert store.uri_of("") == store.uri


def test_a_bucket_without_a_prefix_is_a_store(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket()
    for uri in (f"s3://{bucket}", f"s3://{bucket}/"):
        store = open_store(uri, endpoint=s3_server.endpoint)
        store.put_bytes("a/b", b"1")
        assert store.uri_of("a/b") == f"s3://{bucket}/a/b"
        assert store.list("") == store.list("a") == [ObjectInfo("a/b", 1)]
        assert store.read_bytes("a/b") == b"1"


def test_a_large_file_goes_in_parts(s3_server: S3Server, tmp_path: Path) -> None:
    with proxied(s3_server) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        assert isinstance(store, S3Store)
        store.part_size = 6 * MIB
        content = random.Random(1).randbytes(20 * MIB + 17)
        (tmp_path / "large").write_bytes(content)
        assert store.upload_file(tmp_path / "large", "large") == digest_of_bytes(content)
        assert proxy.count("PUT", "partNumber=") == 4
        assert store.download_file("large", tmp_path / "copy") == digest_of_bytes(content)
        assert (tmp_path / "copy").read_bytes() == content
        assert proxy.count("GET", "large") == 4


@pytest.mark.parametrize("forgetful", [False, True], ids=["versitygw", "forgetful"])
def test_a_multipart_upload_whose_last_reply_is_lost_is_done(
    s3_server: S3Server, tmp_path: Path, forgetful: bool
) -> None:
    lost: list[Request] = []

    def forget_the_upload(request: Request) -> tuple[int, str] | None:
        # versitygw recognises the repetition, as AWS does; others say that there is no such upload any more.
        again = forgetful and bool(lost) and request.method == "POST" and "uploadId=" in request.path
        return (404, "NoSuchUpload") if again else None

    def lose_first_completion(request: Request, status: int) -> bool:
        if request.method == "POST" and "uploadId=" in request.path and not lost:
            lost.append(request)
            return True
        return False

    faults = Faults(lose_reply=lose_first_completion, answer=forget_the_upload)
    with proxied(s3_server, faults) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        assert isinstance(store, S3Store)
        store.part_size = 6 * MIB
        content = random.Random(2).randbytes(10 * MIB)
        (tmp_path / "large").write_bytes(content)
        digest = store.upload_file(tmp_path / "large", "large")
        assert lost
        assert digest == store.digest_of("large") == digest_of_bytes(content)


def test_an_upload_that_the_store_forgot_halfway_is_a_service_error(s3_server: S3Server, tmp_path: Path) -> None:
    def forget(request: Request) -> tuple[int, str] | None:
        return (404, "NoSuchUpload") if "partNumber=2" in request.path else None

    with proxied(s3_server, Faults(answer=forget)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        assert isinstance(store, S3Store)
        store.part_size = 6 * MIB
        (tmp_path / "large").write_bytes(bytes(10 * MIB))
        with pytest.raises(ServiceError, match="lost an upload"):
            store.upload_file(tmp_path / "large", "large")
        assert store.list("") == []


def test_the_digest_is_of_what_was_sent_when_the_file_changes_meanwhile(s3_server: S3Server, tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"1" * 11 * MIB)  # two parts of the least size that S3 takes, wherever the file grows

    def overwrite(request: Request) -> bool:
        if "partNumber=1" in request.path:
            with path.open("r+b") as file:
                file.seek(9 * MIB)
                file.write(b"2" * 4 * MIB)
        return False

    with proxied(s3_server, Faults(lose_request=overwrite)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        assert isinstance(store, S3Store)
        store.part_size = 6 * MIB
        digest = store.upload_file(path, "growing")
        assert store.digest_of("growing") == digest


def test_a_body_that_breaks_off_is_read_again(s3_server: S3Server) -> None:
    store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=s3_server.endpoint)
    assert isinstance(store, S3Store)
    store.put_bytes("key", b"all of it")
    get, calls = store._client.get_object, []

    class Broken:
        def iter_chunks(self, _: int):
            from botocore.exceptions import ResponseStreamingError

            yield b"all"
            raise ResponseStreamingError(error="connection broken")

        def close(self) -> None: ...

    def get_object(**arguments: str) -> object:
        calls.append(arguments)
        return {"Body": Broken()} if len(calls) < 3 else get(**arguments)

    store._client.get_object = get_object
    assert store.read_bytes("key") == b"all of it"


@pytest.mark.slow
def test_a_store_of_files_needs_no_boto3_and_no_store_needs_torch() -> None:
    program = (
        "import sys; from selfevo_store import open_store, fetch, commit; open_store('file:///tmp/x');"
        "print(sorted(m for m in ('boto3', 'botocore', 'torch', 'numpy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "uri", ["/data", "data", "gs://bucket/x", "s3://", "s3://B/x", "file://host/x", "file://x", ""]
)
def test_what_is_no_uri_of_a_store_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match=r"storage\.uri"):
        open_store(uri)
