"""What the guards say of a run, and what follows when one of them trips (docs/guards.md). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from selfevo_contract import reasons
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import GuardStatus
from selfevo_core.policies.base import Decision, RunState
from selfevo_core.policies.guards import GUARDS
from selfevo_core.policies.guards.base import Guard, Reading, history_of


def watching(spec: RunSpec) -> list[Guard]:
    """The guards of a run that are not switched off."""
    if spec.guards is None:
        return []
    return [guard for guard in GUARDS if guard.settings(spec.guards).action != "ignore"]


def blind_guards(spec: RunSpec) -> dict[str, str]:
    """Those of them whose signal the run does not have, by name, and why."""
    return {guard.name: why for guard in watching(spec) if (why := guard.blind(spec))}


def verdicts(state: RunState) -> list[GuardStatus]:
    """What every guard that is not switched off says of the run, by what its steps have measured so far."""
    if state.spec.guards is None:
        return []
    history = history_of(state)
    recorded = {verdict.name: verdict for verdict in state.recorded.guards}
    return [_verdict(guard, state.spec, history, recorded.get(guard.name)) for guard in watching(state.spec)]


def guarding(state: RunState, now: datetime) -> Decision | None:
    """The action of the first guard that has tripped. A run that is done has nothing to stop."""
    if state.complete:
        return None
    tripped = next((verdict for verdict in state.guards if verdict.state == "Tripped"), None)
    if tripped is None:
        return None
    return Decision(
        phase="Failed",
        reason=reasons.GUARD_TRIPPED,
        message=f"guard {tripped.name}: {tripped.message}; change spec.guards.{tripped.name} (a limit, or action: "
        "warn) to go on with what there is, or start another run",
    )


def _verdict(
    guard: Guard, spec: RunSpec, history: Mapping[int, Mapping[str, float]], before: GuardStatus | None
) -> GuardStatus:
    assert spec.guards is not None
    settings = guard.settings(spec.guards)
    if why := guard.blind(spec):
        return GuardStatus(name=guard.name, state="Blind", message=why)
    readings = guard.readings(history, spec, before.baseline if before else None)
    if not readings:
        return GuardStatus(name=guard.name, state="Waiting", baseline=before.baseline if before else None)
    newest = readings[-1]
    beyond = [guard.beyond(reading, settings.limit) for reading in readings]
    warned = guard.beyond(newest, getattr(settings, "warn_at", settings.limit))
    # So many in a row: where fewer are known, patience is not at its end.
    out_of_patience = len(beyond) >= settings.patience and all(beyond[-settings.patience :])
    tripped = out_of_patience and settings.action != "warn"
    crossed = [reading.iteration for reading, is_beyond in zip(readings, beyond, strict=True) if is_beyond]
    earlier = before.last_beyond if before else None
    return GuardStatus(
        name=guard.name,
        state="Tripped" if tripped else "Warned" if warned else "Passing",
        iteration=newest.iteration,
        value=_rounded(newest.value),
        baseline=newest.baseline,
        last_beyond=max([*crossed, *([earlier] if earlier is not None else [])], default=None),
        message=_sentence(guard, newest, settings, warned=warned, beyond=beyond[-1]),
    )


def _sentence(guard: Guard, reading: Reading, settings: object, *, warned: bool, beyond: bool) -> str:
    said = f"in iteration {reading.iteration} {guard.says(reading)}"
    if not warned:
        return said
    field = "limit" if beyond else "warn_at"
    side = "below" if guard.below else "beyond"
    return f"{said}, {side} {guard.limit(getattr(settings, field))}"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
