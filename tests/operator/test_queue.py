"""The work queue by examples, and by a property: nothing added is ever lost, and no key is worked on twice at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfevo_operator.runtime.queue import Backoff, WorkQueue


def queue() -> WorkQueue[str]:
    return WorkQueue(Backoff(base=1.0, cap=8.0))


def test_a_key_waits_once_however_often_it_is_added() -> None:
    q = queue()
    q.add("a", 0)
    q.add("a", 1)
    assert (q.take(2), q.take(2)) == ("a", None)


def test_keys_come_in_the_order_of_their_first_adding() -> None:
    q = queue()
    for key in ("b", "a", "b", "c"):
        q.add(key, 0)
    assert [q.take(0) for _ in range(4)] == ["b", "a", "c", None]


def test_pressing_keys_come_first_and_every_fourth_is_a_calm_one() -> None:
    q = queue()
    for key in ("calm-1", "calm-2", "calm-3"):
        q.add(key, 0, pressing=False)
    for n in range(7):
        q.add(f"n{n}", 1)
    taken = [q.take(2) for _ in range(11)]
    assert taken == ["n0", "n1", "n2", "calm-1", "n3", "n4", "n5", "calm-2", "n6", "calm-3", None]


def test_a_calm_key_becomes_pressing_and_not_calm_again() -> None:
    q = queue()
    for key in ("a", "b"):
        q.add(key, 0, pressing=False)
    q.add("b", 5)
    q.add("b", 6, pressing=False)
    assert (q.depth, q.age(7)) == (2, 7)
    assert [q.take(7) for _ in range(3)] == ["b", "a", None]


def test_what_was_pressing_while_a_key_was_worked_on_is_so_afterwards() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add("a", 0)
    q.add("a", 0, pressing=False)
    q.add("b", 0, pressing=False)
    q.done("a", 1)
    assert [q.take(1), q.take(1)] == ["a", "b"]


def test_a_time_that_has_come_is_calm() -> None:
    q = queue()
    q.add_at("late", 1)
    q.add("now", 5)
    assert [q.take(5), q.take(5)] == ["now", "late"]


def test_a_key_added_while_it_is_worked_on_comes_again_afterwards_and_not_beside_itself() -> None:
    q = queue()
    q.add("a", 0)
    assert q.take(0) == "a"
    q.add("a", 1)
    assert q.take(1) is None
    q.done("a", 2)
    assert q.take(2) == "a"


def test_failures_in_a_row_wait_longer_and_a_success_forgets_them() -> None:
    q = queue()
    waits, now = [], 0.0
    for _ in range(5):
        q.add("a", now)
        assert q.take(now) == "a"
        waits.append(q.done("a", now, failed=True))
        assert q.take(now) is None and q.next_due() == now + waits[-1]
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 8]
    assert q.take(now) == "a"
    q.done("a", now)
    q.add("a", now)
    q.take(now)
    assert q.done("a", now, failed=True) == 1


def test_a_failure_waits_as_long_as_the_server_says() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    assert q.done("a", 0, failed=True, delay=30) == 30
    assert q.take(29.9) is None
    assert q.take(30) == "a"


def test_what_happens_during_and_after_a_failing_reconcile_does_not_shorten_its_wait() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add("a", 0)
    q.done("a", 0, failed=True)
    q.add("a", 0.2)
    assert q.take(0.5) is None
    assert q.take(1) == "a"
    q.done("a", 1)
    q.add_at("a", 5)
    q.add("a", 2)
    assert q.take(2) == "a"


def test_what_was_left_for_later_does_not_end_a_row_of_failures_and_waits_for_no_failure() -> None:
    q = queue()
    waits, now = [], 0.0
    for _ in range(4):
        q.add("a", now)
        assert q.take(now) == "a"
        q.done("a", now, postponed=True)
        q.add_at("a", now + 60)
        q.add("a", now)  # a write slot is free
        assert q.take(now) == "a"
        waits.append(q.done("a", now, failed=True))
        now += waits[-1]
    assert waits == [1, 2, 4, 8]


def test_a_time_that_something_else_asks_for_does_not_shorten_the_wait_after_a_failure() -> None:
    q = queue()
    q.add("a", 0)
    q.take(0)
    q.add_at("a", 0.1)
    q.done("a", 0, failed=True)
    q.add_at("a", 0.2)
    assert q.backs_off("a") and q.take(0.5) is None
    assert q.take(1) == "a" and not q.backs_off("a")


def test_an_event_comes_before_the_time_that_a_key_waits_for_and_replaces_it() -> None:
    q = queue()
    q.add_at("a", 100)
    q.add("a", 1)
    assert q.take(1) == "a"
    q.done("a", 1)
    assert q.take(200) is None


def test_of_two_times_the_earlier_counts() -> None:
    q = queue()
    q.add_at("a", 10)
    q.add_at("a", 5)
    q.add_at("a", 20)
    assert q.next_due() == 5
    assert q.take(5) == "a"
    q.done("a", 5)
    assert q.take(30) is None and q.next_due() is None


def test_it_tells_how_long_keys_wait_and_work_takes() -> None:
    q = queue()
    q.add("a", 0)
    q.add("b", 3)
    assert (q.depth, q.age(10)) == (2, 10)
    q.take(10)
    assert (q.depth, q.age(10), q.longest_work(14)) == (1, 7, 4)
    q.take(11)
    q.done("a", 12)
    assert (q.age(12), q.longest_work(14)) == (0, 3)
    q.done("b", 14)
    assert (q.depth, q.longest_work(15)) == (0, 0)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "later", "take", "done", "fail"]), st.sampled_from("abc"), st.floats(0, 5)),
    max_size=60,
)


@given(steps)
def test_nothing_is_lost_and_no_key_is_worked_on_twice(actions: list[tuple[str, str, float]]) -> None:
    q, now, working, owed = queue(), 0.0, set(), set()
    for action, key, wait in actions:
        now += wait
        if action == "add":
            q.add(key, now)
            owed.add(key)
        elif action == "later":
            q.add_at(key, now + wait)
            owed.add(key)
        elif action == "take" and (taken := q.take(now)) is not None:
            assert taken not in working
            working.add(taken)
            owed.discard(taken)
        elif action in ("done", "fail") and key in working:
            working.discard(key)
            q.done(key, now, failed=action == "fail")
            if action == "fail":
                owed.add(key)
    for key in working:
        q.done(key, now)
    seen = set()
    while (due := q.next_due()) is not None or q.depth:
        now = max(now, due or now)
        if (taken := q.take(now)) is not None:
            seen.add(taken)
            q.done(taken, now)
    assert owed <= seen


def test_calm_keys_leave_workers_for_pressing_ones() -> None:
    q = queue()
    for number in range(20):
        q.add(f"calm-{number}", 0.0, pressing=False)
    taken = []
    while (key := q.take(0.0)) is not None:
        taken.append(key)
    assert 0 < len(taken) < 20
    q.add("pressing", 1.0)
    assert q.take(1.0) == "pressing" and q.take(1.0) is None
    q.done("pressing", 2.0)
    assert q.take(2.0) is None
    q.done(taken[0], 3.0)
    assert q.take(3.0) == f"calm-{len(taken)}"


def test_a_key_that_failed_calmly_makes_room_too() -> None:
    q: WorkQueue[int] = WorkQueue()
    for number in range(20):
        q.add(number, 0.0, pressing=False)
    first = q.take(0.0)
    while q.take(0.0) is not None:
        pass
    assert first is not None
    q.done(first, 1.0, failed=True)
    assert q.take(1.0) is not None
