"""Do the guards notice what goes wrong, and nothing else? Simulated runs, healthy and with faults, through reconcile.

    python benchmarks/guards.py

guard_worlds.py makes the figures of a run from recorded ones; the operator's reconcile watches them (guard_watch.py).
Limits are chosen on even seeds: of each guard the most sensitive one of `GRID` of which at most `ALLOWED` of the
healthy runs raise an alarm. They and the defaults are judged on odd seeds, which the choice has not seen.

    found       a guard that was silent before the fault warns or trips in its first iteration or later
    late        iterations between the fault's first and the alarm's
    recovered   all guards roll back, and the fault is gone with the first rollback (whether another seed or a person
                takes it away is not simulated): the run ends no more than three points below its healthy twin
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from guard_faults import FAULTS
from guard_watch import Watch
from guard_worlds import ITERATIONS, Simulation, World, healthy_records, scatter, world
from machine import commit, machine
from runs import example
from selfevo_contract.phases import PHASES
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.guards import Guards
from selfevo_core.policies.guards import GUARDS

ALLOWED = 0.001
"""Of the healthy runs of the choosing half, for each guard by itself."""
GRID: dict[tuple[str, str], list[float]] = {
    ("heldOut", "limit"): [1.5, 2, 2.5, 3, 4, 6],
    ("flips", "limit"): [1.5, 2, 2.5, 3, 4, 6],
    ("labelAccuracy", "warnAt"): [0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    ("malformed", "limit"): [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    ("malformed", "rise"): [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5],
    ("diversity", "limit"): [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
    ("inBand", "limit"): [0.2, 0.15, 0.1, 0.08, 0.05, 0.03, 0.02, 0.01],
    ("truncation", "warnAt"): [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5],
    ("entropy", "limit"): [0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03],
    ("zeroSpread", "limit"): [0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99],
    ("kl", "limit"): [2, 3, 5, 7, 10, 15, 20, 30],
    ("length", "limit"): [1.3, 1.5, 2, 2.5, 3, 4, 6],
}
"""Guard and the field that alarms -> its values, from sensitive to not."""
LITERATURE: dict[str, dict[str, Any]] = {
    "heldOut": {"limit": 2, "patience": 2, "action": "promoteBest"},
    "flips": {"limit": 2, "action": "rollback"},
    "labelAccuracy": {"warnAt": 0.1, "limit": 0.15, "action": "stop"},
    "malformed": {"limit": 0.3, "rise": 0.2},
    "diversity": {"limit": 0.5},
    "inBand": {"limit": 0.1},
    "truncation": {"warnAt": 0.05, "limit": 0.15, "action": "stop"},
    "entropy": {"limit": 0.3},
    "zeroSpread": {"limit": 0.9},
    "kl": {"limit": 10},
    "length": {"limit": 2},
}
"""What the defaults were before this benchmark."""
NONE = Path("/nonexistent")
CLOSE = 0.03


def the_run(of: World, guards: Mapping[str, Any]) -> SelfEvolutionRun:
    """A run whose figures a world makes."""
    over: dict[str, Any] = {"iterations": ITERATIONS, "guards": dict(guards)}
    if not of.oracle:
        over["rollout"] = {"oracle": None}
    return example("frontier", over, store=NONE)


def history(rows: Mapping[int, Mapping[str, float]]) -> dict[int, dict[str, float]]:
    """Rows as guards read them."""
    return {
        number: {f"{PHASES[name.split('/')[0]].metrics}/{name.split('/', 1)[1]}": value for name, value in row.items()}
        for number, row in rows.items()
    }


def settings_at(name: str, field: str, value: float) -> dict[str, Any]:
    """One guard's settings with the alarm of ``field`` at ``value`` and what else may be wrong out of the way."""
    settings: dict[str, Any] = {field: value}
    if field == "warnAt":
        settings["limit"] = max(LITERATURE[name]["limit"], value)
    if name == "malformed":
        settings["rise" if field == "limit" else "limit"] = 1.0
    return settings


def choose(seeds: Iterable[int], simulate: Simulate) -> dict[str, dict[str, Any]]:
    """Of each guard the most sensitive value with few false alarms, and how many healthy runs alarm at each value."""
    healthy = [history(simulate.rows(world(seed, None))) for seed in seeds]
    by_name = {guard.name: guard for guard in GUARDS}
    found: dict[str, dict[str, Any]] = {}
    for (name, field), values in GRID.items():
        guard, counts = by_name[name], {}
        for value in values:
            settings = settings_at(name, field, value)
            spec = the_run(World(0, None, 1, 0.0, True), {name: settings}).spec
            limit = value if field == "warnAt" else settings["limit"]
            counts[value] = sum(
                any(guard.beyond(reading, limit) for reading in guard.readings(seen, spec, None)) for seen in healthy
            )
        few = [value for value, count in counts.items() if count <= ALLOWED * len(healthy)]
        found[f"{name}.{field}"] = {
            "chosen": few[0] if few else None,
            "healthy_runs_with_alarm": {str(value): count for value, count in counts.items()},
        }
    return found


def chosen_limits(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`spec.guards` with them; actions and patience as they were."""
    limits = {name: dict(settings) for name, settings in LITERATURE.items()}
    for path, row in chosen.items():
        name, field = path.split(".")
        if row["chosen"] is not None:
            limits[name][field] = row["chosen"]
    for settings in limits.values():
        settings["limit"] = max(settings["limit"], settings.get("warnAt", 0))
    return limits


class Simulate:
    """Worlds from the recorded runs."""

    def __init__(self) -> None:
        self.records = healthy_records()
        self.spread = scatter(self.records)

    def of(self, each: World) -> Simulation:
        """The simulation of one world."""
        return Simulation(each, self.records, self.spread)

    def rows(self, each: World) -> dict[int, dict[str, float]]:
        """All its figures, as if nothing followed from them."""
        simulation = self.of(each)
        return {number: simulation.rows(number) for number in range(ITERATIONS + 1)}


def live(simulation: Simulation, guards: Mapping[str, Any]) -> Watch:
    """A run's whole life under its guards: stops end it, rollbacks send it back."""
    watch, iteration = Watch(the_run(simulation.world, guards)), 0
    while iteration <= ITERATIONS and watch.phase not in ("Failed", "Succeeded"):
        back = len(watch.rollbacks)
        watch.measured(iteration, simulation.rows(iteration, back))
        iteration = watch.rollbacks[-1] if len(watch.rollbacks) > back else iteration + 1
    return watch


def first_alarm(watch: Watch, start: int) -> int | None:
    """Of the guards that were silent before ``start``."""
    return min((at for at in watch.alarms.values() if at >= start), default=None)


def with_action(guards: Mapping[str, Any], action: str) -> dict[str, Any]:
    """The same guards, each with ``action``."""
    return {guard.name: {**guards.get(guard.name, {}), "action": action} for guard in GUARDS}


def judge(seeds: list[int], each_fault: int, guards: Mapping[str, Any], simulate: Simulate) -> dict[str, Any]:
    """Healthy runs and runs with each fault: alarms, and what a rollback makes of them."""
    faults = {fault: judge_fault(fault, seeds[:each_fault], guards, simulate) for fault in FAULTS}
    found, recovered, runs = (sum(row[key] for row in faults.values()) for key in ("found", "recovered", "runs"))
    return {
        "healthy": judge_healthy(seeds, guards, simulate),
        "faulty": {"runs": runs, "found": found, "recovered": recovered},
        "faults": faults,
    }


def judge_healthy(seeds: list[int], guards: Mapping[str, Any], simulate: Simulate) -> dict[str, Any]:
    """Alarms of healthy runs when all guards warn alone, and what their actions would have done to them."""
    alarmed: Counter[str] = Counter()
    acted: Counter[str] = Counter()
    with_alarm = with_action_taken = labels_alone = 0
    for seed in seeds:
        alarms = live(simulate.of(world(seed, None)), with_action(guards, "warn")).alarms
        alarmed.update(alarms.keys())
        with_alarm += bool(alarms)
        labels_alone += alarms.keys() == {"labelAccuracy"}
        tripped = live(simulate.of(world(seed, None)), guards).acted
        acted.update(tripped.keys())
        with_action_taken += bool(tripped)
    return {
        "runs": len(seeds),
        "with_alarm": with_alarm,
        "of_labelAccuracy_alone": labels_alone,
        "by_guard": _sorted(alarmed),
        "acted_on": with_action_taken,
        "acted_on_by_guard": _sorted(acted),
    }


def judge_fault(fault: str, seeds: list[int], guards: Mapping[str, Any], simulate: Simulate) -> dict[str, Any]:
    """Runs with one fault: whether it is found, how late, by which guards first, and how many recover."""
    late: list[int] = []
    noticed: Counter[str] = Counter()
    recovered = 0
    for seed in seeds:
        of = world(seed, fault)
        watch = live(simulate.of(of), with_action(guards, "warn"))
        if (at := first_alarm(watch, of.start)) is not None:
            late.append(at - of.start)
            noticed.update(name for name, when in watch.alarms.items() if when == at)
        recovered += is_recovered(of, with_action(guards, "rollback"), simulate)
    return {
        "runs": len(seeds),
        "found": len(late),
        "late_mean": round(statistics.fmean(late), 2) if late else None,
        "late": _sorted(Counter(map(str, late))),
        "recovered": recovered,
        "by_guard": _sorted(noticed),
    }


def is_recovered(of: World, back: Mapping[str, Any], simulate: Simulate) -> bool:
    """It went back, came to its last iteration, and its true score there is close to its healthy twin's."""
    sick, twin = simulate.of(of), simulate.of(World(of.seed, None, 1, 0.0, of.oracle))
    watch = live(sick, back)
    for number in range(ITERATIONS + 1):
        twin.rows(number)
    there = bool(watch.rollbacks) and watch.phase != "Failed" and ITERATIONS in sick.skill
    return there and sick.score(ITERATIONS) > twin.score(ITERATIONS) - CLOSE


def defaults() -> dict[str, Any]:
    """Those of `spec.guards`."""
    written = Guards().model_dump(by_alias=True)
    return {guard.name: written[guard.name] for guard in GUARDS}


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def main() -> int:
    """Choose, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", type=int, default=1000, help="healthy runs that limits are chosen on")
    parser.add_argument("--healthy", type=int, default=200, help="healthy runs that they are judged on")
    parser.add_argument("--each", type=int, default=14, help="runs of each fault that they are judged on")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "guards.json")
    arguments = parser.parse_args()
    begun, simulate = time.process_time(), Simulate()
    chosen = choose(range(0, 2 * arguments.choose, 2), simulate)
    odd = [2 * i + 1 for i in range(arguments.healthy)]
    limits = {"defaults": defaults(), "chosen": chosen_limits(chosen)}
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/guards.py", *sys.argv[1:]]),
        "machine": machine(),
        "commit": commit(),
        "records": Counter(record.arm for record in simulate.records),
        "spread": {name: round(value, 3) for name, value in simulate.spread.items()},
        "magnitudes": {name: [fault.low, fault.high] for name, fault in FAULTS.items()},
        "chosen_on": {"healthy_runs": arguments.choose, "seeds": "even", "allowed": ALLOWED},
        "chosen": chosen,
        "judged_on": "odd seeds",
        "judged": {
            name: {"guards": guards, **judge(odd, arguments.each, guards, simulate)} for name, guards in limits.items()
        },
    }
    result["cpu_s"] = round(time.process_time() - begun)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["judged"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
