"""TensorBoard."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Closed


class TensorboardTracker(Closed):
    """Event files for TensorBoard, below `tensorboard/<namespace>/<run>/` of the run's own store:
    `tensorboard --logdir <storage.uri>/tensorboard/<namespace>/<run>` shows them, from a bucket too."""

    kind: Literal["tensorboard"]
    """Which tracker."""

    @property
    def place(self) -> str:
        """What it sends to; nothing but the run's own store."""
        return ""
