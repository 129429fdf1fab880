"""A grid of settings -> the runs that it comes to, each with a name of its own. Pure."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfevo_contract.errors import InputError

SEED = "seed"
LABEL = "selfevo.dev/sweep"
"""The label of a sweep's runs; its value is the name in the manifest that the sweep was made from."""
_PART = re.compile(r"([A-Za-z][A-Za-z0-9]*)((?:\[\d+\])*)")
_MAX_NAME = 63


@dataclass(frozen=True)
class Axis:
    """A field of the spec, and the values that it takes."""

    path: str
    """Below ``spec``, e.g. ``solver.grpo.lora.rank`` or ``evaluation.tasks[0].samples``."""
    values: tuple[Any, ...]
    option: str
    """What set it, as it was written: for messages."""

    @property
    def parts(self) -> list[str | int]:
        """``["evaluation", "tasks", 0, "samples"]``."""
        found: list[str | int] = []
        for part in self.path.split("."):
            name, indices = _PART.fullmatch(part).groups()  # type: ignore[union-attr]  # parse_axis has checked it
            found += [name, *map(int, re.findall(r"\d+", indices))]
        return found


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    settings: dict[str, Any]
    """Value by path, in the order of the axes."""
    document: dict[str, Any]
    """Its manifest."""

    @property
    def label(self) -> str:
        """``solver.grpo.lora.rank=8 seed=0``."""
        return " ".join(f"{path}={shown(value)}" for path, value in self.settings.items())

    @property
    def without_seed(self) -> str:
        """The same of all but the seed: runs that differ in that alone are repetitions."""
        return " ".join(f"{path}={shown(value)}" for path, value in self.settings.items() if path != SEED)


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse_axis(text: str, read: Callable[[str], Any]) -> Axis:
    """``solver.grpo.lora.rank=8,32`` -> the field and its values.

    Args:
        text: ``spec.`` before the path may be left out. The values are a YAML list without its brackets.
        read: YAML -> value, as manifests are read.

    Raises:
        InputError: it cannot be understood, has no value, or one twice.
    """
    option = f"--set {text}"
    path, equals, values = text.partition("=")
    path = path.strip().removeprefix("spec.")
    if not equals or not all(_PART.fullmatch(part) for part in path.split(".")):
        raise InputError(f"{option} is not a field and its values; write it as solver.grpo.learningRate=1e-6,3e-6")
    try:
        found = read(f"[{values}]")
    except ValueError as error:
        raise InputError(f"{option}: the values are no list in YAML ({error}); quote what has signs in it") from None
    return _axis(path, found, option)


def parse_seeds(text: str) -> Axis:
    """``0-4``, ``7`` or ``0,3,10-12``.

    Raises:
        InputError: it cannot be understood, has no seed, or one twice.
    """
    option = f"--seeds {text}"
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(f"{option} is not a list of seeds; write it as 0-4, or 0,3,10-12")
        if last - first >= 100_000:
            raise InputError(f"{option} comes to {last - first + 1} seeds; write fewer")
        found += range(first, last + 1)
    return _axis(SEED, found, option)


def _axis(path: str, values: Sequence[Any], option: str) -> Axis:
    if not values:
        raise InputError(f"{option} has no value; write one or more behind the =")
    for first, second in itertools.combinations(values, 2):
        if first == second and isinstance(first, bool) == isinstance(second, bool):  # 2 and 2.0 are one
            raise InputError(f"{option} has {shown(second)} twice; keep one of them")
    return Axis(path, tuple(values), option)


def cells_of(document: dict[str, Any], axes: Sequence[Axis], limit: int) -> list[Cell]:
    """Every combination of the axes' values, the last axis fastest.

    Args:
        document: The manifest that the sweep is made from. It is left as it is.
        axes: One or more.
        limit: How many runs there may be.

    Raises:
        InputError: there is no axis, a field is set twice, a field is in none of the manifest's mappings or lists, or
            there are too many runs.
    """
    if not axes:
        raise InputError("a sweep needs at least one --set FIELD=VALUE,VALUE or --seeds; add one")
    twice = [path for path, number in Counter(axis.path for axis in axes).items() if number > 1]
    if twice:
        raise InputError(f"{twice[0]} is set by more than one option; write all of its values behind one --set")
    number = 1
    for axis in axes:
        number *= len(axis.values)
    if number > limit:
        raise InputError(
            f"the sweep comes to {number} runs, and --limit is {limit}; set fewer values, or raise --limit"
        )
    base = str(document["metadata"]["name"])
    names = _names(base, axes)
    found = []
    for name, values in zip(names, itertools.product(*(axis.values for axis in axes)), strict=True):
        made = copy.deepcopy(document)
        made["metadata"] |= {"name": name, "labels": {**(made["metadata"].get("labels") or {}), LABEL: base}}
        for axis, value in zip(axes, values, strict=True):
            _set(made["spec"], axis, value)
        found.append(Cell(name, {axis.path: v for axis, v in zip(axes, values, strict=True)}, made))
    return found


def _set(spec: dict[str, Any], axis: Axis, value: Any) -> None:
    *outer, last = axis.parts
    at: Any = spec
    for part in outer:
        if isinstance(part, str) and isinstance(at, dict):
            at[part] = at[part] if at.get(part) is not None else {}
        at = _entry(at, part, axis)
    if isinstance(last, str) and isinstance(at, dict):
        at[last] = copy.deepcopy(value)
        return
    _entry(at, last, axis)
    at[last] = copy.deepcopy(value)


def _entry(at: Any, part: str | int, axis: Axis) -> Any:
    fits = isinstance(at, list) and part < len(at) if isinstance(part, int) else isinstance(at, dict)
    if not fits:
        place = f"[{part}]" if isinstance(part, int) else part
        raise InputError(f"{axis.option}: the manifest has no place for {place} in spec.{axis.path}; correct the path")
    return at[part]


# --- names --------------------------------------------------------------------------------------------------------


def _names(base: str, axes: Sequence[Axis]) -> list[str]:
    """A name for each cell: a DNS label that says the settings, each by its whole path.

    It follows from the cell's own settings, so that two sweeps of one manifest name different runs differently, and the
    same run alike. A name that is too long, or cannot say a value as it is written, ends in a digest.
    """
    found = []
    for values in itertools.product(*(axis.values for axis in axes)):
        settings = [(_word(axis.path), value) for axis, value in zip(axes, values, strict=True)]
        name = "-".join([base, *(f"{path}-{_word(value)}" for path, value in settings)])
        exact = all(map(_says_all, values))
        found.append(name if exact and len(name) <= _MAX_NAME else _short(name, [axis.path for axis in axes], values))
    return found


def _says_all(value: Any) -> bool:
    """Whether no other value has this one's word."""
    if isinstance(value, str):
        return re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", value) is not None and value not in (
            "true",
            "false",
            "null",
        )
    return shown(value).replace(".", "-") == _word(value)


def _short(name: str, paths: Sequence[str], values: Sequence[Any]) -> str:
    digest = hashlib.sha256(json.dumps([name, paths, values], sort_keys=True).encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9].rstrip('-')}-{digest}"


def _word(value: Any) -> str:
    """``learningRate`` -> ``learning-rate``, 1e-06 -> ``1e-06``, true -> ``true``."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", shown(value)).lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "x"
