"""The write slots: a few at a time, in the order of asking, and none is lost."""

from __future__ import annotations

from selfevo_operator.runtime.write_slots import WriteSlots


def test_there_is_room_for_so_many_and_a_holder_keeps_its_place() -> None:
    slots = WriteSlots[str](2)
    assert [slots.may_write(key) for key in ("a", "b", "c", "a")] == [True, True, False, True]


def test_who_waited_longest_comes_next() -> None:
    slots = WriteSlots[str](1)
    assert slots.may_write("a")
    assert [slots.may_write(key) for key in ("b", "c", "b")] == [False] * 3
    assert slots.end("a") == "b"
    assert slots.may_write("b") and not slots.may_write("a")
    assert [slots.end("b"), slots.end("c"), slots.end("a"), slots.end("a")] == ["c", "a", None, None]
    assert slots.may_write("d")


def test_a_reconcile_that_wrote_nothing_takes_no_place() -> None:
    slots = WriteSlots[str](1)
    assert slots.end("a") is None
    assert slots.may_write("b")
    assert slots.end("a") is None
    assert not slots.may_write("a")


def test_every_place_comes_back() -> None:
    slots = WriteSlots[int](3)
    queue, written = list(range(20)), []
    while queue:
        key = queue.pop(0)
        if slots.may_write(key):
            written.append(key)
        if (following := slots.end(key)) is not None:
            queue.append(following)
    assert sorted(written) == list(range(20)) and slots.end(0) is None
    assert [slots.may_write(key) for key in range(4)] == [True, True, True, False]


def test_who_has_something_for_the_record_waits_only_while_there_is_no_room_and_keeps_its_place_in_the_line() -> None:
    slots = WriteSlots[str](1)
    assert not slots.wait("a")
    assert slots.may_write("a") and not slots.may_write("b")
    assert slots.wait("c") and slots.wait("b")
    assert [slots.end("a"), slots.end("b"), slots.end("c")] == ["b", "c", None]


def test_a_slot_passes_over_whoever_may_not_come_now_and_who_asks_anew_later() -> None:
    slots = WriteSlots[str](1)
    assert slots.may_write("a")
    assert [slots.may_write(key) for key in ("b", "c")] == [False] * 2
    assert slots.end("a", lambda key: key != "b") == "c"
    assert not slots.may_write("b")
    assert slots.end("c", lambda key: key != "b") is None
    assert slots.may_write("d"), "it is free"
