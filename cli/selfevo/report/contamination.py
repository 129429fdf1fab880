"""What a rollout's questions have in common with held-out ones, from its manifest's metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfevo.report.data import Overlap
from selfevo_contract.spec.rollout import OVERLAP_WORDS


def overlap_of(metrics: Mapping[str, float], tasks: Sequence[str]) -> Overlap | None:
    """The counts, with the names of ``tasks`` in the manifest's order; None where nothing was held out.

    >>> overlap_of({"overlap_8": 3.0, "overlap_13": 1.0, "overlap_8/1": 3.0}, ["a", "b"]).tasks
    {8: {'b': 3}, 13: {}}
    """
    if any(f"overlap_{length}" not in metrics for length in OVERLAP_WORDS):
        return None
    return Overlap(
        same=int(metrics.get("dropped_held_out", 0)),
        dropped=int(metrics.get("dropped_contaminated", 0)),
        words={length: int(metrics[f"overlap_{length}"]) for length in OVERLAP_WORDS},
        tasks={
            length: {
                name: int(metrics[f"overlap_{length}/{index}"])
                for index, name in enumerate(tasks)
                if metrics.get(f"overlap_{length}/{index}")
            }
            for length in OVERLAP_WORDS
        },
    )
