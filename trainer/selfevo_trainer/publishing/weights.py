"""A Solver's files as others load them: whole weights in spec.model.dtype, or an adapter on a base that the hub has.

The store has whole weights in float32 (docs/decisions/0003-master-weights.md); here they are cast, once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfevo_contract.errors import InputError
from selfevo_contract.phases import BaseModelRef, ModelRef, PublishInputs, StepModelRef
from selfevo_contract.spec.publish import HUB
from selfevo_store import fetch
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models import adapters
from selfevo_trainer.models.weights import INDEX, header_of

_TYPES = ("dtype", "torch_dtype")
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_WHOLE = ("BOOL", "U8", "I8", "I16", "I32", "I64")


def files_to_publish(context: Context, inputs: PublishInputs) -> dict[str, Path]:
    """The model's files by their names.

    Raises:
        InputError: the model is not there, or its weights do not fit into the type.
        ServiceError: the store cannot be reached.
    """
    folder = _fetched(context, inputs.model)
    if adapters.is_adapter(folder):
        if inputs.base.uri.startswith(HUB):
            return _files(_on_the_hub(folder, context.workdir / "adapter", inputs.base))
        base = fetch_model(context, inputs.base, "base")
        whole = context.workdir / "merged"
        adapters.merge(base, folder, whole)
        folder = whole
    return cast(folder, context.workdir / "cast", inputs.loading.dtype)


def _fetched(context: Context, ref: ModelRef) -> Path:
    assert isinstance(ref, StepModelRef)
    with context.clock.during("store"):
        prefix, manifest = context.output_of(ref.phase, ref.key, "publishes that model")
        return fetch(context.store, prefix, manifest, context.workdir / "model", folder="model")


def _files(folder: Path) -> dict[str, Path]:
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}


def _on_the_hub(adapter: Path, dest: Path, base: BaseModelRef) -> Path:
    """A copy whose base is named as the hub names it."""
    shutil.copytree(adapter, dest)
    name, _, revision = base.uri.removeprefix(HUB).partition("@")
    adapters.put_on(dest, name)
    _changed(dest / adapters.CONFIG, dest / adapters.CONFIG, {"revision": revision or None})
    return dest


def cast(folder: Path, dest: Path, dtype: str) -> dict[str, Path]:
    """The files of the model in ``folder``, its weights as ``dtype``; what changes is written to ``dest``.

    Raises:
        InputError: a weight is too large for the type.
    """
    dest.mkdir()
    files = _files(folder)
    size = 0
    for name in [name for name in files if name.endswith(".safetensors")]:
        if not _is_all(files[name], dtype):
            _cast_file(files[name], dest / name, dtype)
            files[name] = dest / name
        size += _tensor_bytes(files[name])
    config = json.loads(files["config.json"].read_bytes())
    named = [name for name in _TYPES if name in config] or [_TYPES[0]]
    files["config.json"] = _changed(files["config.json"], dest / "config.json", dict.fromkeys(named, dtype))
    if INDEX in files:
        index = json.loads(files[INDEX].read_bytes())
        files[INDEX] = _changed(
            files[INDEX], dest / INDEX, {"metadata": {**index.get("metadata", {}), "total_size": size}}
        )
    return files


def _is_all(file: Path, dtype: str) -> bool:
    return all(tensor["dtype"] in (_CODES[dtype], *_WHOLE) for tensor in header_of(file)[0].values())


def _tensor_bytes(file: Path) -> int:
    return max((tensor["data_offsets"][1] for tensor in header_of(file)[0].values()), default=0)


def _cast_file(source: Path, dest: Path, dtype: str) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted: torch.dtype = getattr(torch, dtype)
    with safe_open(source, framework="pt") as opened:
        about = opened.metadata() or {"format": "pt"}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        tensors[name] = tensor.to(wanted)
        if not bool(torch.isfinite(tensors[name]).all()):
            raise InputError(
                f"spec.model.dtype is {dtype!r}, in which {name} of the model to publish is not finite; set it to "
                "bfloat16 or float32 in a new run"
            )
    save_file(tensors, dest, metadata=about)


def _changed(source: Path, dest: Path, fields: Mapping[str, Any]) -> Path:
    content = json.loads(source.read_bytes()) | dict(fields)
    dest.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return dest
