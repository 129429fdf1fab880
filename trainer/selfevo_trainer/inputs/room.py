"""Whether what a training writes has room: its checkpoints on the disk, and their upload in the pod's grace period.
Asked before anything is computed.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from selfevo_contract import reasons
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.phases import BuiltInputs, GrpoInputs, Loading, VerifierTrainInputs
from selfevo_contract.process import WORKDIR_ENV
from selfevo_contract.sizing.fit import BYTES_OF_STATE, checkpoint_bytes, disk_too_small, judge_checkpoint_bytes
from selfevo_contract.sizing.grace import too_short
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.verifier import Verifier
from selfevo_trainer.context import Context
from selfevo_trainer.models import adapters, weights
from selfevo_trainer.models.architecture import architecture

log = logging.getLogger("selfevo")


def check(context: Context, inputs: BuiltInputs, folder: Path) -> None:
    """As `check_training`, where the phase is a role's training, of the model in ``folder``."""
    if isinstance(inputs, GrpoInputs):
        check_training(context, inputs, inputs.grpo.updates, folder)


def check_training(context: Context, inputs: GrpoInputs | VerifierTrainInputs, updates: int, folder: Path) -> None:
    """Ask it of each process that writes checkpoints, and of the model in ``folder``, which ``updates`` train.

    In a sharded training that is every process: each pod has a disk of its own, which holds the whole of a checkpoint
    when training goes on from it. The grace period is only warned of.

    Raises:
        InputError: the disk is too small for one checkpoint.
        ServiceError: it is large enough, and too full.
    """
    trained = inputs.settings if isinstance(inputs, VerifierTrainInputs) else inputs.grpo
    sharded = isinstance(trained, Grpo) and trained.sharded
    if updates < 1 or not (context.rank.first or sharded):
        return
    size = context.checkpoint_bytes = expected_bytes(trained, folder, inputs.loading)
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
    grace, processes = context.grace_seconds, context.rank.size if sharded else 1
    if grace is not None and context.rank.first and (advice := too_short(grace, size, processes=processes)):
        log.warning("%s", advice)


def expected_bytes(trained: Grpo | Verifier, folder: Path, loading: Loading) -> int | None:
    """Bytes of a checkpoint of a role or of a judge, less what is small; None, with a warning, of an adapter on a model
    that is not counted."""
    whole = adapters.whole(folder)
    try:
        model = architecture(whole, loading)
        if isinstance(trained, Verifier):
            return judge_checkpoint_bytes(trained, model)
        return checkpoint_bytes(trained, model)
    except InputError as error:
        if trained.lora is None:
            return BYTES_OF_STATE * weights.count(whole)
        log.warning("whether a checkpoint has room is not checked, for the model's sizes are not known: %s", error)
        return None
