"""The cache saves downloads and is never believed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.artifacts import KEY, draft, model_files, write_files
from harness.s3proxy import Proxy, proxied
from harness.versitygw import S3Server
from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError
from selfevo_store import ObjectStore, commit, fetch, open_store
from selfevo_store import cache as cache_module

PREFIX = f"team/solver/{KEY}"
CONTENTS = model_files()
WEIGHTS = "model/model.safetensors"


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with proxied(s3_server) as running:
        yield running


@pytest.fixture
def uri(s3_server: S3Server) -> str:
    return f"s3://{s3_server.make_bucket()}/cache"


@pytest.fixture
def store(proxy: Proxy, uri: str, tmp_path: Path) -> ObjectStore:
    return open_store(uri, endpoint=proxy.endpoint, cache_dir=tmp_path / "cache")


@pytest.fixture
def manifest(store: ObjectStore, tmp_path: Path) -> Manifest:
    return commit(store, PREFIX, write_files(tmp_path / "out", CONTENTS), draft()).manifest


def contents_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def entries(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache/sha256").rglob("*") if path.is_file()]


def entry_of(tmp_path: Path, manifest: Manifest, name: str) -> Path:
    file = manifest.file(name)
    assert file is not None
    return tmp_path / "cache/sha256" / file.sha256[:2] / file.sha256


def test_the_second_fetch_asks_the_store_nothing(
    store: ObjectStore, manifest: Manifest, proxy: Proxy, tmp_path: Path
) -> None:
    fetch(store, PREFIX, manifest, tmp_path / "one")
    assert proxy.count("GET", "attempts") == len(CONTENTS)
    before = len(proxy.seen)
    fetch(store, PREFIX, manifest, tmp_path / "two")
    fetch(store, PREFIX, manifest, tmp_path / "two")
    assert len(proxy.seen) == before
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "two") == CONTENTS


def test_without_a_cache_every_fetch_downloads(proxy: Proxy, uri: str, manifest: Manifest, tmp_path: Path) -> None:
    store = open_store(uri, endpoint=proxy.endpoint)
    for _ in range(2):
        fetch(store, PREFIX, manifest, tmp_path / "in", ["curriculum.jsonl"])
    assert proxy.count("GET", "curriculum") == 2
    assert contents_of(tmp_path / "in") == {"curriculum.jsonl": CONTENTS["curriculum.jsonl"]}


def test_a_part_of_a_directory_can_be_fetched(store: ObjectStore, manifest: Manifest, tmp_path: Path) -> None:
    assert fetch(store, PREFIX, manifest, tmp_path / "1", folder="model") == tmp_path / "1/model"
    assert contents_of(tmp_path / "1").keys() == {name for name in CONTENTS if name.startswith("model/")}
    fetch(store, PREFIX, manifest, tmp_path / "2", ["empty.txt", "empty.txt"])
    assert contents_of(tmp_path / "2") == {"empty.txt": b""}
    fetch(store, PREFIX, manifest, tmp_path / "3", [])
    assert contents_of(tmp_path / "3") == {}
    for wanted in ({"names": ["model"]}, {"folder": "mod"}, {"folder": "empty.txt"}):
        with pytest.raises(InputError, match=r"has no file .* \(its files: curriculum\.jsonl, empty\.txt"):
            fetch(store, PREFIX, manifest, tmp_path / "4", **wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", [WEIGHTS, "model/config.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_entry_is_downloaded_again(
    store: ObjectStore, manifest: Manifest, proxy: Proxy, tmp_path: Path, name: str, damage: str
) -> None:
    fetch(store, PREFIX, manifest, tmp_path / "one")
    entry = entry_of(tmp_path, manifest, name)
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 4
    damaged = {"flip": bytes(data), "truncate": bytes(data[:-1]), "empty": b""}[damage]
    entry.unlink()
    entry.write_bytes(damaged)
    before = proxy.count("GET", "attempts")
    fetch(store, PREFIX, manifest, tmp_path / "two")
    assert proxy.count("GET", "attempts") == before + 1
    assert contents_of(tmp_path / "two") == CONTENTS
    assert entry.read_bytes() == CONTENTS[name]


def test_large_files_lie_on_the_disk_once_and_are_read_only(
    store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    fetch(store, PREFIX, manifest, tmp_path / "one")
    weights = tmp_path / "one" / WEIGHTS
    assert weights.samefile(entry_of(tmp_path, manifest, WEIGHTS))
    assert weights.stat().st_mode & 0o222 == 0
    config = tmp_path / "one/model/config.json"
    assert not config.samefile(entry_of(tmp_path, manifest, "model/config.json"))
    config.write_text("{}")


def test_what_a_consumer_writes_over_a_file_does_not_reach_the_next_one(
    store: ObjectStore, manifest: Manifest, proxy: Proxy, tmp_path: Path
) -> None:
    fetch(store, PREFIX, manifest, tmp_path / "one")
    before = proxy.count("GET", "attempts")
    for name in CONTENTS:  # as editors and save_pretrained do it
        path = tmp_path / "one" / name
        path.with_name("new").write_bytes(b"changed")
        path.with_name("new").replace(path)
    fetch(store, PREFIX, manifest, tmp_path / "two")
    assert contents_of(tmp_path / "two") == CONTENTS
    assert proxy.count("GET", "attempts") == before


def test_what_a_consumer_writes_into_a_file_by_force_is_noticed(
    store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    fetch(store, PREFIX, manifest, tmp_path / "one")
    for name in CONTENTS:
        path = tmp_path / "one" / name
        path.chmod(0o644)
        path.write_bytes(b"changed")
    fetch(store, PREFIX, manifest, tmp_path / "two")
    assert contents_of(tmp_path / "two") == CONTENTS
    # Healing gave the entry a new inode: the forced change stays where it was made.
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == b"changed"


def test_a_cache_on_another_file_system_is_copied_from(
    store: ObjectStore, manifest: Manifest, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LINK_FROM", 1000)
    for _ in range(2):
        fetch(store, PREFIX, manifest, small_disk / "in", ["model/tokenizer.json"])
        assert contents_of(small_disk) == {"in/model/tokenizer.json": CONTENTS["model/tokenizer.json"]}


@pytest.mark.slow
def test_processes_that_want_the_same_files_download_them_once(
    store: ObjectStore, manifest: Manifest, proxy: Proxy, uri: str, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from selfevo_store import *;"
        "uri, endpoint, cache, prefix, dest = sys.argv[1:];"
        "s = open_store(uri, endpoint=endpoint, cache_dir=Path(cache)); m = read_manifest(s, prefix);"
        "print('ready', flush=True); sys.stdin.readline(); fetch(s, prefix, m, Path(dest))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, uri, proxy.endpoint, tmp_path / "cache", PREFIX, tmp_path / f"in{i}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for i in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    for i in range(4):
        assert contents_of(tmp_path / f"in{i}") == CONTENTS
    assert proxy.count("GET", "attempts") == len(CONTENTS)
    assert sorted(path.name for path in entries(tmp_path)) == sorted({file.sha256 for file in manifest.files})


def test_what_a_killed_process_left_is_swept_after_a_day(
    open_fresh: Callable[..., ObjectStore], tmp_path: Path
) -> None:
    drafts = tmp_path / "cache/tmp"
    drafts.mkdir(parents=True)
    for name, age in (("old", 25 * 3600), ("new", 60)):
        (drafts / name).touch()
        os.utime(drafts / name, (time.time() - age,) * 2)
    store = open_fresh(cache_dir=tmp_path / "cache")
    manifest = commit(store, PREFIX, write_files(tmp_path / "out", {"a": b"1"}), draft()).manifest
    fetch(store, PREFIX, manifest, tmp_path / "in")
    assert [path.name for path in drafts.iterdir()] == ["new"]


def test_nothing_unfinished_is_left(store: ObjectStore, manifest: Manifest, tmp_path: Path) -> None:
    fetch(store, PREFIX, manifest, tmp_path / "in")
    assert [path for path in tmp_path.rglob("*") if "tmp" in path.name and path.is_file()] == []
    assert list((tmp_path / "cache/tmp").iterdir()) == []
