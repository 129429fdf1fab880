"""Whether what a training writes has room: its checkpoints on the disk, and their upload in the pod's grace period.
Asked before anything is computed.

    check(context, inputs, folder)    of the working folder's disk; the grace period is only warned of
    too_short(grace, size, rate)      pure
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.phases import BuiltInputs, GrpoInputs, Loading
from selfevo_contract.process import WORKDIR_ENV
from selfevo_contract.sizing.fit import BYTES_OF_STATE, checkpoint_bytes, disk_too_small
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.context import SHARE_OF_GRACE, Context
from selfevo_trainer.models import adapters, weights
from selfevo_trainer.models.architecture import architecture

ASSUMED_BYTES_PER_SECOND = 1e9
"""Of an upload, before the first was measured (docs/sizing.md)."""

log = logging.getLogger("selfevo")


def check(context: Context, inputs: BuiltInputs, folder: Path) -> None:
    """Ask it of the process that writes checkpoints, and of the model in ``folder``, which is trained.

    Raises:
        InputError: the disk is too small for one checkpoint.
        ServiceError: it is large enough, and too full.
    """
    if not isinstance(inputs, GrpoInputs):
        return
    if not context.rank.first or inputs.grpo.updates < 2:
        return
    size = context.checkpoint_bytes = expected_bytes(inputs.grpo, folder, inputs.loading)
    if size is None:
        return
    disk, place = shutil.disk_usage(context.workdir), f"{WORKDIR_ENV} is {str(context.workdir.parent)!r}"
    if disk.total < size:
        raise disk_too_small(f"{place}, on a disk of {disk.total / 1e9:.3g} GB", inputs.phase, size)
    if disk.free < size:
        raise ServiceError(
            f"{place}, where the disk is full: {disk.free / 1e9:.3g} of {disk.total / 1e9:.3g} GB are free, and a "
            f"checkpoint takes {size / 1e9:.3g} GB; free space there or enlarge the volume",
            reason=reasons.DISK_FULL,
        )
    grace = context.grace_seconds
    if grace is not None and (advice := too_short(grace, size, ASSUMED_BYTES_PER_SECOND, measured=False)):
        log.warning("%s", advice)


def expected_bytes(grpo: Grpo, folder: Path, loading: Loading) -> int | None:
    """Bytes of a checkpoint, less what is small; None of an adapter on a model of unknown architecture."""
    whole = adapters.whole(folder)
    try:
        return checkpoint_bytes(grpo, architecture(whole, loading))
    except InputError:
        return None if grpo.lora is not None else BYTES_OF_STATE * weights.count(whole)


def too_short(grace: float, size: float, rate: float, *, measured: bool) -> str | None:
    """What is wrong with a grace period of ``grace`` seconds for a checkpoint of ``size`` bytes, if anything. Pure.

    >>> too_short(120, 48e9, 1e9, measured=False) is None
    True
    """
    needed = size / rate
    if needed <= SHARE_OF_GRACE * grace:
        return None
    how = "as the last one did" if measured else f"at {rate / 1e9:g} GB/s"
    return (
        f"a checkpoint of {size / 1e9:.2f} GB takes {needed:.0f} s to upload {how}, and "
        f"pods.terminationGracePeriodSeconds is {grace:.0f}: a pod that is asked to end may lose what came after the "
        f"checkpoint before; raise it to {needed / SHARE_OF_GRACE + 1:.0f} or more"
    )
