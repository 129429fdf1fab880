"""What the guards say of a run, and what follows when one of them trips (docs/guards.md). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.guard_signals import blind, watched
from selfevo_contract.phases import PHASES
from selfevo_contract.spec.guards import Guards
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import GuardStatus, Rollback
from selfevo_core.attempts import stamp
from selfevo_core.policies.base import Decision, RunState
from selfevo_core.policies.guards import GUARDS
from selfevo_core.policies.guards.base import Estimate, Guard, Reading, history_of
from selfevo_core.summary import remembered

TOGETHER = ", summed over the measurements in a row that are"
_REMEMBERED = {f"{phase.metrics}/{name}" for phase in PHASES.values() for name in remembered(phase)}
"""Figures that the status keeps of old iterations."""


def watching(spec: RunSpec) -> list[Guard]:
    """The guards of a run that are not switched off."""
    on = watched(spec)
    return [guard for guard in GUARDS if guard.field in on]


def verdicts(state: RunState) -> list[GuardStatus]:
    """What every guard that is not switched off says of the run, by what its steps have measured so far."""
    if state.spec.guards is None:
        return []
    history = history_of(state)
    recorded = {verdict.name: verdict for verdict in state.recorded.guards}
    start = state.plan.start
    return [_verdict(guard, state.spec, history, recorded.get(guard.name), start) for guard in watching(state.spec)]


def guarding(state: RunState, now: datetime) -> Decision | None:
    """The action of the first guard that has tripped. A run that is done has nothing to stop."""
    if len(state.recorded.rollbacks) > state.plan.rollbacks:
        return Decision(phase="Running", wake_at=now)  # the plan is not up to date: the next reconcile's is
    tripped = next((verdict for verdict in state.guards if verdict.state == "Tripped"), None)
    done = state.complete and state.recorded.phase == "Succeeded"
    if tripped is None or state.spec.guards is None or done:
        return None
    action = _settings(tripped.name, state.spec.guards).action
    cause = f"guard {tripped.name}: {tripped.message}"
    known = f"change spec.guards.{tripped.name} (a limit, or action: warn) to go on with what there is"
    most = state.spec.guards.max_rollbacks
    if action == "rollback" and len(state.recorded.rollbacks) < most and tripped.since is not None:
        return Decision(phase="Running", rollback=_rollback(state, tripped, now), wake_at=now)
    if state.complete:
        return None
    if action == "promoteBest":
        message = f"{cause}; the best is promoted{_and_not_closed(state)}, or {known}"
        return Decision(phase="Succeeded", reason=reasons.GUARD_TRIPPED, message=message)
    if action == "rollback":
        known = f"raise spec.guards.maxRollbacks, {most} rollbacks are done, or {known}"
    return Decision(phase="Failed", reason=reasons.GUARD_TRIPPED, message=f"{cause}; {known}, or start another run")


def _and_not_closed(state: RunState) -> str:
    """What the run does not do then, as a clause; empty where it has nothing of the kind left."""
    open_ones = [step.type for step in state.plan.steps if state.steps[step.name].state != "Succeeded"]
    left = sorted({"spec.publish" if each.publishes else "spec.finetune" for each in open_ones if each.closes})
    return f", without {' and '.join(left)}, which a run that a guard has ended does not do" if left else ""


def _rollback(state: RunState, tripped: GuardStatus, now: datetime) -> Rollback:
    assert tripped.since is not None
    abandoned = {
        step.name: step.key
        for step in state.steps.values()
        if step.state == "Succeeded" and step.iteration >= tripped.since
    }
    return Rollback(
        iteration=tripped.since,
        guard=tripped.name,
        message=tripped.message,
        at=stamp(now) or "",
        abandoned=abandoned,
    )


def rollback_line(rollback: Rollback) -> str:
    """``goes back to iteration 2 and on from there with another seed: guard flips, in iteration 3 ...``."""
    good = rollback.iteration - 1
    to = f"iteration {good}" if good else "the base"
    return f"goes back to {to}, and on from there with another seed: guard {rollback.guard}, {rollback.message}"


def _settings(name: str, guards: Guards) -> Any:
    return next(guard for guard in GUARDS if guard.name == name).settings(guards)


def _verdict(
    guard: Guard, spec: RunSpec, history: Mapping[int, Mapping[str, float]], before: GuardStatus | None, start: int
) -> GuardStatus:
    """``start`` is the iteration that the run goes on from: nothing is to blame before the one after it."""
    assert spec.guards is not None
    settings, errors = guard.settings(spec.guards), spec.guards.standard_errors
    if why := blind(guard.field, spec):
        return GuardStatus(name=guard.name, state="Blind", message=why)
    recorded = _recorded_baseline(before)
    readings = guard.readings(history, spec, recorded)
    if not readings:
        return GuardStatus(name=guard.name, state="Waiting", **_baseline(recorded))
    newest = readings[-1]
    beyond = guard.beyond(readings, settings.limit, errors)
    warned = guard.beyond(readings, guard.warns_from(settings), errors)[-1]
    # So many in a row: where fewer are known, patience is not at its end.
    out_of_patience = len(beyond) >= settings.patience and all(beyond[-settings.patience :])
    tripped = out_of_patience and settings.action != "warn" and newest.iteration > start
    good = guard.good(readings, settings.limit)
    crossed = [reading.iteration for reading, is_beyond in zip(readings, beyond, strict=True) if is_beyond]
    earlier = before.last_beyond if before else None
    return GuardStatus(
        name=guard.name,
        state="Tripped" if tripped else "Warned" if warned else "Passing",
        iteration=newest.iteration,
        value=_rounded(newest.value),
        **_baseline(newest.baseline),
        # Between the last good measurement and the first bad one may lie iterations that were not measured.
        since=max([start, *_forgotten(history, start, readings[0].iteration), *good]) + 1 if beyond[-1] else None,
        last_beyond=max([*crossed, *([earlier] if earlier is not None else [])], default=None),
        message=_sentence(guard, newest, settings, errors, warned=warned, beyond=beyond[-1]),
    )


def _forgotten(history: Mapping[int, Mapping[str, float]], start: int, first: int) -> list[int]:
    """Iterations before the ``first`` reading of which the status has scores alone: they are not held to be bad."""
    return [number for number, figures in history.items() if start < number < first and figures.keys() <= _REMEMBERED]


def _recorded_baseline(before: GuardStatus | None) -> Estimate | None:
    if before is None or before.baseline is None:
        return None
    return Estimate(before.baseline, before.baseline_error or 0.0)


def _baseline(found: Estimate | None) -> dict[str, float]:
    """As fields of the status."""
    if found is None:
        return {}
    return {"baseline": found.value} | ({"baseline_error": _rounded(found.error)} if found.error else {})


def _sentence(guard: Guard, reading: Reading, settings: Any, errors: float, *, warned: bool, beyond: bool) -> str:
    measured = f"in iteration {reading.iteration} {guard.says(reading)}"
    limit = guard.limit(settings.limit if beyond else guard.warns_from(settings))
    side = "below" if guard.below else "beyond"
    margin = f"{errors:g} standard error{'' if errors == 1 else 's'}"
    from_here = guard.warns_from(settings)
    if warned and errors and reading.error:
        [alone] = guard.beyond([reading], settings.limit if beyond else from_here, errors)
        return f"{measured}, {side} {limit} by more than {margin}" + ("" if alone else TOGETHER)
    if warned:
        return f"{measured}, {side} {limit}"
    on_the_wrong_side = guard.excess(reading, from_here) > 0
    return f"{measured}; {side} {limit}, but by no more than {margin}" if on_the_wrong_side else measured


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
