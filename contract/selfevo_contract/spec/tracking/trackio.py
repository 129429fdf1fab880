"""Trackio."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract import uris
from selfevo_contract.base import Closed
from selfevo_contract.rules import Rule, form
from selfevo_contract.spec.tracking.base import Project

Space = Annotated[
    str,
    Field(max_length=200),
    form("[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+", "<owner>/<space>"),
]


class TrackioTracker(Closed):
    """Trackio, in a Space of the Hugging Face Hub, which is made private, or on a server of one's own. The token is in
    the variable HF_TOKEN or TRACKIO_WRITE_TOKEN, which `pods.env` takes from a Secret."""

    kind: Literal["trackio"]
    """Which tracker."""
    project: Project | None = None
    """Its project; `selfevo` when not given."""
    space: Space | None = None
    """The Space, `<owner>/<space>`."""
    endpoint: uris.Endpoint | None = None
    """The address of a Trackio server, in place of a Space."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.space) != has(self.endpoint)",
            lambda tracker: (tracker.space is None) != (tracker.endpoint is None),
            "a tracker of kind trackio needs either space or endpoint; give one of them",
        ),
    )

    @property
    def place(self) -> str:
        """What it sends to."""
        return self.endpoint or f"hf://spaces/{self.space}"
