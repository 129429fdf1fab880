"""Digests of what a person names: a model's folder, a data file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from selfevo_contract.canonical import digest

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.jinja",
    "*.py",
)
"""What makes a model: its configuration, weights, tokenizer and, with trustRemoteCode, its code. Not its README."""


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files of ``folder`` that make the model, sorted by name."""
    return sorted(
        file for file in folder.iterdir() if file.is_file() and any(fnmatch(file.name, p) for p in MODEL_FILES)
    )


def model_digest(folder: Path, digest_of: Callable[[Path], str] = file_digest) -> str:
    """sha256 of the canonical JSON of {file name: its sha256} over the files that make the model.

    Args:
        folder: The model's folder.
        digest_of: Gives a file's sha256; a caller that remembers digests of large files passes its own.
    """
    return digest({file.name: digest_of(file) for file in model_files(folder)})
