"""Another run's iteration to start from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.spec.names import DnsLabel


class ForkFrom(Closed):
    """Another run's iteration to start from."""

    run: DnsLabel
    """Name of the run."""
    iteration: Annotated[Whole, Field(ge=0, le=1000)]
    """Its iteration; 0 is its base model."""
