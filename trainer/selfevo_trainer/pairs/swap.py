"""A task's own answer over the answer to its neighbour: it must be about the task."""

from __future__ import annotations

from selfevo_trainer.pairs.base import Made, Sources


def make(sources: Sources) -> list[Made]:
    """Every task with the answer to the next one; nothing of a single task."""
    count = len(sources.tasks)
    if count < 2:
        return []
    return [Made(i, sources.answers[i], sources.answers[(i + 1) % count]) for i in range(count)]
