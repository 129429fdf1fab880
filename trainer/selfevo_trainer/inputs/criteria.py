"""The criteria of a judge that is not trained: read from files, checked, and shown to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from selfevo_contract.errors import InputError
from selfevo_contract.spec.data import Data
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.data import read_bytes

FIELD = "spec.verifier.rubric.criteria"
_KEYS = ("name", "description", "weight", "scale")
_LARGEST = 1 << 20
POINTS = 5
"""Choices of a criterion that says nothing of its scale."""


@dataclass(frozen=True)
class Criterion:
    """One thing that answers are judged by."""

    name: str
    description: str
    weight: float
    scale: tuple[str, ...]
    """What each choice means, from worst to best; empty texts where only their number is given."""

    def share(self, choice: int) -> float:
        """``choice``, counted from 1, in 0..1.

        >>> Criterion("a", "b", 1.0, ("bad", "fair", "good")).share(2)
        0.5
        """
        return (choice - 1) / (len(self.scale) - 1)


def read_criteria(context: Context, files: Sequence[Data]) -> list[Criterion]:
    """All criteria of ``files``, in order.

    Raises:
        InputError: one sentence for the first fault.
    """
    found: list[Criterion] = []
    for index, data in enumerate(files):
        field = f"{FIELD}[{index}]"
        found += parse_criteria(read_bytes(context, data, field), f"{field}.uri is {data.uri!r}")
    names = [criterion.name for criterion in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{FIELD} has a criterion named {twice!r} twice; give each a name of its own")
    return found


def parse_criteria(raw: bytes, where: str) -> list[Criterion]:
    """The criteria of one file. ``where`` begins sentences about it. Pure.

    Raises:
        InputError: it is neither JSON nor YAML, or does not say what it must.
    """
    content = _parsed(raw, where)
    if not isinstance(content, dict) or set(content) != {"criteria"}:
        raise InputError(f"{where}, which is no object with criteria and nothing else; write criteria: and a list")
    entries = content["criteria"]
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}, whose criteria are {_shown(entries)}; write a list with at least one criterion")
    return [_criterion(entry, f"{where}, whose criterion {number}") for number, entry in enumerate(entries, 1)]


def _parsed(raw: bytes, where: str) -> Any:
    if len(raw) > _LARGEST:
        raise InputError(f"{where}, which is larger than 1 MiB; write criteria that a judge can read")
    try:
        # JSON is YAML, but for what is rare in it. The safe loader makes no objects; aliases grow, and are refused.
        text = raw.decode()
        try:
            return json.loads(text)
        except ValueError:
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
                raise InputError(f"{where}, which has an alias (*name) of YAML; write out what it stands for") from None
            return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())[:120]
        raise InputError(f"{where}, which is neither JSON nor YAML ({detail}); correct it") from None


def _criterion(entry: Any, where: str) -> Criterion:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {_shown(entry)}; write an object with name, description, weight and scale")
    if unknown := next((key for key in entry if key not in _KEYS), None):
        raise InputError(f"{where} has {_shown(unknown)}; a criterion has {', '.join(_KEYS)}, and nothing else")
    for key in ("name", "description"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where} has {_shown(value)} as {key}; write a text")
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1_000_000:
        raise InputError(f"{where} has {_shown(weight)} as weight; write a number above 0, or leave the criterion out")
    return Criterion(entry["name"].strip(), entry["description"].strip(), float(weight), _scale(entry, where))


def _scale(entry: dict[str, Any], where: str) -> tuple[str, ...]:
    scale = entry.get("scale", POINTS)
    if isinstance(scale, int) and not isinstance(scale, bool) and 2 <= scale <= 100:
        return ("",) * scale
    if isinstance(scale, list) and 2 <= len(scale) <= 100 and all(isinstance(each, str) and each for each in scale):
        return tuple(scale)
    raise InputError(
        f"{where} has {_shown(scale)} as scale; write what each choice means, from worst to best, or how many there "
        "are, 2 to 100"
    )


def _shown(value: Any) -> str:
    return repr(value)[:40] if value is not None else "nothing"


def as_text(criteria: Sequence[Criterion], *, numbered: bool = True) -> str:
    """The criteria as the judge is shown them, with the numbers of the choices where it is to choose one."""
    lines = []
    for criterion in criteria:
        lines.append(f"- {json.dumps(criterion.name, ensure_ascii=False)}: {criterion.description}")
        if not numbered:
            lines += [f"  from worst to best: {'; '.join(criterion.scale)}"] if any(criterion.scale) else []
        elif any(criterion.scale):
            lines += [f"  {number} = {meaning}" for number, meaning in enumerate(criterion.scale, 1)]
        else:
            lines.append(f"  a whole number from 1 (worst) to {len(criterion.scale)} (best)")
    return "\n".join(lines)
