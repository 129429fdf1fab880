"""MLflow."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfevo_contract import uris
from selfevo_contract.base import Closed
from selfevo_contract.rules import Rule
from selfevo_contract.spec.tracking.base import Project


class MlflowTracker(Closed):
    """An MLflow tracking server. Where it asks for one, the token is in the variable MLFLOW_TRACKING_TOKEN, or user and
    password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, which `pods.env` takes from a Secret."""

    kind: Literal["mlflow"]
    """Which tracker."""
    project: Project | None = None
    """Its experiment; `selfevo` when not given."""
    endpoint: uris.Endpoint
    """The server's address."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.endpoint)",
            lambda tracker: True,  # it has no default
            "a tracker of kind mlflow needs endpoint; put the tracking server's address there",
        ),
    )

    @property
    def place(self) -> str:
        """What it sends to."""
        return self.endpoint
