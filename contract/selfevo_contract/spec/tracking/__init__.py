"""Where a run can be watched beside its own report: the settings of each kind of tracker, one kind a file.

A kind is a file beside this one, a name in `Tracker`, and a file of its name in `selfevo_trainer.tracking`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.spec.tracking.mlflow import MlflowTracker
from selfevo_contract.spec.tracking.tensorboard import TensorboardTracker
from selfevo_contract.spec.tracking.trackio import TrackioTracker
from selfevo_contract.spec.tracking.wandb import WandbTracker

__all__ = ["MlflowTracker", "TensorboardTracker", "Tracker", "TrackioTracker", "WandbTracker"]

Tracker = Annotated[MlflowTracker | TensorboardTracker | TrackioTracker | WandbTracker, Field(discriminator="kind")]
