"""Do the guards notice what goes wrong, and nothing else? Simulated runs, healthy and with faults, through reconcile.

    python benchmarks/guards.py

guard_worlds.py makes the figures of a run from recorded ones; the operator's reconcile watches them (guard_watch.py).
guard_choice.py chooses limits on even seeds, of runs with a quarter to four times the recorded number of questions.
They are the defaults of `spec.guards`, which tests/operator/test_guard_benchmark.py sees to. On odd seeds, which the
choice has not seen, they, the limits of the literature and limits chosen without standard errors are judged, with the
recorded number of questions and with others.

    found       a guard that was silent before the fault warns or trips in its first iteration or later
    late        iterations between the fault's first and the alarm's
    recovered   all guards roll back, and the fault is gone with the first rollback (whether another seed or a person
                takes it away is not simulated): the run ends no more than three points below its healthy twin
    harmful     without guards the run ends more than three points below its healthy twin

A training whose weights are stale ends by its own check, not by a guard; its step is tried again without the fault.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from guard_choice import ERRORS, GRID, LITERATURE, NEVER, STANDARD_ERRORS, Choice, Seen, as_spec, first_alarms
from guard_faults import FAULTS, ends_itself
from guard_watch import Watch
from guard_worlds import ITERATIONS, RESULTS, Simulation, World, healthy_records, scatter, world
from machine import provenance
from runs import example
from selfevo_contract.phases import PHASES
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.guards import Guards
from selfevo_core.policies.guards import GUARDS

ALLOWED = 0.005
"""Of the healthy runs of the choosing half, for all guards together: half of the aim."""
BOUNDS = (0.005, 0.02, 0.05, 0.1)
"""What would be found if so many healthy runs might raise an alarm."""
SIZES = (0.25, 1.0, 4.0)
"""Times the recorded number of questions."""
NONE = Path("/nonexistent")
CLOSE = 0.03
SMALLER_IS_WORSE = ("truncation", "label off by one")
"""Faults whose magnitude is what is left."""


def the_run(of: Simulation, guards: Mapping[str, Any]) -> SelfEvolutionRun:
    """A run whose figures a simulation makes."""
    run = _without_guards(of.world.oracle, of.record.arm.startswith("frontier"))
    spec = run.spec.model_copy(update={"guards": Guards.model_validate(guards)})
    return run.model_copy(update={"spec": spec})


@cache
def _without_guards(oracle: bool, well_formed: bool) -> SelfEvolutionRun:
    rollout = {} if oracle else {"oracle": None}
    over = {"iterations": ITERATIONS, "rollout": rollout if well_formed else {**rollout, "wellFormed": None}}
    return example("frontier", over, store=NONE)


def history(rows: Mapping[int, Mapping[str, float]]) -> dict[int, dict[str, float]]:
    """Rows as guards read them."""
    return {
        number: {f"{PHASES[name.split('/')[0]].metrics}/{name.split('/', 1)[1]}": value for name, value in row.items()}
        for number, row in rows.items()
    }


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

    def choice(self, healthy: list[World], faulty: list[World], errors: float) -> Choice:
        """Limits are chosen on these."""
        return Choice(self.seen(healthy), self.seen(faulty), [each.start for each in faulty], errors)

    def seen(self, worlds: list[World]) -> list[Seen]:
        """Runs, and what they measured."""
        return [(the_run(self.of(each), {}).spec, history(self.rows(each))) for each in worlds]


def choose(healthy: list[World], faulty: list[World], simulate: Simulate) -> dict[str, Any]:
    """The limits that find most, and what was tried."""
    drawn = simulate.choice(healthy, faulty, 0.0)
    tried: dict[float, Choice] = {errors: replace(drawn, errors=errors, known={}) for errors in ERRORS}
    limits = {errors: choice.limits(ALLOWED) for errors, choice in tried.items()}
    found = {errors: choice.found(limits[errors]) for errors, choice in tried.items()}
    best = STANDARD_ERRORS
    alone = {
        ".".join(key): {str(value): sum(at < NEVER for at in tried[best].alarms(key, value)[0]) for value in values}
        for key, values in GRID.items()
    }
    wider = {allowed: tried[best].limits(allowed) for allowed in BOUNDS}
    return {
        "standard_errors": best,
        "limits": as_spec(limits[best]),
        "healthy_runs": len(healthy),
        "faulty_runs": len(faulty),
        "found_by_standard_errors": {str(errors): found[errors] for errors in ERRORS},
        "limits_by_standard_errors": {str(errors): as_spec(limits[errors]) for errors in ERRORS},
        "healthy_runs_with_alarm_of_one_guard": alone,
        "bounds": {
            str(allowed): {"false": tried[best].false_alarms(each), "found": tried[best].found(each)}
            for allowed, each in wider.items()
        },
    }


def by_size(seeds: list[int], each_fault: int, guards: Mapping[str, Any], simulate: Simulate) -> dict[str, Any]:
    """Alarms of healthy runs and faulty runs found, for each number of questions, read off the guards directly."""
    found = {}
    for size in (*SIZES, 16.0):
        healthy = [world(seed, None, (size,)) for seed in seeds]
        faulty = [world(seed, fault, (size,)) for fault in FAULTS for seed in seeds[:each_fault]]
        choice = simulate.choice(healthy, faulty, guards["standardErrors"])
        alarms = [
            [first_alarms(guard.name, guards[guard.name], choice.errors, runs) for guard in GUARDS]
            for runs in (choice.healthy, choice.faulty)
        ]
        late = [
            ends_itself(of.fault, of.magnitude) or any(of.start <= own[i] < NEVER for own in alarms[1])
            for i, of in enumerate(faulty)
        ]
        thirds = {fault: [[0, 0] for _ in range(3)] for fault in FAULTS}
        for of, noticed in zip(faulty, late, strict=True):
            assert of.fault is not None
            third = thirds[of.fault][_third(of)]
            third[0], third[1] = third[0] + noticed, third[1] + 1
        found[str(size)] = {
            "healthy": len(healthy),
            "with_alarm": sum(any(own[i] < NEVER for own in alarms[0]) for i in range(len(healthy))),
            "faulty": len(faulty),
            "found": sum(late),
            "found_and_runs_by_third_of_magnitude": thirds,
        }
    return found


def _third(of: World) -> int:
    """0 to 2: the smallest third of a fault's magnitudes to the largest. What remains of learning is small when low."""
    fault = FAULTS[of.fault or ""]
    place = min(2, int(3 * (of.magnitude - fault.low) / (fault.high - fault.low)))
    return 2 - place if of.fault in SMALLER_IS_WORSE else place


def live(simulation: Simulation, guards: Mapping[str, Any]) -> Watch:
    """A run's whole life under its guards: stops end it, rollbacks send it back."""
    watch, iteration = Watch(the_run(simulation, guards)), 0
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
    own = {guard.name: {**guards.get(guard.name, {}), "action": action} for guard in GUARDS}
    return own | {name: value for name, value in guards.items() if name not in own}


def judge(seeds: list[int], each_fault: int, guards: Mapping[str, Any], simulate: Simulate) -> dict[str, Any]:
    """Healthy runs and runs with each fault: alarms, and what a rollback makes of them."""
    faults = {fault: judge_fault(fault, seeds[:each_fault], guards, simulate) for fault in FAULTS}
    sums = ("runs", "found", "recovered", "harmful", "harmful_found", "harmful_recovered")
    return {
        "healthy": judge_healthy(seeds, guards, simulate),
        "faulty": {key: sum(row[key] for row in faults.values()) for key in sums},
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
    harmful: Counter[str] = Counter()
    for seed in seeds:
        of = world(seed, fault)
        if ends_itself(of.fault, of.magnitude):
            at: int | None = of.start
            healed = True
            noticed["the phase itself"] += 1
            late.append(0)
        else:
            watch = live(simulate.of(of), with_action(guards, "warn"))
            if (at := first_alarm(watch, of.start)) is not None:
                late.append(at - of.start)
                noticed.update(name for name, when in watch.alarms.items() if when == at)
            healed = is_recovered(of, with_action(guards, "rollback"), simulate)
        recovered += healed
        if is_harmful(of, simulate):
            harmful.update({"runs": 1, "found": at is not None, "recovered": healed})
    return {
        "runs": len(seeds),
        "found": len(late),
        "late_mean": round(statistics.fmean(late), 2) if late else None,
        "late": _sorted(Counter(map(str, late))),
        "recovered": recovered,
        "harmful": harmful["runs"],
        "harmful_found": harmful["found"],
        "harmful_recovered": harmful["recovered"],
        "by_guard": _sorted(noticed),
    }


def is_recovered(of: World, back: Mapping[str, Any], simulate: Simulate) -> bool:
    """It went back, came to its last iteration, and its true score there is close to its healthy twin's."""
    sick = simulate.of(of)
    watch = live(sick, back)
    there = bool(watch.rollbacks) and watch.phase != "Failed" and ITERATIONS in sick.skill
    return there and sick.score(ITERATIONS) > _score_of_twin(of, simulate) - CLOSE


def is_harmful(of: World, simulate: Simulate) -> bool:
    """Without guards its true score at the end is below its healthy twin's."""
    sick = simulate.of(of)
    for number in range(ITERATIONS + 1):
        sick.rows(number)
    return sick.score(ITERATIONS) <= _score_of_twin(of, simulate) - CLOSE


def _score_of_twin(of: World, simulate: Simulate) -> float:
    twin = simulate.of(replace(of, fault=None))
    for number in range(ITERATIONS + 1):
        twin.rows(number)
    return twin.score(ITERATIONS)


def defaults() -> dict[str, Any]:
    """Those of `spec.guards`."""
    guards = Guards()
    written = guards.model_dump(by_alias=True)
    for guard in GUARDS:
        if "warnAt" in written[guard.name]:
            written[guard.name]["warnAt"] = guard.settings(guards).warns_from
    return {"standardErrors": written["standardErrors"], **{guard.name: written[guard.name] for guard in GUARDS}}


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def main() -> int:
    """Choose, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", type=int, default=2000, help="healthy runs that limits are chosen on")
    parser.add_argument("--choose-each", type=int, default=48, help="runs of each fault that they are chosen on")
    parser.add_argument("--healthy", type=int, default=200, help="healthy runs that they are judged on")
    parser.add_argument("--each", type=int, default=14, help="runs of each fault that they are judged on")
    parser.add_argument("--each-size", type=int, default=60, help="the same for each number of questions")
    parser.add_argument("--only-choose", action="store_true", help="print the choice, and write nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "guards.json")
    arguments = parser.parse_args()
    begun, simulate = time.process_time(), Simulate()
    healthy = [world(2 * i, None, SIZES) for i in range(arguments.choose)]
    faulty = [world(2 * i, fault, SIZES) for fault in FAULTS for i in range(arguments.choose_each)]
    chosen = choose(healthy, faulty, simulate)
    if arguments.only_choose:
        print(json.dumps(chosen, indent=1), round(time.process_time() - begun), "CPU seconds")
        return 0
    odd = [2 * i + 1 for i in range(arguments.healthy)]
    limits = {
        "literature": {"standardErrors": 0, **LITERATURE},
        "without_errors": {"standardErrors": 0, **chosen["limits_by_standard_errors"]["0.0"]},
        "defaults": {"standardErrors": chosen["standard_errors"], **chosen["limits"]},
    }
    result: dict[str, Any] = {
        **provenance(),
        "records": Counter(record.arm for record in simulate.records),
        "spread": {name: round(value, 3) for name, value in simulate.spread.items()},
        "magnitudes": {name: [fault.low, fault.high] for name, fault in FAULTS.items()},
        "chosen_on": {"seeds": "even", "allowed": ALLOWED, "sizes": SIZES},
        "chosen": chosen,
        "judged_on": "odd seeds",
        "judged": {
            name: {
                "guards": guards,
                **judge(odd, arguments.each, guards, simulate),
                "by_size": by_size(odd, arguments.each_size, guards, simulate),
            }
            for name, guards in limits.items()
        },
    }
    result["cpu_s"] = round(time.process_time() - begun)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["judged"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
