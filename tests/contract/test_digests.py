"""Digests of models and data: of content, whatever lies beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from selfevo_contract.canonical import digest
from selfevo_contract.digests import file_digest, model_digest, model_files

FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"a",
    "model-00002-of-00002.safetensors": b"b",
    "model.safetensors.index.json": b"{}",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"",
    "modeling_own.py": b"pass",
}


def model(folder: Path, **more: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in {**FILES, **more}.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_models_digest_is_that_of_its_files_by_name(tmp_path: Path) -> None:
    expected = digest({name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()})
    assert model_digest(model(tmp_path / "a")) == expected


def test_what_is_not_the_model_does_not_count(tmp_path: Path) -> None:
    plain = model(tmp_path / "a")
    noisy = model(tmp_path / "b", **{"README.md": b"words", "training_args.bin": b"x", ".gitattributes": b""})
    (noisy / "checkpoints").mkdir()
    (noisy / "checkpoints" / "model.safetensors").write_bytes(b"other")
    assert model_digest(noisy) == model_digest(plain)
    assert [file.name for file in model_files(noisy)] == sorted(FILES)


def test_every_byte_and_every_name_counts(tmp_path: Path) -> None:
    seen = {model_digest(model(tmp_path / "a"))}
    for name in FILES:
        folder = model(tmp_path / name)
        (folder / name).write_bytes(b"changed")
        seen.add(model_digest(folder))
        (folder / name).unlink()
        seen.add(model_digest(folder))
    assert len(seen) == 1 + 2 * len(FILES)


def test_a_caller_may_bring_digests_that_it_remembers(tmp_path: Path) -> None:
    asked: list[str] = []

    def remembered(path: Path) -> str:
        asked.append(path.name)
        return file_digest(path)

    folder = model(tmp_path / "a")
    assert model_digest(folder, remembered) == model_digest(folder)
    assert asked == sorted(FILES)
