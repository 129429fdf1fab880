"""What a trainer's process reports of its progress, found in its log. Pure.

A log holds whatever anybody made the process say: nothing of it is taken but a report of ours about this very step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from selfevo_contract.process import Progress
from selfevo_core.attempts import parse_stamp
from selfevo_operator.manifests.labels import TRAINER
from selfevo_operator.observed.snapshots import JobSnapshot

_INDEX = "batch.kubernetes.io/job-completion-index"
_LINE = 4096
"""Characters of the longest line that is read as a report."""


class Report(NamedTuple):
    """How far a process was."""

    at: datetime
    progress: Progress


def newest_report(log: str, step: str) -> Report | None:
    """The last report about ``step`` in a log whose every line begins with its time; None when there is none."""
    for line in reversed(log.splitlines()):
        stamp, _, text = line.partition(" ")
        if len(text) > _LINE or not text.startswith("{"):
            continue
        try:
            progress, at = Progress.model_validate_json(text), parse_stamp(stamp)
        except (ValidationError, ValueError):
            continue
        if progress.step == step and at is not None and at.tzinfo is not None:
            return Report(at, progress)
    return None


def pods_that_report(job: JobSnapshot, pods: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Shard -> name of its newest pod that has begun; of pods that train together, the first one reports."""
    found: dict[int, str] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        metadata, status = pod["metadata"], pod.get("status") or {}
        index = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}.get(_INDEX, "0")
        containers = status.get("containerStatuses") or []
        begun = any(c.get("name") == TRAINER and "waiting" not in (c.get("state") or {}) for c in containers)
        if begun and index.isdecimal() and (job.together == 1 or index == "0"):
            found[int(index)] = metadata["name"]
    return dict(sorted(found.items()))
