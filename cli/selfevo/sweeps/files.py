"""The manifests of a sweep in a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from selfevo.sweeps.grid import Cell
from selfevo_contract.errors import InputError

_PLACES = ("uri", "to")
"""Fields that name a place, which may be a path from the manifest's folder."""


def moved(value: Any, old: Path, new: Path) -> Any:
    """A part of a manifest in the folder ``old`` as it reads in the folder ``new``: naming the same places."""
    if isinstance(value, dict):
        return {
            key: _moved(item, old, new) if key in _PLACES and isinstance(item, str) else moved(item, old, new)
            for key, item in value.items()
        }
    return [moved(item, old, new) for item in value] if isinstance(value, list) else value


def _moved(uri: str, old: Path, new: Path) -> str:
    if not uri.startswith("file:") or uri.startswith("file:///"):
        return uri
    return f"file:{os.path.relpath(old.resolve() / uri.removeprefix('file:'), new.resolve())}"


def write(cells: Sequence[Cell], source: Path, folder: Path) -> list[Path]:
    """A manifest a run, over what is there. ``source`` is the folder that paths in the documents are from.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{cell.name}.yaml", moved(cell.document, source, folder)) for cell in cells]
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); name a folder that you may write") from None


def _write(path: Path, document: dict[str, Any]) -> Path:
    beside = path.with_name(f".{path.name}")
    beside.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8")
    beside.replace(path)
    return path


def write_new(cells: Sequence[Cell], source: Path, folder: Path) -> None:
    """A new folder with a manifest a run and a kustomization.yaml: whole, or not there.

    Raises:
        InputError: there is something already, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"-o {folder} is there already; name a new folder, or remove that one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"-o {folder} cannot be written ({error.strerror}); name another folder") from None
    try:
        for cell in cells:
            _write(beside / f"{cell.name}.yaml", moved(cell.document, source, folder))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{cell.name}.yaml" for cell in cells],
        }
        _write(beside / "kustomization.yaml", kustomization)
        beside.chmod(0o755)
        beside.replace(folder)  # an empty folder gives way
    except OSError as error:
        raise InputError(f"-o {folder} cannot be written ({error.strerror}); name another folder") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
