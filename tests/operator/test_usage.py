"""What a run has used, counted from the times of what ran; and the budget that stops it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from test_reconcile import NOW, QUEUED, Sight, at, starts, stops

from harness.runs import document
from selfevo_contract.errors import InputError
from selfevo_contract.status import Usage
from selfevo_core.invalid_spec import parse_run
from selfevo_core.reconcile import Outcome, reconcile

FIRST = "evaluate-0"


def used(sight: Sight) -> Usage:
    assert sight.status.usage is not None
    return sight.status.usage


def hours(sight: Sight, seconds: float, **changes: Any) -> tuple[float, float]:
    """Seconds of work and GPU seconds at ``seconds``, after a change that is written."""
    sight.change(answer=True, **changes).look(seconds)
    return round(used(sight).wall_hours * 3600, 2), round(used(sight).gpu_hours * 3600, 2)


def test_what_runs_is_counted_from_its_start_with_the_gpus_of_all_its_pods() -> None:
    sight = Sight()
    sight.look()
    assert sight.status.usage is None
    sight.attempt(FIRST, gpus=8)
    sight.look(10)
    assert hours(sight, 100) == (100, 800)
    assert used(sight).phases["evaluate"].gpu_hours == used(sight).gpu_hours


def test_a_look_that_finds_nothing_new_writes_nothing_and_the_next_write_has_it_all() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=2)
    written = sight.look(1).status
    for seconds in range(2, 200, 7):
        assert sight.look(seconds).status == written
    assert hours(sight, 200) == (200, 400)


def test_a_write_that_is_lost_counts_nothing_twice() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=2)
    sight.look(10)
    lost = sight.run
    hours(sight, 50)
    sight.run = lost
    assert hours(sight, 60) == (60, 120)


def test_waiting_for_a_place_is_free() -> None:
    sight = Sight()
    sight.attempt(FIRST, state="Pending", waiting=QUEUED, gpus=8)
    sight.look(10)
    sight.attempt(FIRST, started_at=at(100), gpus=8)
    sight.look(100)
    assert hours(sight, 150) == (50, 400)
    sight.attempt(FIRST, state="Pending", waiting=QUEUED, started_at=NOW)  # its place was taken away
    sight.look(160)
    assert hours(sight, 1000) == (60, 480)


def test_a_pod_that_ends_gives_its_gpus_back() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=8)
    sight.look(0)
    sight.attempt(FIRST, gpus=4)
    sight.look(100)
    assert hours(sight, 200) == (200, 800 + 400)


def test_what_ended_while_nobody_looked_is_counted_by_its_pods_times() -> None:
    sight = Sight()
    sight.look()
    spans = ((at(30), at(100)), (at(30), at(50)))
    sight.attempt(FIRST, state="Succeeded", finished_at=at(101), gpus_each=4, spans=spans)
    assert hours(sight, 5000) == (70, 4 * 70 + 4 * 20)
    assert hours(sight, 9000) == (70, 360)  # it is there for a day, and counted once


def test_what_was_seen_at_work_and_ended_while_nobody_looked_is_counted_to_its_end() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=8)
    sight.look(40)
    spans = ((at(30), at(100)), (at(30), at(50)))
    sight.attempt(FIRST, state="Succeeded", finished_at=at(101), gpus_each=4, spans=spans)
    assert hours(sight, 5000) == (100, 40 * 8 + 4 * 60 + 4 * 10)


def test_attempts_that_fail_are_counted_and_the_wait_between_them_is_not() -> None:
    sight = Sight()
    for number in (1, 2, 3):
        begin = 1000 * number
        sight.attempt(FIRST, number, gpus=2, started_at=at(begin))
        sight.look(begin)
        sight.attempt(FIRST, number, state="Failed", exit_code=1, started_at=at(begin), finished_at=at(begin + 60))
        sight.look(begin + 61)
    assert hours(sight, 9000) == (180, 360)


def test_a_suspended_run_uses_nothing_and_goes_on_counting_under_the_same_name() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=2)
    sight.look(10)
    sight.change(spec__suspend=True).look(60)
    sight.attempts.clear()
    sight.look(75)  # it has saved, and is gone
    assert hours(sight, 5000) == (75, 150)
    sight.change(spec__suspend=False).look(6000)
    sight.attempt(FIRST, gpus=2, started_at=at(6000))
    sight.look(6001)
    assert hours(sight, 6010) == (85, 170)


def test_one_that_is_gone_unseen_counts_for_ten_minutes_at_most() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=1)
    sight.look(100)
    sight.attempts.clear()
    assert hours(sight, 90_000) == (100 + 600, 700)


def test_steps_beside_each_other_take_their_time_once() -> None:
    sight = Sight(spec__parallelSteps=2)
    sight.attempt(FIRST, gpus=1)
    sight.attempt("challenger-train-1", gpus=4, started_at=at(50))
    sight.look(60)
    assert hours(sight, 100) == (100, 100 + 200)
    phases = used(sight).phases
    assert {name: round(of.hours * 3600) for name, of in phases.items()} == {"evaluate": 100, "challenger-train": 50}


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    sight = Sight()
    sight.attempt(FIRST, gpus=1)
    assert hours(sight, 100) == (100, 100)
    assert hours(sight, 40) == (100, 100)
    assert hours(sight, 110) == (110, 110)


def test_tokens_are_counted_when_an_attempt_ends_and_once() -> None:
    sight = Sight()
    sight.attempt(FIRST, state="Failed", exit_code=3, tokens=200)  # one of its shards had ended well
    sight.look(5)
    sight.attempt(FIRST, 2, state="Succeeded", tokens=1000)
    sight.look(10)
    sight.change(answer=True).look(20)
    assert (used(sight).tokens, used(sight).phases["evaluate"].tokens) == (1200, 1200)


# --- the budget


def condition(outcome: Outcome, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in outcome.status.conditions if c.type == kind]
    return found.status, found.reason, found.message


def test_a_run_that_has_used_its_budget_up_stops_at_a_checkpoint_and_goes_on_when_it_is_raised() -> None:
    sight = Sight(spec__budget={"gpuHours": 2})
    running = sight.attempt(FIRST, gpus=4)
    assert sight.look(1).wake_at == at(301)
    assert not sight.look(1799).actions
    outcome = sight.look(1801)
    assert stops(outcome) == [(running.name, "Suspended")]
    assert condition(outcome, "Suspended")[:2] == ("True", "BudgetExceeded")
    message = "budget.gpuHours is used up: 2.001111 of 2 GPU hours; raise it to go on, 0 of 9 steps done"
    assert condition(outcome, "Suspended")[2].startswith(message)
    assert outcome.status.phase == "Suspended" and outcome.wake_at is None
    sight.attempts.clear()
    assert sight.look(1830).actions == ()
    spent = used(sight).gpu_hours  # and what it took to save
    assert round(spent * 3600) == 4 * 1830
    assert not starts(sight.look(90_000))
    outcome = sight.change(spec__budget={"gpuHours": 5}).look(90_000)
    assert starts(outcome) == [(FIRST, 1)] and outcome.status.phase == "Running"
    assert used(sight).gpu_hours == spent


@pytest.mark.parametrize(
    ("budget", "gpus", "end"),
    [
        ({"wallTime": "10m"}, 0, 600),
        ({"gpuHours": 1}, 6, 600),
        ({"dollars": 3, "dollarsPerGpuHour": 1.5}, 12, 600),
        ({"wallTime": "1h", "gpuHours": 1, "dollars": 90, "dollarsPerGpuHour": 9}, 6, 600),
    ],
)
def test_looks_come_when_little_and_when_nothing_is_left(budget: dict[str, Any], gpus: int, end: float) -> None:
    """Nobody else makes a look: the run is looked at when it says so."""
    sight = Sight(spec__budget=budget)
    sight.attempt(FIRST, gpus=gpus)
    now, low_at, looks = 0.0, None, 0
    while (outcome := sight.look(now)).status.phase != "Suspended":
        if used(sight).low and low_at is None:
            low_at = now
        assert outcome.wake_at is not None
        now, looks = (outcome.wake_at - NOW).total_seconds(), looks + 1
    assert low_at == pytest.approx(0.8 * end, abs=1) and now == pytest.approx(end, abs=1)
    assert looks < 8


def test_tokens_that_are_used_up_stop_the_run_before_the_next_step() -> None:
    sight = Sight(spec__budget={"tokens": 1000})
    sight.attempt(FIRST, state="Succeeded", tokens=1000)
    outcome = sight.look(5)
    assert not starts(outcome) and condition(outcome, "Suspended")[1] == "BudgetExceeded"
    assert starts(sight.change(spec__budget={"tokens": 1001}).look(6)) == [("challenger-train-1", 1)]


def test_what_waits_in_a_queue_makes_no_looks() -> None:
    sight = Sight(spec__budget={"wallTime": "1h"})
    sight.attempt(FIRST, state="Pending", waiting=QUEUED)
    assert sight.look(1).wake_at is None


def test_a_run_that_is_done_has_no_budget_to_exceed() -> None:
    sight = Sight(spec__iterations=1, spec__evaluation=None, spec__budget={"wallTime": "1s"})
    before: datetime = at(100)
    for step in sight.plan.steps:
        sight.attempt(step.name, state="Succeeded", finished_at=before)
    assert sight.look(200).status.phase == "Succeeded"


def test_counting_does_not_hang_on_the_order_in_which_attempts_are_seen() -> None:
    sight = Sight(spec__parallelSteps=3)
    made = [sight.attempt(name, gpus=3, started_at=at(i / 7)) for i, name in enumerate((FIRST, "challenger-train-1"))]
    once, again = (reconcile(sight.run, sight.plan, of, at(17.123)).status.usage for of in (made, made[::-1]))
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
