"""Small committed directories for tests of the store."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from selfevo_contract.artifacts import ManifestDraft

KEY = "a" * 64


def draft(**changes: object) -> ManifestDraft:
    """What a solver phase would say about its output."""
    return ManifestDraft.model_validate({"key": KEY, "phase": "solver", "iteration": 1, **changes})


def write_files(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Writes ``contents`` below ``folder``; name -> path, as ``commit`` takes it."""
    paths: dict[str, Path] = {}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths[name] = path
    return paths


def model_files(seed: int = 0, weights: int = 3 << 20) -> dict[str, bytes]:
    """Something with the shape of a model: small files that are copied, and weights large enough to be linked."""
    rng = random.Random(seed)
    return {
        "model/config.json": b'{"model_type": "toy"}',
        "model/tokenizer.json": rng.randbytes(2000),
        "model/model.safetensors": rng.randbytes(weights),
        "curriculum.jsonl": b'{"question": "1 + 1"}\n' * 100,
        "empty.txt": b"",
    }
