"""Weights & Biases."""

from __future__ import annotations

from typing import ClassVar, Literal

from selfevo_contract import uris
from selfevo_contract.base import Closed
from selfevo_contract.spec.tracking.base import Project


class WandbTracker(Closed):
    """Weights & Biases, its service or a server of one's own. The key is in the variable WANDB_API_KEY, which
    `pods.env` takes from a Secret."""

    service: ClassVar[str] = "https://api.wandb.ai"
    """What is asked without an endpoint."""

    kind: Literal["wandb"]
    """Which tracker."""
    project: Project | None = None
    """Its project; `selfevo` when not given."""
    entity: Project | None = None
    """The team or user whose project it is; the key's own when not given."""
    endpoint: uris.Endpoint | None = None
    """The server's address; W&B's own service when not given."""

    @property
    def place(self) -> str:
        """What it sends to."""
        return self.endpoint or self.service
