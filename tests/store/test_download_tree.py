"""A model in the store that nobody committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.artifacts import KEY, draft, model_files, write_files
from selfevo_contract.errors import ExitCode, InputError
from selfevo_store import CorruptArtifact, ObjectStore, commit, download_tree


def contents_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("prefix", ["models/toy", ""])
def test_a_plain_folder_comes_as_it_is(store: ObjectStore, tmp_path: Path, prefix: str) -> None:
    contents = {"config.json": b"{}", "model.safetensors": b"1" * 100_000, "sub/tokenizer.json": b"[]"}
    for name, content in contents.items():
        store.put_bytes(f"{prefix}/{name}".lstrip("/"), content)
    if prefix:
        store.put_bytes(f"{prefix}-other/config.json", b"not this")
    assert download_tree(store, prefix, tmp_path / "in") == tmp_path / "in"
    assert contents_of(tmp_path / "in") == contents


def test_a_committed_directory_is_checked(store: ObjectStore, tmp_path: Path) -> None:
    prefix, contents = f"team/solver/{KEY}", model_files(weights=10_000)
    manifest = commit(store, prefix, write_files(tmp_path / "out", contents), draft()).manifest
    download_tree(store, prefix, tmp_path / "in")
    assert contents_of(tmp_path / "in") == contents
    store.put_bytes(f"{prefix}/{manifest.files[0].path}", b"damaged")
    with pytest.raises(CorruptArtifact):
        download_tree(store, prefix, tmp_path / "in2")


def test_an_empty_place_is_an_input_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is nothing") as caught:
        download_tree(store, "models/typo", tmp_path / "in")
    assert store.uri_of("models/typo") in str(caught.value)
    assert caught.value.exit_code is ExitCode.INPUT
