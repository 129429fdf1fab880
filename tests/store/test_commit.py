"""A directory exists when its manifest does."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest

from harness.artifacts import KEY, draft, model_files, write_files
from harness.s3proxy import Faults, Request, proxied
from harness.versitygw import S3Server
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.errors import ExitCode, InputError, ServiceError
from selfevo_store import (
    ObjectStore,
    commit,
    commit_parts,
    fetch,
    new_write_id,
    open_store,
    read_file,
    read_manifest,
    upload_part,
    verify,
)

PREFIX = f"team/solver/{KEY}"


def test_what_is_committed_can_be_read(store: ObjectStore, tmp_path: Path) -> None:
    contents = model_files()
    result = commit(store, PREFIX, write_files(tmp_path / "out", contents), draft(metrics={"score": 0.5}))
    assert result.won
    manifest = read_manifest(store, PREFIX)
    assert manifest == result.manifest
    assert {f.name for f in manifest.files} == contents.keys()
    assert manifest.metrics == {"score": 0.5}
    assert fetch(store, PREFIX, manifest, tmp_path / "in") == tmp_path / "in"
    assert {name: (tmp_path / "in" / name).read_bytes() for name in contents} == contents
    assert read_file(store, PREFIX, manifest, "curriculum.jsonl") == contents["curriculum.jsonl"]
    assert verify(store, PREFIX) == []


def test_files_lie_below_the_attempt_and_the_store_holds_nothing_else(store: ObjectStore, tmp_path: Path) -> None:
    result = commit(store, PREFIX, write_files(tmp_path, {"a.txt": b"a", "b/c.txt": b"c"}), draft())
    attempt = f"{PREFIX}/attempts/{result.manifest.write_id}"
    assert [info.key for info in store.list("")] == [
        f"{PREFIX}/MANIFEST.json",
        f"{attempt}/a.txt",
        f"{attempt}/b/c.txt",
    ]


def test_nothing_is_committed_before_the_manifest(store: ObjectStore) -> None:
    assert read_manifest(store, PREFIX) is None
    (problem,) = verify(store, PREFIX)
    assert "nothing is committed here" in str(problem)


def test_the_second_to_commit_gets_the_first_ones_output(store: ObjectStore, tmp_path: Path) -> None:
    first = commit(store, PREFIX, write_files(tmp_path / "1", {"a": b"1"}), draft(attempt="job-1"))
    before = store.list("")
    second = commit(store, PREFIX, write_files(tmp_path / "2", {"a": b"2"}), draft(attempt="job-2"))
    assert (second.won, second.manifest) == (False, first.manifest)
    assert store.list("") == before


def test_several_commit_together_and_nothing_is_there_before_the_last_is_done(
    store: ObjectStore, tmp_path: Path
) -> None:
    ours, theirs = new_write_id(), new_write_id()
    parts = [
        upload_part(store, PREFIX, write_files(tmp_path / name, {f"{name}.bin": name.encode()}), ours)
        for name in ("b", "a")
    ]
    assert read_manifest(store, PREFIX) is None
    made = commit_parts(store, PREFIX, [file for part in parts for file in part], draft(), ours)
    assert made.won and [file.name for file in made.manifest.files] == ["a.bin", "b.bin"]
    assert (fetch(store, PREFIX, made.manifest, tmp_path / "in") / "a.bin").read_bytes() == b"a"
    before = store.list("")
    late = upload_part(store, PREFIX, write_files(tmp_path / "late", {"a.bin": b"late"}), theirs)
    second = commit_parts(store, PREFIX, late, draft(), theirs)
    assert (second.won, second.manifest) == (False, made.manifest)
    assert store.list("") == before


def test_one_that_loses_late_removes_what_it_uploaded(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, others = store.upload_file, write_files(tmp_path / "1", {"a": b"1"})

    def overtaken(path: Path, key: str) -> object:
        monkeypatch.setattr(store, "upload_file", upload)
        commit(store, PREFIX, others, draft(attempt="fast"))
        return upload(path, key)

    monkeypatch.setattr(store, "upload_file", overtaken)
    result = commit(store, PREFIX, write_files(tmp_path / "2", {"a": b"2"}), draft(attempt="slow"))
    assert (result.won, result.manifest.attempt) == (False, "fast")
    assert read_file(store, PREFIX, result.manifest, "a") == b"1"
    assert len(store.list(f"{PREFIX}/attempts")) == 1


def test_an_upload_that_fails_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    files = write_files(tmp_path, {"a": b"1", "b": b"2"})
    files["c"] = tmp_path / "gone"
    with pytest.raises(InputError, match="gone"):
        commit(store, PREFIX, files, draft())
    assert store.list("") == []


def test_a_directory_without_files_can_be_committed(store: ObjectStore) -> None:
    assert commit(store, PREFIX, {}, draft(phase="evaluate", metrics={"math": 0.25})).won


def test_a_diverged_loss_does_not_block_the_key(store: ObjectStore) -> None:
    commit(store, PREFIX, {}, draft(metrics={"loss": math.nan, "reward": -math.inf}))
    manifest = read_manifest(store, PREFIX)
    assert manifest is not None
    assert math.isnan(manifest.metrics["loss"])
    assert manifest.metrics["reward"] == -math.inf


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", ""])
def test_a_file_cannot_be_named_out_of_the_directory(store: ObjectStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="object key"):
        commit(store, PREFIX, {name: write_files(tmp_path, {"a": b""})["a"]}, draft())
    assert store.list("") == []


@pytest.mark.parametrize("other", [{"key": "b" * 64}, {"phase": "challenger"}])
def test_a_foreign_manifest_is_named(store: ObjectStore, other: dict[str, str]) -> None:
    commit(store, PREFIX, {}, draft(**other))
    with pytest.raises(InputError, match=r"MANIFEST\.json belongs to .*, not to solver aaaa") as caught:
        commit(store, PREFIX, {}, draft())
    assert (caught.value.exit_code, caught.value.reason) == (ExitCode.INPUT, "ForeignManifest")


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"schemaVersion": 1}', b"[" * 100_000, b'{"schemaVersion": "x"}'],
    ids=range(8),
)
def test_what_is_no_manifest_is_named(store: ObjectStore, content: bytes) -> None:
    store.put_bytes(f"{PREFIX}/MANIFEST.json", content)
    for act in (lambda: read_manifest(store, PREFIX), lambda: commit(store, PREFIX, {}, draft())):
        with pytest.raises(InputError, match=r"MANIFEST\.json: is not a manifest of selfevo") as caught:
            act()
        assert caught.value.reason == "ForeignManifest"
        assert "\n" not in str(caught.value)


def test_a_newer_manifest_asks_for_an_upgrade(store: ObjectStore) -> None:
    result = commit(store, PREFIX, {}, draft())
    newer = result.manifest.model_dump(mode="json", by_alias=True)
    newer |= {"schemaVersion": SCHEMA_VERSION + 1, "somethingNew": True}
    store.put_bytes(f"{PREFIX}/MANIFEST.json", json.dumps(newer).encode())
    with pytest.raises(InputError, match="upgrade selfevo") as caught:
        read_manifest(store, PREFIX)
    assert f"schemaVersion {SCHEMA_VERSION + 1}, and this selfevo reads up to {SCHEMA_VERSION};" in str(caught.value)
    assert caught.value.reason == "ManifestTooNew"


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        [{"name": "../../etc/passwd", "path": "a"}],
        [{"name": "a", "path": "/etc/passwd"}],
        [{"name": "a", "path": "../other/MANIFEST.json"}],
        [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}],
        [{"name": "a", "path": "x"}, {"name": "a/b", "path": "y"}],
    ],
)
def test_a_manifest_that_points_elsewhere_is_refused(store: ObjectStore, files: list[dict[str, str]]) -> None:
    forged = commit(store, PREFIX, {}, draft()).manifest.model_dump(mode="json", by_alias=True)
    forged["files"] = [{**f, "size": 0, "sha256": "0" * 64} for f in files]
    store.put_bytes(f"{PREFIX}/MANIFEST.json", json.dumps(forged).encode())
    with pytest.raises(InputError, match="is not a manifest of selfevo"):
        read_manifest(store, PREFIX)


def test_a_commit_whose_reply_is_lost_is_still_won(s3_server: S3Server, tmp_path: Path) -> None:
    lost: list[Request] = []

    def lose_first(request: Request, status: int) -> bool:
        if request.method == "PUT" and "MANIFEST" in request.path and status == 200:
            lost.append(request)
            return True
        return False

    with proxied(s3_server, Faults(lose_reply=lose_first)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        result = commit(store, PREFIX, write_files(tmp_path, {"a": b"1"}), draft())
        assert len(lost) == 1
        assert result.won
        assert verify(store, PREFIX) == []


def test_a_commit_whose_replies_are_all_lost_is_found_by_reading_back(s3_server: S3Server, tmp_path: Path) -> None:
    def lose(request: Request, _: int) -> bool:
        return request.method == "PUT" and "MANIFEST" in request.path

    with proxied(s3_server, Faults(lose_reply=lose)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        result = commit(store, PREFIX, write_files(tmp_path, {"a": b"1"}), draft())
        assert proxy.count("PUT", "MANIFEST") == 4
        assert result.won
        assert verify(store, PREFIX) == []


def test_a_commit_of_unknown_outcome_keeps_its_files(s3_server: S3Server, tmp_path: Path) -> None:
    dead: list[Request] = []

    def die_at_manifest(request: Request, _: int) -> bool:
        if request.method == "PUT" and "MANIFEST" in request.path:
            dead.append(request)
        return bool(dead) and "MANIFEST" in request.path  # deleting would work

    bucket = s3_server.make_bucket()
    with proxied(s3_server, Faults(lose_reply=die_at_manifest)) as proxy:
        store = open_store(f"s3://{bucket}/x", endpoint=proxy.endpoint)
        with pytest.raises(ServiceError, match=r"storage\.endpoint http://127"):
            commit(store, PREFIX, write_files(tmp_path, {"a": b"1"}), draft())
    # The put was stored after all. Had the files been removed, the artifact would be damaged for good.
    assert verify(open_store(f"s3://{bucket}/x", endpoint=s3_server.endpoint), PREFIX) == []


def test_a_racing_delete_is_waited_for(s3_server: S3Server) -> None:
    conflicts: list[Request] = []

    def conflict_twice(request: Request) -> int | None:
        if request.method == "PUT" and "MANIFEST" in request.path and len(conflicts) < 2:
            conflicts.append(request)
            return 409
        return None

    with proxied(s3_server, Faults(answer=conflict_twice)) as proxy:
        store = open_store(f"s3://{s3_server.make_bucket()}/x", endpoint=proxy.endpoint)
        assert commit(store, PREFIX, {}, draft()).won
        assert len(conflicts) == 2


def test_losers_that_may_not_delete_are_not_stopped(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(prefix: str) -> None:
        raise InputError("no right to delete")

    commit(store, PREFIX, {}, draft())
    monkeypatch.setattr("selfevo_store.committed._standing", _once_none(monkeypatch))
    monkeypatch.setattr(store, "delete_prefix", refuse)
    with caplog.at_level(logging.WARNING):
        assert not commit(store, PREFIX, write_files(tmp_path, {"a": b"1"}), draft()).won
    assert "no right to delete" in caplog.text


def _once_none(monkeypatch: pytest.MonkeyPatch):
    from selfevo_store import committed

    real = committed._standing

    def standing(*arguments: object) -> None:
        monkeypatch.setattr(committed, "_standing", real)

    return standing
