"""No byte that differs from what was committed reaches a reader."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.artifacts import KEY, draft, write_files
from selfevo_contract.artifacts import StoredFile
from selfevo_contract.errors import ExitCode
from selfevo_store import CorruptArtifact, ObjectStore, commit, fetch, read_file, verify
from selfevo_store.digests import Digest, digest_of_bytes

PREFIX = f"team/solver/{KEY}"
Damage = Callable[[random.Random, bytes], bytes]


def flip_a_bit(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def append(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randint(1, 100))


@pytest.mark.parametrize("times", [4, pytest.param(34, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cached", [False, True], ids=["no-cache", "cache"])
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, append])
def test_damaged_objects_are_refused(
    open_fresh: Callable[..., ObjectStore], tmp_path: Path, damage: Damage, cached: bool, times: int
) -> None:
    rng = random.Random(f"{damage.__name__}{cached}{times}")
    store = open_fresh(cache_dir=tmp_path / "cache" if cached else None)
    contents = {f"folder/{i}.bin": rng.randbytes(rng.choice([1, 100, 10_000, 100_000])) for i in range(10)}
    manifest = commit(store, PREFIX, write_files(tmp_path / "out", contents), draft()).manifest
    for _ in range(times):  # 34 times are two hundred for each store, over the other parameters
        file = rng.choice(manifest.files)
        damaged = damage(rng, contents[file.name])
        store.put_bytes(f"{PREFIX}/{file.path}", damaged)
        for read in (
            lambda file=file: fetch(store, PREFIX, manifest, tmp_path / "in", [file.name]),
            lambda file=file: read_file(store, PREFIX, manifest, file.name),
        ):
            with pytest.raises(CorruptArtifact) as caught:
                read()
            assert caught.value.exit_code is ExitCode.INPUT
            assert caught.value.reason == "CorruptArtifact"
            assert_names(str(caught.value), file, damaged)
        (problem,) = verify(store, PREFIX)
        assert problem.name == file.name
        assert_names(problem.message, file, damaged)
        assert not any((tmp_path / "in").rglob("*.bin"))
        store.put_bytes(f"{PREFIX}/{file.path}", contents[file.name])
    assert verify(store, PREFIX) == []
    fetch(store, PREFIX, manifest, tmp_path / "in")
    assert {name: (tmp_path / "in" / name).read_bytes() for name in contents} == contents


def assert_names(message: str, file: StoredFile, damaged: bytes) -> None:
    assert f"file {file.name!r} is damaged" in message
    assert f"expected {file.size} bytes with sha256 {file.sha256}" in message
    assert f"found {digest_of_bytes(damaged)}" in message
    assert "\n" not in message


def test_a_missing_object_is_damage_too(open_fresh: Callable[..., ObjectStore], tmp_path: Path) -> None:
    store = open_fresh()
    files = write_files(tmp_path / "out", {"a/x": b"1", "b/x": b"2"})
    manifest = commit(store, PREFIX, files, draft()).manifest
    store.delete_prefix(f"{PREFIX}/attempts/{manifest.write_id}/a")
    for read in (
        lambda: fetch(store, PREFIX, manifest, tmp_path / "in"),
        lambda: read_file(store, PREFIX, manifest, "a/x"),
    ):
        with pytest.raises(CorruptArtifact, match="file 'a/x' is missing"):
            read()
    assert [problem.name for problem in verify(store, PREFIX)] == ["a/x"]
    assert fetch(store, PREFIX, manifest, tmp_path / "in", folder="b") == tmp_path / "in/b"


def test_damage_on_the_way_is_read_again(open_fresh: Callable[..., ObjectStore], tmp_path: Path) -> None:
    store = open_fresh()
    manifest = commit(store, PREFIX, write_files(tmp_path / "out", {"a": b"good"}), draft()).manifest
    download, read, once = store.download_file, store.read_bytes, {"download", "read"}

    def bad_download(key: str, path: Path) -> Digest:
        digest = download(key, path)
        if "download" in once:
            once.remove("download")
            path.write_bytes(b"evil")
            return digest_of_bytes(b"evil")
        return digest

    def bad_read(key: str) -> bytes:
        if "read" in once:
            once.remove("read")
            return b"evil"
        return read(key)

    store.download_file = bad_download  # type: ignore[method-assign]
    store.read_bytes = bad_read  # type: ignore[method-assign]
    fetch(store, PREFIX, manifest, tmp_path / "in")
    assert (tmp_path / "in/a").read_bytes() == b"good"
    assert read_file(store, PREFIX, manifest, "a") == b"good"
    assert not once
