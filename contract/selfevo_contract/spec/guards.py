"""When a run that goes wrong is stopped."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.base import Closed


class Guards(Closed):
    """When a run that goes wrong is stopped."""

    max_score_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Stop when the score falls this far below the best."""
    min_in_band: Annotated[float, Field(ge=0, le=1)] | None = None
    """Stop when a smaller share of questions than this falls into the band."""
