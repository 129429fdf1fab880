"""Would guards notice more by summing over iterations? Ways to sum, beside each measurement by itself.

    python benchmarks/guard_sums.py

Limits are chosen on even seeds, as guards.py does, so that as many healthy runs raise an alarm; found and alarms are
those of odd seeds. It prints a line for each way and writes nothing: docs/lab-notes.md has what came of it.

    alone     each measurement by itself, beyond its limit by two standard errors (heldOut and flips: beyond the limit)
    row       shares: excesses in standard errors, summed over measurements in a row beyond the limit: spec.guards' rule
    page      shares: the same sum, less what measurements within the limit fall short of it (Page, Biometrika 41, 1954)
    scores    page, and the same sum of heldOut and flips, whose unit is a standard error
    change    alone, and page's sum of the change since the first measurement, in standard errors less an allowance

malformed, whose two limits make one measurement, and diversity's fall are summed as in row in all of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guard_choice import GRID, NEVER, STANDARD_ERRORS, Choice, Key, Seen, alone, first_alarms
from guard_faults import FAULTS
from guard_worlds import World, world
from guards import ALLOWED, SIZES, Simulate
from selfevo_contract.spec.guards import Guards
from selfevo_core.policies.guards import GUARDS
from selfevo_core.policies.guards.base import Guard, Reading

SCORES = ("heldOut", "flips")
SHARES = ("labelAccuracy", "diversity", "inBand", "truncation", "zeroSpread")
SUMMED: dict[Key, tuple[float, ...]] = {
    (name, "summed"): (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3) for name in SCORES
}
CHANGED: dict[Key, tuple[float, ...]] = {
    (name, "changed"): (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 1e9) for name in (*SCORES, *SHARES)
}
OF_SHARES = {key: values for key, values in GRID.items() if key[0] in SHARES and key[1] != "fall"}
OTHERS = {key: values for key, values in GRID.items() if key not in OF_SHARES}
PAGE: dict[Key, tuple[float, ...]] = {(name, "page"): values for (name, _), values in OF_SHARES.items()}
ALONE: dict[Key, tuple[float, ...]] = {(name, "alone"): values for (name, _), values in OF_SHARES.items()}
WAYS: dict[str, Mapping[Key, tuple[float, ...]]] = {
    "alone": {**OTHERS, **ALONE},
    "row": GRID,
    "page": {**OTHERS, **PAGE},
    "scores": {**{key: values for key, values in OTHERS.items() if key[0] not in SCORES}, **PAGE, **SUMMED},
    "change": {**OTHERS, **ALONE, **CHANGED},
}


def excesses(guard: Guard, kind: str, value: float, readings: Sequence[Reading]) -> list[float]:
    """Of each reading, in standard errors."""
    if kind != "changed":
        return [guard.excess(r, value) / (1.0 if guard.name in SCORES else r.error or 1e-9) for r in readings]
    found = []
    for reading in readings:
        first = readings[0]
        error = reading.error if guard.name == "labelAccuracy" else math.hypot(reading.error, first.error)
        before = 0.0 if guard.name == "labelAccuracy" else first.level
        change = (before - reading.level) if guard.below else (reading.level - before)
        found.append(change / (error or 1.0) - value)
    return found


def alarm(guard: Guard, kind: str, value: float, readings: Sequence[Reading]) -> int:
    """The first iteration of which the guard warns."""
    total = 0.0
    for reading, excess in zip(readings, excesses(guard, kind, value, readings), strict=True):
        total = excess if kind == "alone" else max(0.0, total + excess)
        if total > STANDARD_ERRORS:
            return reading.iteration
    return NEVER


@dataclass
class Ways(Choice):
    """Choice with more ways to hold a guard against its limit."""

    readings: dict[str, tuple[list[list[Reading]], list[list[Reading]]]] = field(default_factory=dict)

    def alarms(self, key: Key, value: float) -> tuple[list[int], list[int]]:
        """See Choice.alarms."""
        name, kind = key
        if key not in GRID and (key, value) not in self.known:
            guard = next(each for each in GUARDS if each.name == name)
            of = self.readings.setdefault(name, (read(guard, self.healthy), read(guard, self.faulty)))
            healthy, faulty = ([alarm(guard, kind, value, readings) for readings in runs] for runs in of)
            self.known[key, value] = (healthy, faulty)
        if (key, value) not in self.known:
            settings = alone(*key, value)
            healthy, faulty = (first_alarms(name, settings, self.errors, runs) for runs in (self.healthy, self.faulty))
            self.known[key, value] = (healthy, faulty)
        return self.known[key, value]

    def chosen(self, grid: Mapping[Key, tuple[float, ...]], allowed: float) -> dict[Key, float]:
        """As Choice.limits, of other fields, and not brought back towards the literature's."""
        limits = {
            key: next((v for v in values if self.false_alarms({key: v}) == 0), values[-1])
            for key, values in grid.items()
        }
        while True:
            before, best = (self.false_alarms(limits), self.found(limits)), (0.0, limits)
            for key, values in grid.items():
                for value in values:
                    tried = {**limits, key: value}
                    false, found = self.false_alarms(tried), self.found(tried)
                    worth = (found - before[1]) / max(0.5, false - before[0] + 0.5)
                    if false <= allowed * len(self.healthy) and worth > best[0]:
                        best = (worth, tried)
            if best[0] == 0.0:
                return limits
            limits = best[1]


def read(guard: Guard, runs: Sequence[Seen]) -> list[list[Reading]]:
    """A guard's readings of each run: of diversity the share alone, whatever it has fallen."""
    guards = Guards.model_validate({"diversity": {"fall": 1}})
    return [guard.readings(past, spec.model_copy(update={"guards": guards}), None) for spec, past in runs]


def ways(healthy: list[World], faulty: list[World], simulate: Simulate) -> Ways:
    """Runs that limits are chosen or judged on."""
    starts = [each.start for each in faulty]
    return Ways(simulate.seen(healthy), simulate.seen(faulty), starts, STANDARD_ERRORS)


def main() -> int:
    """Choose and judge each way."""
    simulate, odd = Simulate(), [2 * i + 1 for i in range(200)]
    even = [world(2 * i, fault, SIZES) for fault in FAULTS for i in range(24)]
    choice = ways([world(2 * i, None, SIZES) for i in range(600)], even, simulate)
    judged = {
        size: ways(
            [world(seed, None, (size,)) for seed in odd],
            [world(seed, fault, (size,)) for fault in FAULTS for seed in odd[:60]],
            simulate,
        )
        for size in (*SIZES, 16.0)
    }
    for name, grid in WAYS.items():
        limits = choice.chosen(grid, ALLOWED)
        there = [
            f"{size:g} times: {runs.found(limits)} of {len(runs.faulty)}, {runs.false_alarms(limits)} alarms"
            for size, runs in judged.items()
        ]
        print(f"{name}: {choice.found(limits)} of {len(choice.faulty)} found on even seeds; {'; '.join(there)}")
        print("   ", {".".join(key): value for key, value in limits.items()}, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
