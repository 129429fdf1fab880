"""A run's phase as conditions: Ready, Reconciling and Stalled as kstatus reads them, and three of our own.

| phase     | Ready | Reconciling | Stalled | Suspended | Complete | Failed |
|-----------|-------|-------------|---------|-----------|----------|--------|
| Pending   | False | True        | False   | False     | False    | False  |
| Running   | False | True        | False   | False     | False    | False  |
| Suspended | False | False       | False   | True      | False    | False  |
| Succeeded | True  | False       | False   | False     | True     | False  |
| Failed    | False | False       | True    | False     | False    | True   |

A run that is Pending or Running and cannot go on by itself (an image that is not there, a Job that the cluster refuses)
is Stalled and not Reconciling. With both, kstatus would go by the one that comes first in the list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfevo_contract import reasons
from selfevo_contract.status import Condition, GuardStatus, RunPhase

_TRUE_IN: dict[str, tuple[RunPhase, ...]] = {
    "Ready": ("Succeeded",),
    "Reconciling": ("Pending", "Running"),
    "Stalled": ("Failed",),
    "Suspended": ("Suspended",),
    "Complete": ("Succeeded",),
    "Failed": ("Failed",),
}
# What the API server accepts as a condition's reason.
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_MESSAGE_LIMIT = 1024


def conditions(
    before: Sequence[Condition],
    phase: RunPhase,
    reason: str,
    message: str,
    generation: int,
    now: str,
    *,
    stuck: bool = False,
) -> list[Condition]:
    """The six conditions. ``lastTransitionTime`` moves only where a condition's status flips."""
    known = {condition.type: condition for condition in before}
    reason = reason if _REASON.fullmatch(reason) and len(reason) <= 256 else phase
    found = []
    for kind, phases in _TRUE_IN.items():
        true = phase in phases
        if stuck:
            true = kind == "Stalled" or (true and kind != "Reconciling")
        found.append(_condition(known.get(kind), kind, true, reason, message, generation, now))
    return found


def guard_condition(
    before: Sequence[Condition], guards: Sequence[GuardStatus], generation: int, now: str
) -> list[Condition]:
    """GuardTripped: True where a guard has tripped or warned. Only of a run that has guards, or has had."""
    old = next((condition for condition in before if condition.type == reasons.GUARD_TRIPPED), None)
    if not guards and old is None:
        return []
    loud = [guard for guard in guards if guard.state == "Tripped"] or [g for g in guards if g.state == "Warned"]
    reason = reasons.GUARDS_PASSING
    if loud:
        reason = reasons.GUARD_TRIPPED if loud[0].state == "Tripped" else reasons.GUARD_WARNED
    message = "; ".join(f"{guard.name}: {guard.message}" for guard in loud)
    return [_condition(old, reasons.GUARD_TRIPPED, bool(loud), reason, message, generation, now)]


def watch_of(guards: Sequence[GuardStatus]) -> str:
    """A column of `kubectl get ser -o wide`: ``tripped: kl; warned: truncation``, or ``passing``.

    >>> watch_of([])
    ''
    """
    named = {
        state: ", ".join(guard.name for guard in guards if guard.state == state) for state in ("Tripped", "Warned")
    }
    loud = "; ".join(f"{state.lower()}: {names}" for state, names in named.items() if names)
    return loud or ("passing" if guards else "")


def _condition(
    old: Condition | None, kind: str, true: bool, reason: str, message: str, generation: int, now: str
) -> Condition:
    status = "True" if true else "False"
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message if len(message) <= _MESSAGE_LIMIT else message[: _MESSAGE_LIMIT - 1] + "…",
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and old.status == status else now,
    )
