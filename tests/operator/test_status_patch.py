"""The status's JSON patch: it tests before it writes, writes what differs, and leaves what is others' alone."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from test_reconcile import Scenario

from selfevo_contract.status import Condition, RunStatus
from selfevo_core.attempts import Start
from selfevo_operator.writes.status_patch import status_patch, wire


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


def long_run(iterations: int) -> Scenario:
    scenario = Scenario(spec__iterations=iterations)
    figures = {f"a-rather-long-name/{number}": number / 7 for number in range(24)}
    for step in scenario.plan.steps:
        metrics = {"mean": step.iteration / 7777, "greedy": 0.4123456789012, **figures}
        scenario.attempt(step.name, state="Succeeded", result=scenario.result(step.name, metrics=metrics))
    scenario.reconcile()
    scenario.attempts.clear()
    return scenario


@pytest.mark.slow
def test_a_status_of_a_thousand_iterations_fits_and_is_read_as_if_it_were_whole() -> None:
    scenario = long_run(999)
    recorded = wire(scenario.status)
    assert len(json.dumps(recorded, separators=(",", ":"))) < 512 * 1024
    assert len(recorded["steps"]) < 100 < 3900 < len(recorded["done"])
    read = RunStatus.model_validate(recorded)
    assert [(s.name, s.key, s.state) for s in read.steps] == [(s.name, s.key, s.state) for s in scenario.status.steps]
    assert wire(read) == recorded, "what is read is written again as it was"
    # The reconciler goes on from it: nothing is done again, the best stays the best, a longer run goes on at its end.
    scenario.run = scenario.run.model_copy(update={"status": read})
    assert scenario.reconcile().actions == () and status_patch(recorded, scenario.status, 5) == []
    assert scenario.status.best is not None and scenario.status.best.iteration == 999
    scenario.change(spec__iterations=1000)
    (start,) = scenario.reconcile().actions
    assert isinstance(start, Start) and start.step.name == "challenger-train-1000"


def test_a_best_score_of_long_ago_is_known_from_its_line() -> None:
    scenario = long_run(200)
    recorded = wire(scenario.status)
    line = next(line for line in recorded["done"] if line.startswith("evaluate-3 "))
    recorded["done"][recorded["done"].index(line)] = line.replace("mean=", "mean=1")
    recorded["done"].append("nonsense")
    scenario.run = scenario.run.model_copy(update={"status": RunStatus.model_validate(recorded)})
    scenario.reconcile()
    assert scenario.status.best is not None and scenario.status.best.iteration == 3
    assert len(scenario.status.steps) == len(scenario.plan.steps)


def test_a_short_run_has_its_records_as_they_are() -> None:
    recorded = wire(long_run(60).status)
    assert "done" not in recorded and len(recorded["steps"]) == 241
