"""Where a run's Solvers go beside the object store (docs/publish.md)."""

from __future__ import annotations

from typing import Literal

from selfevo_contract.base import Closed
from selfevo_contract.spec.engines.server import TokenSecret
from selfevo_contract.spec.pods import Pods
from selfevo_contract.uris import PublishUri

HUB = "hf://"
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Variables from which the hub's client reads a token."""


class Publish(Closed):
    """Solvers are published: weights, a card, and the curriculum as a data set. Without this field nothing leaves the
    object store."""

    to: PublishUri
    """Where to: hf://owner/name, a repository of the hub; s3://bucket/prefix; file:///path, or file:path beside the
    manifest. What lies there already is never replaced: other content is refused."""
    what: Literal["best", "each"] = "best"
    """`best`: the best Solver, when every Solver is scored. `each`: every iteration's, as it is there, each at its own
    branch of the repository, or folder of the place."""
    private: bool = True
    """A repository of the hub is made private, and one that is public is refused. When false a repository that is made
    is public; one that is there stays as it is."""
    curriculum: bool = True
    """Publish the curricula of its iterations, too: at the hub as the data set of the same name."""
    token_secret: TokenSecret | None = None
    """Where the hub's token lies, which may write there; on one machine it is HF_TOKEN, or what `hf auth login`
    left."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods without their devices: it needs no GPU."""

    @property
    def at_hub(self) -> bool:
        """Whether it is a repository of the hub."""
        return self.to.startswith(HUB)
