"""Another run's iteration to start from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.spec.names import DnsLabel

MOST_ITERATIONS = 1000
"""How many iterations a run may have."""


class ForkFrom(Closed):
    """Another run's iteration to start from: a run of the same namespace, store, base model and adapters."""

    run: DnsLabel
    """Name of the run."""
    iteration: Annotated[Whole, Field(ge=0, le=MOST_ITERATIONS)]
    """Its iteration, whose models are the first ones here; 0 is its base model. This run's own iterations are those
    after it."""
