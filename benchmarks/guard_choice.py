"""Limits of the guards, chosen on simulated runs. Pure.

Of each guard first the most sensitive limit at which no healthy run raises an alarm; then, as long as all guards
together stay within what is allowed, again and again the change of one limit that finds most faulty runs for an alarm
of a healthy one; at last each back as far towards the literature's as no faulty run is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfevo_contract.spec.guards import Guards
from selfevo_contract.spec.run import RunSpec
from selfevo_core.policies.guards import GUARDS
from selfevo_core.policies.guards.base import History

Key = tuple[str, str]
"""A guard, and the field that alarms."""
Limits = dict[Key, float]
NEVER = 99
GRID: dict[Key, tuple[float, ...]] = {
    ("heldOut", "limit"): (2, 2.5, 3, 4, 6),
    ("flips", "limit"): (2, 2.5, 3, 4, 6),
    ("consensusWithoutGain", "limit"): (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2),
    ("labelAccuracy", "warnAt"): (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9),
    ("rewardGap", "limit"): (0, 0.05, 0.1, 0.15, 0.2, 0.3),
    ("malformed", "limit"): (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    ("malformed", "rise"): (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    ("diversity", "limit"): (0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.3, 0.2, 0.1),
    ("diversity", "fall"): (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1),
    ("similarity", "limit"): (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9),
    ("inBand", "limit"): (0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0),
    ("truncation", "warnAt"): (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4),
    ("entropy", "limit"): (0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05, 0.03),
    ("zeroSpread", "limit"): (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97),
    ("kl", "limit"): (1.5, 2, 2.5, 3, 4, 5, 7, 10, 15, 20),
    ("length", "limit"): (1.3, 1.5, 1.8, 2, 2.2, 2.5, 2.75, 3, 4, 6),
}
"""Its values, from sensitive to not. Where the signal is in standard errors, chance alone is beyond fewer than two.
`malformed` is not below the literature's: the bases of the recorded runs were taught the form of a question. Nor is a
fall of the share of different questions by less than a tenth a loss: .02 would do on two tasks, and others may vary."""
STANDARD_ERRORS = 2.0
"""`standardErrors` of the defaults. It was not chosen by the benchmark: on runs of one size any other finds as many."""
ERRORS = (0.0, 1.0, 2.0, 3.0)
"""Others, to see that."""
LITERATURE: dict[str, dict[str, Any]] = {
    "heldOut": {"limit": 2, "patience": 2, "action": "promoteBest"},
    "flips": {"limit": 2, "action": "rollback"},
    "consensusWithoutGain": {"limit": 0.1, "patience": 2, "action": "stop"},
    "labelAccuracy": {"warnAt": 0.1, "limit": 0.15, "action": "stop"},
    "rewardGap": {"limit": 0.1, "action": "stop"},
    "malformed": {"limit": 0.3, "rise": 0.2},
    "diversity": {"limit": 0.5, "fall": 1},
    "similarity": {"limit": 0.5, "patience": 3},
    "inBand": {"limit": 0.1},
    "truncation": {"warnAt": 0.05, "limit": 0.15, "action": "stop"},
    "entropy": {"limit": 0.3},
    "zeroSpread": {"limit": 0.9},
    "kl": {"limit": 10},
    "length": {"limit": 2},
}
"""Where the guards began, with no standard error."""
PATIENCE = {"similarity": 1}
"""Of the defaults, where it is another than the literature's: its action is to warn, which it does at once."""
TWO_LIMITS = {"malformed": {"limit": 1.0, "rise": 1.0}, "diversity": {"limit": 0.0, "fall": 1.0}}
"""Of guards with two, where each is out of the way."""
BY_NAME = {guard.name: guard for guard in GUARDS}


def alone(name: str, limit_field: str, value: float) -> dict[str, Any]:
    """One guard's settings with the alarm of a field at ``value`` and what else may be wrong out of the way."""
    settings: dict[str, Any] = {limit_field: value}
    if limit_field == "warnAt":
        settings["limit"] = 1.0
    for field_of_it, never in TWO_LIMITS.get(name, {}).items():
        settings.setdefault(field_of_it, never)
    return settings


def as_spec(limits: Limits) -> dict[str, dict[str, Any]]:
    """Settings with these limits; actions, other patience and whatever else as in the literature."""
    found = {name: dict(settings) for name, settings in LITERATURE.items()}
    for name, patience in PATIENCE.items():
        found[name]["patience"] = patience
    for (name, limit_field), value in limits.items():
        found[name][limit_field] = value
    for settings in found.values():
        settings["limit"] = max(settings["limit"], settings.get("warnAt", 0))
    return found


Seen = tuple[RunSpec, History]
"""A run, and what it measured."""


def first_alarms(name: str, settings: Mapping[str, Any], errors: float, runs: Sequence[Seen]) -> list[int]:
    """Of each run the first iteration of which the guard warns; `NEVER` without one."""
    guard = BY_NAME[name]
    guards = Guards.model_validate({name: settings, "standardErrors": errors})
    limit = guard.warns_from(guard.settings(guards))
    found = []
    for spec, history in runs:
        readings = guard.readings(history, spec.model_copy(update={"guards": guards}), None)
        beyond = zip(readings, guard.beyond(readings, limit, errors), strict=True)
        found.append(next((reading.iteration for reading, is_beyond in beyond if is_beyond), NEVER))
    return found


@dataclass
class Choice:
    """Runs that limits are chosen on, at one number of standard errors."""

    healthy: Sequence[Seen]
    faulty: Sequence[Seen]
    starts: Sequence[int]
    """The first iteration of each faulty run that has its fault."""
    errors: float
    known: dict[tuple[Key, float], tuple[list[int], list[int]]] = field(default_factory=dict)

    def alarms(self, key: Key, value: float) -> tuple[list[int], list[int]]:
        """First alarms of the healthy and of the faulty runs."""
        if (key, value) not in self.known:
            settings = alone(*key, value)
            self.known[key, value] = (
                first_alarms(key[0], settings, self.errors, self.healthy),
                first_alarms(key[0], settings, self.errors, self.faulty),
            )
        return self.known[key, value]

    def false_alarms(self, limits: Limits) -> int:
        """Healthy runs with any alarm."""
        all_of = [self.alarms(key, value)[0] for key, value in limits.items()]
        return sum(any(each[i] < NEVER for each in all_of) for i in range(len(self.healthy)))

    def found(self, limits: Limits) -> int:
        """Faulty runs of which a guard that was silent before the fault warns in its first iteration or later."""
        by_guard: dict[str, list[int]] = {}
        for key, value in limits.items():
            own = self.alarms(key, value)[1]
            by_guard[key[0]] = [min(pair) for pair in zip(own, by_guard.get(key[0], own), strict=True)]
        return sum(any(start <= each[i] < NEVER for each in by_guard.values()) for i, start in enumerate(self.starts))

    def limits(self, allowed: float) -> Limits:
        """See the module; ``allowed`` is a share of the healthy runs."""
        limits: Limits = {
            key: next((v for v in values if self.false_alarms({key: v}) == 0), values[-1])
            for key, values in GRID.items()
        }
        while (more := self._better(limits, allowed * len(self.healthy))) is not None:
            limits = more
        return self._towards_literature(limits, allowed * len(self.healthy))

    def _better(self, limits: Limits, most: float) -> Limits | None:
        best, before = None, (self.false_alarms(limits), self.found(limits))
        for key, values in GRID.items():
            for value in values:
                tried = {**limits, key: value}
                false, found = self.false_alarms(tried), self.found(tried)
                worth = (found - before[1]) / max(0.5, false - before[0] + 0.5)
                if false <= most and worth > 0 and (best is None or worth > best[0]):
                    best = (worth, tried)
        return best[1] if best else None

    def _towards_literature(self, limits: Limits, most: float) -> Limits:
        found = self.found(limits)
        for (name, limit_field), values in GRID.items():
            meant, now = LITERATURE[name][limit_field], limits[name, limit_field]
            for value in sorted(values, key=lambda value: abs(value - meant)):
                if abs(value - meant) >= abs(now - meant):
                    break
                tried = {**limits, (name, limit_field): value}
                if self.found(tried) >= found and self.false_alarms(tried) <= min(most, self.false_alarms(limits)):
                    limits = tried
                    break
        return limits
