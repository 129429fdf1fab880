"""The status of a run whose spec cannot be parsed; nothing of such a run is touched but what it stops. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.explain import explain
from selfevo_contract.phases import PUBLISH
from selfevo_contract.pods import pods_of
from selfevo_contract.run import SelfEvolutionRun, refuse_what_is_not_built
from selfevo_contract.sizing.fit import refuse_what_does_not_fit
from selfevo_contract.sizing.layout import laid_out
from selfevo_contract.spec.publish import HUB_TOKENS
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import RunPhase, RunStatus
from selfevo_core.attempt_end import attempt_history, newest
from selfevo_core.attempts import ObservedAttempt, stamp
from selfevo_core.conditions import conditions


def parse_run(document: Mapping[str, Any], recorded: RunStatus | None = None) -> SelfEvolutionRun:
    """The run that ``document`` describes, laid out as it is ``recorded``, or for the first time.

    Raises:
        InputError: the API server let it through and it makes no sense, or asks for what is not built, or does not fit
            on the GPUs that it names.
    """
    try:
        run = SelfEvolutionRun.model_validate(document)
    except ValidationError as error:
        raise InputError("; ".join(explain(error, SelfEvolutionRun)), reason=reasons.INVALID_SPEC) from None
    refuse_what_is_not_built(run.spec)
    run = laid_out(run.model_copy(update={"status": recorded}))
    refuse_what_does_not_fit(run.spec)
    _refuse_publication_without_token(run.spec)
    return run


def _refuse_publication_without_token(spec: RunSpec) -> None:
    """At once, and not when the training is done.

    Raises:
        InputError: the run is published at the hub, and its pods get no token.
    """
    publish = spec.publish
    if publish is None or not publish.at_hub or publish.token_secret is not None:
        return
    if not any(variable.name in HUB_TOKENS for variable in pods_of(spec, PUBLISH.name).env):
        raise InputError(
            f"spec.publish.to is {publish.to!r}, and no token may write there; name a Secret that holds one in "
            "spec.publish.tokenSecret"
        )


def invalid_spec_status(
    before: RunStatus,
    generation: int,
    reason: str,
    message: str,
    now: datetime,
    *,
    suspended: bool = False,
    live: Sequence[ObservedAttempt] = (),
    ended: Sequence[str] = (),
    stops: Mapping[str, str] = MappingProxyType({}),
) -> RunStatus:
    """The record of a run that is refused: all that was done stays in it, and a corrected spec goes on from there.

    Args:
        suspended: its ``spec.suspend`` says so; that is heeded whatever else it says.
        live: the attempts that have not ended; what runs goes on.
        ended: names of those that have, and whose ends are read when the spec is understood again.
        stops: names of attempts that are being stopped, and why.
    """
    at = stamp(now) or ""
    phase: RunPhase = "Suspended" if suspended else "Failed"
    kept = [line for line in before.attempts if line.name in ended]
    others = [line for line in before.attempts if line.name not in ended]
    return before.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase,
            "finished_at": None if suspended else before.finished_at or at,
            "attempts": newest([*kept, *attempt_history(others, live, stops)]),
            "conditions": conditions(before.conditions, phase, reason, message, generation, at, stuck=True),
        }
    )
