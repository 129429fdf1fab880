"""The status's JSON patch: it tests before it writes, writes what differs, and leaves what is others' alone."""

from __future__ import annotations

import copy
from typing import Any

from selfevo_contract.status import Condition, RunStatus
from selfevo_operator.status_patch import status_patch, wire


def status(**fields: Any) -> RunStatus:
    ready = Condition(type="Ready", status="False", reason="Starting", last_transition_time="2026-01-01T00:00:00.000Z")
    return RunStatus(**{"phase": "Running", "conditions": [ready], **fields})


def applied(document: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    made = copy.deepcopy(document)
    for operation in patch:
        *parents, last = operation["path"].strip("/").split("/")
        place = made
        for name in parents:
            place = place[name]
        if operation["op"] == "add":
            place[last] = operation["value"]
        elif operation["op"] == "remove":
            del place[last]
        else:
            assert place[last] == operation["value"]
    return made


def document(recorded: dict[str, Any] | None) -> dict[str, Any]:
    made: dict[str, Any] = {"metadata": {"resourceVersion": "7"}}
    return made if recorded is None else {**made, "status": recorded}


def test_a_first_status_is_written_whole() -> None:
    patch = status_patch({}, status(), 7)
    assert applied(document(None), patch)["status"] == wire(status())


def test_the_version_is_tested_before_anything_is_written() -> None:
    assert status_patch({}, status(), 7)[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}


def test_nothing_is_written_when_nothing_differs() -> None:
    assert status_patch(wire(status()), status(), 7) == []


def test_only_what_differs_is_written_and_what_is_unset_is_removed() -> None:
    before, after = status(score=0.5, model_uri="s3://a"), status(score=0.6)
    patch = status_patch(wire(before), after, 7)
    assert [(op["op"], op["path"]) for op in patch[1:]] == [("remove", "/status/modelUri"), ("add", "/status/score")]
    assert applied(document(wire(before)), patch)["status"] == wire(after)


def test_fields_and_conditions_of_others_stay() -> None:
    foreign = {"type": "Costly", "status": "True", "reason": "Finance", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    recorded = {**wire(status()), "cost": {"usd": 3}}
    recorded["conditions"] = [foreign, *recorded["conditions"]]
    made = applied(document(recorded), status_patch(recorded, status(phase="Succeeded"), 7))["status"]
    assert made["cost"] == {"usd": 3} and made["phase"] == "Succeeded"
    assert foreign in made["conditions"] and len(made["conditions"]) == 2


def test_a_foreign_condition_alone_is_no_reason_to_write() -> None:
    foreign = {"type": "Costly", "status": "True", "reason": "Finance", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    recorded = wire(status())
    for conditions in ([*recorded["conditions"], foreign], [foreign, *recorded["conditions"]]):
        assert status_patch({**recorded, "conditions": conditions}, status(), 7) == []
