"""benchmarks/guards.py on a handful of simulated runs: what it says is what the guards say."""

from __future__ import annotations

import json

import pytest

from guard_choice import GRID, LITERATURE, Choice, as_spec
from guard_faults import FAULTS
from guard_worlds import World, world
from guards import RESULTS, Simulate, defaults, first_alarm, is_harmful, is_recovered, live, with_action
from selfevo_contract.spec.guards import Guards

SIMULATE = Simulate()
WARNED = with_action({}, "warn")


def test_runs_are_drawn_from_recorded_ones_and_are_the_same_again() -> None:
    of = World(1, None, 1, 0.0, True)
    assert len(SIMULATE.records) >= 12 and SIMULATE.rows(of) == SIMULATE.rows(of)
    assert SIMULATE.rows(of) != SIMULATE.rows(World(2, None, 1, 0.0, True))


@pytest.mark.parametrize(
    ("fault", "magnitude", "guard"),
    [
        ("reward constant", 0.5, "zeroSpread"),
        ("label off by one", 0.0, "rewardGap"),
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


def test_questions_asked_again_are_found_as_soon_as_there_is_something_to_rise_from() -> None:
    of = World(1, "diversity loss across iterations", 3, 0.9, True)
    assert live(SIMULATE.of(of), WARNED).alarms["similarity"] == 3


def test_a_fault_of_no_size_is_no_fault() -> None:
    healthy = live(SIMULATE.of(World(1, None, 2, 0.0, True)), WARNED).alarms
    assert live(SIMULATE.of(World(1, "label drift", 2, 0.0, True)), WARNED).alarms == healthy


def test_a_run_whose_fault_goes_with_the_rollback_recovers_and_one_whose_guards_are_off_does_not() -> None:
    of, only = World(1, "learning rate too high", 2, 25.0, True), with_action({}, "ignore")
    back = {**only, "flips": {"action": "rollback"}}
    watch = live(SIMULATE.of(of), back)
    assert watch.rollbacks == [2] and watch.phase == "Succeeded"
    assert is_recovered(of, back, SIMULATE) and not is_recovered(of, only, SIMULATE)


def test_a_fault_is_harmful_when_the_run_ends_below_its_healthy_twin() -> None:
    assert is_harmful(World(1, "learning rate too high", 2, 25.0, True), SIMULATE)
    assert not is_harmful(World(1, "label drift", 2, 0.0, True), SIMULATE)


def test_a_run_with_more_questions_counts_more_exactly() -> None:
    few, many = (SIMULATE.rows(World(1, None, 1, 0.0, True, size)) for size in (0.25, 16.0))
    assert many[1]["solver-rollout/questions"] == 64 * few[1]["solver-rollout/questions"]


def choice(runs: int, errors: float) -> Choice:
    healthy = [world(2 * seed, None, (0.25, 1.0, 4.0)) for seed in range(runs)]
    return SIMULATE.choice(healthy, [world(0, fault) for fault in FAULTS], errors)


def test_limits_are_chosen_by_what_healthy_runs_show() -> None:
    chosen = choice(4, 2.0)
    for key, values in GRID.items():
        counts = [chosen.false_alarms({key: value}) for value in values]
        found = [chosen.found({key: value}) for value in values]
        assert counts == sorted(counts, reverse=True) and found[0] >= found[-1], "values go from sensitive to not"
    limits = chosen.limits(0.0)
    assert chosen.false_alarms(limits) == 0 and chosen.found(limits) > 5
    assert chosen.found(chosen.limits(0.5)) >= chosen.found(limits) and chosen.false_alarms(chosen.limits(0.5)) <= 2
    Guards.model_validate(as_spec(limits))
    assert len(FAULTS) == 15 and set(LITERATURE) == {name for name, _ in GRID}


def test_the_defaults_are_the_limits_that_were_chosen() -> None:
    result = json.loads((RESULTS / "guards.json").read_text())
    chosen = {"standardErrors": result["chosen"]["standard_errors"], **result["chosen"]["limits"]}
    assert chosen == {
        name: {key: value for key, value in settings.items() if key in chosen[name]}
        if isinstance(settings, dict)
        else settings
        for name, settings in defaults().items()
    }
    judged = result["judged"]["defaults"]
    assert judged["healthy"]["with_alarm"] <= 0.02 * judged["healthy"]["runs"]
