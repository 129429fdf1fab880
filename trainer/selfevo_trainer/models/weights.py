"""Weights files read without a library that computes: names and types from the header, bytes through numpy.

The safetensors format: 8 bytes with the header's length, the header as JSON, the tensors' bytes in little endian.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

INDEX = "model.safetensors.index.json"
_LEARNED = re.compile(r"(^|\.)(wpe|embed_positions|positions_embed|position_embeddings?)\.weight$")
_CHUNK = 1 << 22


class _Float(NamedTuple):
    bits: str
    """numpy's type of an unsigned number as long as it."""
    infinite: int
    """The number as which positive infinity reads: without the sign, all above are NaN."""
    too_large: int
    """Likewise the least value that float16 rounds to infinity, 65520; 0: there is none."""


_FLOATS = {
    "F64": _Float("<u8", 0x7FF0000000000000, 0x40EFFE0000000000),
    "F32": _Float("<u4", 0x7F800000, 0x477FF000),
    "BF16": _Float("<u2", 0x7F80, 0x4780),
    "F16": _Float("<u2", 0x7C00, 0x7C00),
}


def files_of(folder: Path) -> list[Path]:
    """The weights files that are loaded: the index's, else model.safetensors, else all."""
    everything = sorted(folder.glob("*.safetensors"))
    single = folder / "model.safetensors"
    if (named := indexed(folder)) is not None:
        return [file for file in everything if file.name in named]
    return [single] if single in everything else everything


def indexed(folder: Path) -> set[str] | None:
    """The file names in the folder's index; None when there is none.

    Raises:
        ValueError: the index is not one.
    """
    try:
        content = json.loads((folder / INDEX).read_bytes())
    except FileNotFoundError:
        return None
    return named_in(content)


def named_in(index: Any) -> set[str]:
    """The file names in the content of an index.

    Raises:
        ValueError: it is not one.
    """
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError("it has no weight_map of names")
    return set(names.values())


def has_learned_positions(folder: Path) -> bool:
    """Whether a tensor is a table of positions, as in GPT-2, OPT or BioGPT. Rotary and ALiBi models have none."""
    return any(_LEARNED.search(name) for file in files_of(folder) for name in header_of(file)[0])


def count(folder: Path) -> int:
    """Numbers in the weights files."""
    shapes = (entry["shape"] for file in files_of(folder) for entry in header_of(file)[0].values())
    return sum(prod(shape) for shape in shapes)


def not_finite(folder: Path, dtype: str) -> str | None:
    """What is wrong with the numbers: rounded ones, NaN or infinity, also such as ``dtype`` would make of them.

    Args:
        dtype: the run's: float32, bfloat16 or float16.
    """
    for file in files_of(folder):
        for name, entry in header_of(file)[0].items():
            if name.endswith(".weight") and entry["dtype"] not in _FLOATS:
                return (
                    f"the weights in {folder} are quantized: {name} in {file.name} is of type {entry['dtype']}, and "
                    "rounded weights cannot be trained; name the model that they were made from"
                )
        for name, kind, values in _tensors(file):
            largest = _largest(values)
            if largest >= kind.infinite:
                return (
                    f"the weights in {folder} are not all numbers: {name} in {file.name} has NaN or infinity; "
                    "download them again, or take a checkpoint from before training diverged"
                )
            if dtype == "float16" and largest >= kind.too_large:
                return (
                    f"spec.model.dtype is float16, which ends at 65504, and {name} in {file.name} of {folder} has "
                    "larger weights; use bfloat16"
                )
    return None


def _largest(values: Any) -> int:
    """Of the numbers read without their sign. In pieces: a tensor may be larger than what memory is left."""
    bits = values.dtype.itemsize * 8
    mask = values.dtype.type((1 << (bits - 1)) - 1)
    return max((int((values[at : at + _CHUNK] & mask).max()) for at in range(0, len(values), _CHUNK)), default=0)


def _tensors(file: Path) -> Iterator[tuple[str, _Float, Any]]:
    header, begin = header_of(file)
    if not header:
        return
    data = np.memmap(file, dtype=np.uint8, mode="r")
    for name, entry in header.items():
        if (kind := _FLOATS.get(entry["dtype"])) is not None:
            start, end = entry["data_offsets"]
            # Not every writer aligns: a view of odd bytes is as good.
            yield name, kind, np.frombuffer(data, dtype=np.uint8)[begin + start : begin + end].view(kind.bits)


def header_of(file: Path) -> tuple[dict[str, Any], int]:
    """Name -> {dtype, shape, data_offsets}, and where the tensors' bytes begin. The file was found whole before."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length
