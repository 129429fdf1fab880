"""A run that cannot be understood: what is said about it, and that nothing of it is touched. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from selfevo_contract.errors import InputError
from selfevo_contract.explain import explain
from selfevo_contract.run import SelfEvolutionRun, refuse_what_is_not_built
from selfevo_contract.status import RunStatus
from selfevo_operator import reasons
from selfevo_operator.children import stamp
from selfevo_operator.conditions import conditions


def understand(document: Mapping[str, Any]) -> SelfEvolutionRun:
    """The run that ``document`` describes.

    Raises:
        InputError: the API server let it through and it makes no sense, or asks for what is not built.
    """
    try:
        run = SelfEvolutionRun.model_validate(document)
    except ValidationError as error:
        raise InputError("; ".join(explain(error, SelfEvolutionRun)), reason=reasons.INVALID_SPEC) from None
    refuse_what_is_not_built(run.spec)
    return run


def refused_status(before: RunStatus, generation: int, reason: str, message: str, now: datetime) -> RunStatus:
    """The record of a run that is refused: all that was done stays in it, and a corrected spec goes on from there."""
    at = stamp(now) or ""
    return before.model_copy(
        update={
            "observed_generation": generation,
            "phase": "Failed",
            "finished_at": before.finished_at or at,
            "conditions": conditions(before.conditions, "Failed", reason, message, generation, at),
        }
    )
