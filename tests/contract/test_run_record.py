"""What a run leaves of itself in its store."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.runs import make_run
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan_of
from selfevo_contract.run_record import RunRecord, decoded_run, encoded_run, newest_records, parsed, record_key
from selfevo_contract.status import Rollback, RunStatus

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WENT_BACK = RunStatus(rollbacks=[Rollback(iteration=2, guard="labelAccuracy", abandoned={"solver-train-2": "0" * 64})])


def test_a_record_has_all_that_the_plan_needs() -> None:
    run = make_run(spec__suspend=True).model_copy(update={"status": WENT_BACK})
    record = RunRecord.of(run, "1.2")
    again = parsed(record.to_bytes(), record_key(record, NOW), "x")
    assert again == record
    assert plan_of(again.spec, again.run.status) == plan_of(run.spec, WENT_BACK) != plan_of(run.spec, None)
    assert again.run.status == WENT_BACK and again.run.metadata.name == run.metadata.name
    assert not again.spec.suspend


def test_what_a_trainer_gets_makes_the_same_record() -> None:
    run = make_run(metadata__uid="77").model_copy(update={"status": WENT_BACK})
    decoded = decoded_run(encoded_run(run))
    assert RunRecord.of(decoded, "1.2") == RunRecord.of(run, "1.2")


@pytest.mark.parametrize("text", ["", "{", "e30=", "e30"])
def test_what_is_no_run_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        decoded_run(text)


def test_values_of_variables_stay_with_the_pods() -> None:
    secret: dict[str, Any] = {"env": [{"name": "HF_TOKEN", "value": "hf_secret"}], "priorityClassName": "high"}
    run = make_run(spec__pods=secret, spec__solver__pods=secret)
    encoded = zlib.decompress(base64.b64decode(encoded_run(run)))
    for text in (RunRecord.of(run, "1.2").to_bytes().decode(), encoded.decode()):
        assert "hf_secret" not in text and "HF_TOKEN" not in text and text.count('"high"') == 2


def test_the_newest_record_of_each_run_is_found_among_other_objects() -> None:
    one, other = (RunRecord.of(make_run(metadata__name=name), "1.2") for name in ("one", "other"))
    older, newer = record_key(one, NOW), record_key(one, NOW + timedelta(seconds=1))
    keys = [newer, older, record_key(other, NOW), "default/runs/one/x.json", "default/solver-train/abc/MANIFEST.json"]
    assert newest_records(keys) == {("default", "one"): newer, ("default", "other"): record_key(other, NOW)}


def changed(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda record: json.dumps({**record, **fields}).encode()


def unknown_field(record: dict[str, Any]) -> bytes:
    return json.dumps({**record, "spec": {**record["spec"], "teacher": {}}}).encode()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda _: b"\x00\xff", "x: is not a record of a run; remove it"),
        (lambda _: b"[" * 100_000, "x: is not a record of a run; remove it"),
        (lambda _: b"[]", "x: is not a record of a run; remove it"),
        (lambda _: b"{}", r"x: cannot be read by this selfevo \(selfevo .*\); use selfevo None"),
        (unknown_field, r"x: cannot be read by this selfevo \(spec.teacher .*\); use selfevo 1.2, which wrote it"),
        (
            changed(schemaVersion=SCHEMA_VERSION + 1, teacher={}),
            rf"x: has schemaVersion {SCHEMA_VERSION + 1}, and this selfevo reads runs of {SCHEMA_VERSION}; upgrade",
        ),
        (changed(schemaVersion=1), rf"x: has schemaVersion 1, and .* runs of {SCHEMA_VERSION}; use the version that"),
        (changed(name="other"), "x: is the record of default/other, which lies elsewhere; remove it"),
        (
            changed(plan="0" * 64),
            "x: was written by selfevo 1.2, and this version computes other keys for its steps; use the version that",
        ),
    ],
)
def test_what_is_no_record_of_ours_is_one_sentence(make: Callable[[dict[str, Any]], bytes], expected: str) -> None:
    record = RunRecord.of(make_run(), "1.2")
    data = make(record.wire())
    key = f"default/runs/demo/20260102T030405000000Z-{hashlib.sha256(data).hexdigest()}.json"
    with pytest.raises(InputError, match=expected) as error:
        parsed(data, key, "x")
    assert "\n" not in str(error.value)


def test_a_damaged_record_is_one_sentence() -> None:
    record = RunRecord.of(make_run(), "1.2")
    with pytest.raises(InputError, match=r"x: is damaged \(its digest is not the one in its name\); remove it, and"):
        parsed(record.to_bytes()[:-1], record_key(record, NOW), "x")


@pytest.mark.parametrize(
    ("spec", "stored"),
    [
        ({}, {"fork": {"run": "first", "iteration": -3}}),
        ({"spec__forkFrom": {"run": "first", "iteration": 1}}, {"fork": {"run": "first", "iteration": 10**12}}),
        ({"spec__forkFrom": {"run": "first", "iteration": 1}}, {"fork": {"run": "other", "iteration": 1}}),
        ({}, {"rollbacks": [{"iteration": -5, "guard": "kl"}]}),
        ({}, {"rollbacks": [{"iteration": 10**9, "guard": "kl"}]}),
    ],
)
def test_iterations_that_its_spec_does_not_have_are_a_sentence(spec: dict[str, Any], stored: dict[str, Any]) -> None:
    data = json.dumps({**RunRecord.of(make_run(**spec), "1.2").wire(), **stored}).encode()
    key = f"default/runs/demo/20260102T030405000000Z-{hashlib.sha256(data).hexdigest()}.json"
    with pytest.raises(InputError, match="an iteration that its spec does not have; remove it") as error:
        parsed(data, key, "s3://a/b")
    assert error.value.reason == "ForeignManifest"
