"""Whether a checkpoint's upload fits into the time that a pod has after SIGTERM. Pure.

A grace that is too short loses time and nothing else: the next attempt goes on from the checkpoint before. So it is
warned of, and nothing is refused.

    too_short(grace, size, rate)     of one checkpoint
    grace_lines(spec, model)         of all trainings of a run, before a GPU is held
"""

from __future__ import annotations

from collections.abc import Iterator

from selfevo_contract.pods import GRACE_SECONDS, pods_of
from selfevo_contract.sizing.architecture import Architecture
from selfevo_contract.sizing.fit import trainings
from selfevo_contract.sizing.memory import gpus_of
from selfevo_contract.spec.run import RunSpec

SHARE_OF_GRACE = 0.9
"""The rest is for what comes after the last upload."""
ASSUMED_BYTES_PER_SECOND = 1e9
"""Of a process's upload, before the first was measured (docs/sizing.md)."""


def too_short(
    grace: float, size: float, rate: float = ASSUMED_BYTES_PER_SECOND, *, processes: int = 1, measured: bool = False
) -> str | None:
    """What is wrong with a grace period of ``grace`` seconds for a checkpoint of ``size`` bytes, if anything.

    Args:
        rate: bytes a second of one process.
        processes: how many upload it, each its share, at the same time.
        measured: ``rate`` is what the last checkpoint took.

    >>> too_short(120, 48e9) is None, too_short(120, 800e9) is None, too_short(120, 800e9, processes=8) is None
    (True, False, True)
    """
    needed = size / processes / rate
    if needed <= SHARE_OF_GRACE * grace:
        return None
    how = "as the last one did" if measured else f"at {rate / 1e9:g} GB/s"
    by = f" by each of {processes} processes" if processes > 1 else ""
    return (
        f"a checkpoint of {size / 1e9:.2f} GB takes {needed:.0f} s to upload {how}{by}, and "
        f"pods.terminationGracePeriodSeconds is {grace:.0f}: a pod that is asked to end may lose what came after the "
        f"checkpoint before; raise it to {needed / SHARE_OF_GRACE + 1:.0f} or more"
    )


def grace_lines(spec: RunSpec, model: Architecture) -> Iterator[str]:
    """A line for each training whose pods have too short a grace, at the rate that is assumed."""
    for phase, training in trainings(spec, model).items():
        if training.updates < 1:  # before its only update one may keep its completions, and the state beside them
            continue
        pods = pods_of(spec, phase)
        grace = pods.termination_grace_period_seconds or GRACE_SECONDS
        processes = gpus_of(spec, pods) if training.sharded else 1
        if advice := too_short(grace, training.size, processes=processes):
            yield f"{phase}: {advice}"
