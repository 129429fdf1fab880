"""Records of runs in a store: left once, found by listing, in a folder and on S3 alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from harness.runs import make_run
from selfevo_contract.run_record import RunRecord
from selfevo_store import ObjectNotFound, ObjectStore, known_records, leave_record, read_record

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(**changes: object) -> RunRecord:
    return RunRecord.of(make_run(**changes), "1.2")


def test_a_record_is_left_once_and_the_newest_counts(store: ObjectStore) -> None:
    assert known_records(store) == {} and store.folders() == ()
    three, five = record(spec__iterations=3), record(spec__iterations=5)
    assert leave_record(store, three, NOW)
    assert not leave_record(store, three, NOW + timedelta(hours=1))
    assert leave_record(store, five, NOW + timedelta(hours=2))
    assert leave_record(store, three, NOW + timedelta(hours=3))  # asked for again
    assert leave_record(store, five, NOW)  # by a clock that is behind
    assert leave_record(store, three, NOW + timedelta(hours=3))
    assert leave_record(store, record(metadata__namespace="team"), NOW)
    assert len(store.list("default/runs/demo")) == 5
    found = known_records(store)
    assert list(found) == [("default", "demo"), ("team", "demo")]
    assert read_record(store, found["default", "demo"]) == three


def test_a_pod_of_an_earlier_spec_that_starts_late_leaves_nothing(store: ObjectStore) -> None:
    first, second = (record(metadata__uid="77", metadata__generation=n, spec__iterations=n) for n in (1, 2))
    assert leave_record(store, first, NOW) and leave_record(store, second, NOW)
    assert not leave_record(store, first, NOW + timedelta(hours=1))
    # The same spec again, of a later generation: the run was held and let go.
    again = record(metadata__uid="77", metadata__generation=5, spec__iterations=2)
    assert not leave_record(store, again, NOW + timedelta(hours=1))
    assert leave_record(store, record(metadata__uid="78", spec__iterations=1), NOW)  # another object of that name
    assert read_record(store, *known_records(store).values()).uid == "78"


@pytest.mark.parametrize("when", ["99999999T999999999999", "99991231T235959999999", "20260230T000000000000"])
def test_a_name_that_is_no_time_is_no_record(store: ObjectStore, when: str) -> None:
    store.put_bytes(f"default/runs/demo/{when}Z-{'0' * 64}.json", b"{}")
    assert known_records(store) == {}
    assert leave_record(store, record(), NOW) and read_record(store, *known_records(store).values()) == record()


def test_only_folders_are_namespaces(store: ObjectStore) -> None:
    for key in ("team/solver-train/x/MANIFEST.json", "Not_one/runs/demo/x", "notes.txt"):
        store.put_bytes(key, b"x")
    assert store.folders() == ("Not_one", "team")
    assert known_records(store) == {}


def test_a_record_that_is_gone_is_reported(store: ObjectStore) -> None:
    leave_record(store, record(), NOW)
    [key] = known_records(store).values()
    store.delete_prefix("default/runs")
    with pytest.raises(ObjectNotFound):
        read_record(store, key)
