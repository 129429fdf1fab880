"""What a run may cost."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from selfevo_contract.base import Closed, Whole
from selfevo_contract.rules import Rule
from selfevo_contract.spec.names import Duration, seconds_of


class Budget(Closed):
    """What a run may cost. At 80 % of an amount there is an event; at 100 % the run stops at a checkpoint with reason
    BudgetExceeded, and goes on when the amount is raised. What is used so far is in status.usage."""

    wall_time: Duration | None = None
    """Stop after this long, e.g. 72h: time in which a step of the run is at work. Waiting in a queue or suspended is
    free."""
    gpu_hours: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Stop after so many GPU hours: the GPUs of every pod, times the hours for which it had them."""
    tokens: Annotated[Whole, Field(ge=1, le=10**15)] | None = None
    """Stop after so many generated tokens. Processes report them when they end well: what is over is stopped before the
    next step."""
    dollars: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Stop when the GPU hours cost so much, by dollarsPerGpuHour."""
    dollars_per_gpu_hour: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """What one GPU costs an hour."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.wallTime) || self.wallTime.matches('[1-9]')",
            lambda budget: budget.wall_time is None or seconds_of(budget.wall_time) > 0,
            "wallTime is zero, and nothing could run; write a duration such as 72h, or remove it",
        ),
        Rule(
            "!has(self.dollars) || has(self.dollarsPerGpuHour)",
            lambda budget: budget.dollars is None or budget.dollars_per_gpu_hour is not None,
            "dollars are counted by a price; add dollarsPerGpuHour, what one GPU costs an hour",
        ),
    )
