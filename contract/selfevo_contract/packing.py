"""Records of steps that are long done, each in a line: a status of 1,000 iterations fits into etcd. Pure.

    evaluate-3 PzTnpJmbUrYF0mx1lm2xNmtNW7iPHPv5KRvRNLBd7hE mean=0.5123 greedy=0.4812

is the step's name, its key (SHA-256) in base64 without padding, and the scores by which the best iteration is
found, or which judges were promoted.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from selfevo_contract.phases import PHASES

PLAIN = 400
"""Records that a status has as they are: those of 80 to 130 iterations, 160 KB at most."""
NEWEST = 20
"""Iterations that stay as they are in any case."""
_CLOSING = {phase.name for phase in PHASES.values() if phase.closes and not phase.publishes}
"""Phases whose records stay as they are, however old their iteration is."""
_FIGURES = {phase.name for phase in PHASES.values() if phase.scores or phase.kept}
_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([a-z-]+)-([0-9]+)")


def packed(steps: Sequence[Mapping[str, Any]], shown: set[int]) -> tuple[list[str], list[Mapping[str, Any]]]:
    """The records, as JSON-ready data, as lines and what stays as it is.

    Args:
        shown: iterations whose figures the status shows: their steps stay.
    """
    if len(steps) <= PLAIN:
        return [], list(steps)
    newest = max(step["iteration"] for step in steps) - NEWEST
    lines, kept = [], []
    for step in steps:
        line = _line(step) if step["iteration"] < newest and step["iteration"] not in shown else ""
        if line:
            lines.append(line)
        else:
            kept.append(step)
    return lines, kept


def _line(step: Mapping[str, Any]) -> str:
    plain = step["name"] == f"{step['phase']}-{step['iteration']}" and _KEY.fullmatch(step["key"])
    if step["state"] != "Succeeded" or step.get("message") or not plain or step["phase"] in _CLOSING:
        return ""
    key = base64.urlsafe_b64encode(bytes.fromhex(step["key"])).decode().rstrip("=")
    scores = step.get("metrics", {}) if step["phase"] in _FIGURES else {}  # other figures are in the store
    return " ".join([step["name"], key, *(f"{name}={value!r}" for name, value in scores.items())])


def unpacked(lines: Sequence[Any]) -> list[dict[str, Any]]:
    """The records, as JSON-ready data; a line that is none is left out."""
    return [record for record in map(_record, lines) if record is not None]


def _record(line: Any) -> dict[str, Any] | None:
    try:
        name, key, *scores = str(line).split(" ")
        digest = base64.urlsafe_b64decode(key + "=").hex()
        metrics = {name: float(value) for name, _, value in (score.partition("=") for score in scores)}
    except (ValueError, binascii.Error):
        return None
    found = _NAME.fullmatch(name)
    if found is None or not _KEY.fullmatch(digest):
        return None
    tried = {"state": "Succeeded", "attempts": 1, "ended": 1}
    return {"name": name, "phase": found[1], "iteration": int(found[2]), "key": digest, **tried, "metrics": metrics}
