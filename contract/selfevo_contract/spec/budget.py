"""What a run may cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed
from selfevo_contract.spec.names import Duration


class Budget(Closed):
    """What a run may cost."""

    wall_time: Duration | None = None
    """Stop after this long, e.g. 72h."""
    gpu_hours: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Stop after so many GPU hours."""
