"""What a run has used, counted from the times of what ran; and the budget that stops it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from test_reconcile import NOW, QUEUED, Scenario, at, starts, stops

from harness.runs import document
from selfevo_contract.errors import InputError
from selfevo_contract.status import Usage
from selfevo_core.invalid_spec import parse_run
from selfevo_core.reconcile import Outcome, reconcile

FIRST = "evaluate-0"


def used(scenario: Scenario) -> Usage:
    assert scenario.status.usage is not None
    return scenario.status.usage


def hours(scenario: Scenario, seconds: float, **changes: Any) -> tuple[float, float]:
    """Seconds of work and GPU seconds at ``seconds``, after a change that is written."""
    scenario.change(answer=True, **changes).reconcile(seconds)
    return round(used(scenario).wall_hours * 3600, 2), round(used(scenario).gpu_hours * 3600, 2)


def test_what_runs_is_counted_from_its_start_with_the_gpus_of_all_its_pods() -> None:
    scenario = Scenario()
    scenario.reconcile()
    assert scenario.status.usage is None
    scenario.attempt(FIRST, gpus=8)
    scenario.reconcile(10)
    assert hours(scenario, 100) == (100, 800)
    assert used(scenario).phases["evaluate"].gpu_hours == used(scenario).gpu_hours


def test_a_reconcile_that_finds_nothing_new_writes_nothing_and_the_next_write_has_it_all() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=2)
    written = scenario.reconcile(1).status
    for seconds in range(2, 200, 7):
        assert scenario.reconcile(seconds).status == written
    assert hours(scenario, 200) == (200, 400)


def test_a_write_that_is_lost_counts_nothing_twice() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=2)
    scenario.reconcile(10)
    lost = scenario.run
    hours(scenario, 50)
    scenario.run = lost
    assert hours(scenario, 60) == (60, 120)


def test_waiting_for_a_place_is_free() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, state="Pending", waiting=QUEUED, gpus=8)
    scenario.reconcile(10)
    scenario.attempt(FIRST, started_at=at(100), gpus=8)
    scenario.reconcile(100)
    assert hours(scenario, 150) == (50, 400)
    scenario.attempt(FIRST, state="Pending", waiting=QUEUED, started_at=NOW)  # its place was taken away
    scenario.reconcile(160)
    assert hours(scenario, 1000) == (60, 480)


def test_a_pod_that_ends_gives_its_gpus_back() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=8)
    scenario.reconcile(0)
    scenario.attempt(FIRST, gpus=4)
    scenario.reconcile(100)
    assert hours(scenario, 200) == (200, 800 + 400)


def test_what_ended_while_nobody_reconciled_is_counted_by_its_pods_times() -> None:
    scenario = Scenario()
    scenario.reconcile()
    spans = ((at(30), at(100)), (at(30), at(50)))
    scenario.attempt(FIRST, state="Succeeded", finished_at=at(101), gpus_each=4, spans=spans)
    assert hours(scenario, 5000) == (70, 4 * 70 + 4 * 20)
    assert hours(scenario, 9000) == (70, 360)  # it is there for a day, and counted once


def test_what_was_seen_at_work_and_ended_while_nobody_reconciled_is_counted_to_its_end() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=8)
    scenario.reconcile(40)
    spans = ((at(30), at(100)), (at(30), at(50)))
    scenario.attempt(FIRST, state="Succeeded", finished_at=at(101), gpus_each=4, spans=spans)
    assert hours(scenario, 5000) == (100, 40 * 8 + 4 * 60 + 4 * 10)


def test_attempts_that_fail_are_counted_and_the_wait_between_them_is_not() -> None:
    scenario = Scenario()
    for number in (1, 2, 3):
        begin = 1000 * number
        scenario.attempt(FIRST, number, gpus=2, started_at=at(begin))
        scenario.reconcile(begin)
        scenario.attempt(FIRST, number, state="Failed", exit_code=1, started_at=at(begin), finished_at=at(begin + 60))
        scenario.reconcile(begin + 61)
    assert hours(scenario, 9000) == (180, 360)


def test_a_suspended_run_uses_nothing_and_goes_on_counting_under_the_same_name() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=2)
    scenario.reconcile(10)
    scenario.change(spec__suspend=True).reconcile(60)
    scenario.attempts.clear()
    scenario.reconcile(75)  # it has saved, and is gone
    assert hours(scenario, 5000) == (75, 150)
    scenario.change(spec__suspend=False).reconcile(6000)
    scenario.attempt(FIRST, gpus=2, started_at=at(6000))
    scenario.reconcile(6001)
    assert hours(scenario, 6010) == (85, 170)


def test_one_that_is_gone_unseen_counts_for_ten_minutes_at_most() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=1)
    scenario.reconcile(100)
    scenario.attempts.clear()
    assert hours(scenario, 90_000) == (100 + 600, 700)


def test_steps_beside_each_other_take_their_time_once() -> None:
    scenario = Scenario(spec__parallelSteps=2)
    scenario.attempt(FIRST, gpus=1)
    scenario.attempt("challenger-train-1", gpus=4, started_at=at(50))
    scenario.reconcile(60)
    assert hours(scenario, 100) == (100, 100 + 200)
    phases = used(scenario).phases
    assert {name: round(of.hours * 3600) for name, of in phases.items()} == {"evaluate": 100, "challenger-train": 50}


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, gpus=1)
    assert hours(scenario, 100) == (100, 100)
    assert hours(scenario, 40) == (100, 100)
    assert hours(scenario, 110) == (110, 110)


def test_tokens_are_counted_when_an_attempt_ends_and_once() -> None:
    scenario = Scenario()
    scenario.attempt(FIRST, state="Failed", exit_code=3, tokens=200)  # one of its shards had ended well
    scenario.reconcile(5)
    scenario.attempt(FIRST, 2, state="Succeeded", tokens=1000)
    scenario.reconcile(10)
    scenario.change(answer=True).reconcile(20)
    assert (used(scenario).tokens, used(scenario).phases["evaluate"].tokens) == (1200, 1200)


# --- the budget


def condition(outcome: Outcome, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in outcome.status.conditions if c.type == kind]
    return found.status, found.reason, found.message


def test_a_run_that_has_used_its_budget_up_stops_at_a_checkpoint_and_goes_on_when_it_is_raised() -> None:
    scenario = Scenario(spec__budget={"gpuHours": 2})
    running = scenario.attempt(FIRST, gpus=4)
    assert scenario.reconcile(1).wake_at == at(301)
    assert not scenario.reconcile(1799).actions
    outcome = scenario.reconcile(1801)
    assert stops(outcome) == [(running.name, "Suspended")]
    assert condition(outcome, "Suspended")[:2] == ("True", "BudgetExceeded")
    message = "budget.gpuHours is used up: 2.001111 of 2 GPU hours; raise it to go on, 0 of 9 steps done"
    assert condition(outcome, "Suspended")[2].startswith(message)
    assert outcome.status.phase == "Suspended" and outcome.wake_at is None
    scenario.attempts.clear()
    assert scenario.reconcile(1830).actions == ()
    spent = used(scenario).gpu_hours  # and what it took to save
    assert round(spent * 3600) == 4 * 1830
    assert not starts(scenario.reconcile(90_000))
    outcome = scenario.change(spec__budget={"gpuHours": 5}).reconcile(90_000)
    assert starts(outcome) == [(FIRST, 1)] and outcome.status.phase == "Running"
    assert used(scenario).gpu_hours == spent


@pytest.mark.parametrize(
    ("budget", "gpus", "end"),
    [
        ({"wallTime": "10m"}, 0, 600),
        ({"gpuHours": 1}, 6, 600),
        ({"dollars": 3, "dollarsPerGpuHour": 1.5}, 12, 600),
        ({"wallTime": "1h", "gpuHours": 1, "dollars": 90, "dollarsPerGpuHour": 9}, 6, 600),
    ],
)
def test_reconciles_come_when_little_and_when_nothing_is_left(budget: dict[str, Any], gpus: int, end: float) -> None:
    """Nothing else causes a reconcile: the run is reconciled when it asks for it."""
    scenario = Scenario(spec__budget=budget)
    scenario.attempt(FIRST, gpus=gpus)
    now, low_at, reconciles = 0.0, None, 0
    while (outcome := scenario.reconcile(now)).status.phase != "Suspended":
        if used(scenario).low and low_at is None:
            low_at = now
        assert outcome.wake_at is not None
        now, reconciles = (outcome.wake_at - NOW).total_seconds(), reconciles + 1
    assert low_at == pytest.approx(0.8 * end, abs=1) and now == pytest.approx(end, abs=1)
    assert reconciles < 8


def test_tokens_that_are_used_up_stop_the_run_before_the_next_step() -> None:
    scenario = Scenario(spec__budget={"tokens": 1000})
    scenario.attempt(FIRST, state="Succeeded", tokens=1000)
    outcome = scenario.reconcile(5)
    assert not starts(outcome) and condition(outcome, "Suspended")[1] == "BudgetExceeded"
    assert starts(scenario.change(spec__budget={"tokens": 1001}).reconcile(6)) == [("challenger-train-1", 1)]


def test_what_waits_in_a_queue_makes_no_reconciles() -> None:
    scenario = Scenario(spec__budget={"wallTime": "1h"})
    scenario.attempt(FIRST, state="Pending", waiting=QUEUED)
    assert scenario.reconcile(1).wake_at is None


def test_a_run_that_is_done_has_no_budget_to_exceed() -> None:
    scenario = Scenario(spec__iterations=1, spec__evaluation=None, spec__budget={"wallTime": "1s"})
    before: datetime = at(100)
    for step in scenario.plan.steps:
        scenario.attempt(step.name, state="Succeeded", finished_at=before)
    assert scenario.reconcile(200).status.phase == "Succeeded"


def test_counting_does_not_hang_on_the_order_in_which_attempts_are_seen() -> None:
    scenario = Scenario(spec__parallelSteps=3)
    made = [
        scenario.attempt(name, gpus=3, started_at=at(i / 7)) for i, name in enumerate((FIRST, "challenger-train-1"))
    ]
    once, again = (reconcile(scenario.run, scenario.plan, of, at(17.123)).status.usage for of in (made, made[::-1]))
    assert once == again


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"gpuHours": 0}, "spec.budget.gpuHours"),
        ({"tokens": 0}, "spec.budget.tokens"),
        ({"wallTime": "0h0m"}, "wallTime is zero, and nothing could run; write a duration such as 72h, or remove it"),
        ({"dollars": 100}, "dollars are counted by a price; add dollarsPerGpuHour, what one GPU costs an hour"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_in_a_sentence(budget: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says.replace("(", "[(]")):
        parse_run(document(spec__budget=budget))
