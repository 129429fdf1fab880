"""benchmarks/guards.py on a handful of simulated runs: what it says is what the guards say."""

from __future__ import annotations

import pytest

from guard_faults import FAULTS
from guard_worlds import World
from guards import LITERATURE, Simulate, choose, chosen_limits, first_alarm, is_recovered, live, with_action
from selfevo_contract.spec.guards import Guards

SIMULATE = Simulate()
WARNED = with_action({}, "warn")


def test_runs_are_drawn_from_recorded_ones_and_are_the_same_again() -> None:
    of = World(1, None, 1, 0.0, True)
    assert len(SIMULATE.records) == 12 and SIMULATE.rows(of) == SIMULATE.rows(of)
    assert SIMULATE.rows(of) != SIMULATE.rows(World(2, None, 1, 0.0, True))


@pytest.mark.parametrize(
    ("fault", "magnitude", "guard"),
    [
        ("reward constant", 0.5, "zeroSpread"),
        ("wrong stop token", 0.9, "truncation"),
        ("duplicated data", 0.9, "diversity"),
        ("learning rate too high", 25.0, "flips"),
        ("length hacking", 4.0, "length"),
        ("entropy collapse", 0.95, "entropy"),
    ],
)
def test_a_large_fault_is_found_by_its_guard_in_its_first_iteration(fault: str, magnitude: float, guard: str) -> None:
    of = World(1, fault, 2, magnitude, True)
    watch = live(SIMULATE.of(of), WARNED)
    assert watch.alarms[guard] == 2 and first_alarm(watch, of.start) == 2 and watch.acted == {}


def test_a_fault_of_no_size_is_no_fault() -> None:
    healthy = live(SIMULATE.of(World(1, None, 2, 0.0, True)), WARNED).alarms
    assert live(SIMULATE.of(World(1, "label drift", 2, 0.0, True)), WARNED).alarms == healthy


def test_a_run_whose_fault_goes_with_the_rollback_recovers_and_one_whose_guards_are_off_does_not() -> None:
    of, only = World(1, "learning rate too high", 2, 25.0, True), with_action({}, "ignore")
    back = {**only, "flips": {"action": "rollback"}}
    watch = live(SIMULATE.of(of), back)
    assert watch.rollbacks == [2] and watch.phase == "Succeeded"
    assert is_recovered(of, back, SIMULATE) and not is_recovered(of, only, SIMULATE)


@pytest.mark.slow
def test_limits_are_chosen_by_what_healthy_runs_show() -> None:
    chosen = choose(range(3), SIMULATE)
    for row in chosen.values():
        counts = [row["healthy_runs_with_alarm"][value] for value in row["healthy_runs_with_alarm"]]
        assert counts == sorted(counts, reverse=True), "values go from sensitive to not"
        assert row["chosen"] is None or row["healthy_runs_with_alarm"][str(row["chosen"])] == 0
    Guards.model_validate(chosen_limits(chosen))
    assert len(FAULTS) == 15 and set(LITERATURE) == set(WARNED)
