"""The ledger's places: a few at a time, in the order of asking, and none is lost."""

from __future__ import annotations

from selfevo_operator.runtime.write_slots import Ledger


def test_there_is_room_for_so_many_and_a_holder_keeps_its_place() -> None:
    ledger = Ledger[str](2)
    assert [ledger.may_write(key) for key in ("a", "b", "c", "a")] == [True, True, False, True]


def test_who_waited_longest_comes_next() -> None:
    ledger = Ledger[str](1)
    assert ledger.may_write("a")
    assert [ledger.may_write(key) for key in ("b", "c", "b")] == [False] * 3
    assert ledger.unwritten == 2
    assert ledger.end("a") == "b"
    assert ledger.may_write("b") and not ledger.may_write("a")
    assert [ledger.end("b"), ledger.end("c"), ledger.end("a"), ledger.end("a")] == ["c", "a", None, None]
    assert ledger.may_write("d")


def test_a_look_that_wrote_nothing_takes_no_place() -> None:
    ledger = Ledger[str](1)
    assert ledger.end("a") is None
    assert ledger.may_write("b")
    assert ledger.end("a") is None
    assert not ledger.may_write("a")


def test_every_place_comes_back() -> None:
    ledger = Ledger[int](3)
    queue, written = list(range(20)), []
    while queue:
        key = queue.pop(0)
        if ledger.may_write(key):
            written.append(key)
        if (following := ledger.end(key)) is not None:
            queue.append(following)
    assert sorted(written) == list(range(20)) and ledger.unwritten == 0
    assert [ledger.may_write(key) for key in range(4)] == [True, True, True, False]


def test_who_has_something_for_the_record_waits_only_while_there_is_no_room_and_keeps_its_place_in_the_line() -> None:
    ledger = Ledger[str](1)
    assert not ledger.wait("a") and ledger.unwritten == 0
    assert ledger.may_write("a") and not ledger.may_write("b")
    assert ledger.wait("c") and ledger.wait("b")
    assert [ledger.end("a"), ledger.end("b"), ledger.end("c")] == ["b", "c", None]
