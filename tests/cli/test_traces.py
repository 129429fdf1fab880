"""`selfevo run` as one trace, where the environment says where to send it."""

from __future__ import annotations

import json
import time

import pytest

import selfevo.verbs.run
from harness.cli import Project
from harness.collector import VARIABLES, collecting
from silent_server import silent_server

STEPS = ["challenger-train-1", "solver-rollout-1", "solver-train-1"]


@pytest.fixture(autouse=True)
def _unset(project: Project) -> None:
    for name in VARIABLES:
        project.environment.pop(name, None)


@pytest.mark.slow
def test_a_run_that_goes_on_goes_on_in_its_trace_and_each_process_gets_its_attempt(project: Project) -> None:
    project.order("solver-train-1", exit=2)
    with collecting() as inbox:
        project.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": inbox.address, "TRACEPARENT": "00-not-ours-01"}
        assert project.drive("run.yaml", "-q").returncode == 2
        first = list(inbox.spans)
        project.order("solver-train-1")
        assert project.drive("run.yaml", "-q").returncode == 0
    again = inbox.spans[len(first) :]
    (trace,) = {span.trace for span in inbox.spans}
    assert [span.name for span in again] == ["attempt 2", "solver-train-1", "demo"]  # what is done is not sent again
    (failed,) = [span for span in first if span.name == "solver-train-1"]
    assert failed.failed and failed.attributes["selfevo.reason"] == "InvalidInput" and not again[1].failed
    assert [span.name for span in first if not span.parent] == ["demo"] and {span.failed for span in again} == {False}
    root = again[-1]
    assert root.resource["service.name"] == "selfevo" and root.attributes["selfevo.state"] == "Succeeded"
    assert sorted(span.name for span in first if span.parent == root.id) == STEPS
    attempts = {span.id: span for span in inbox.spans if span.name.startswith("attempt")}
    begun = project.diary("start")
    assert {entry["attempt"] for entry in begun} == {a.attributes["selfevo.attempt.name"] for a in attempts.values()}
    assert len(attempts) == 4
    for entry in begun:
        _, of, parent, _ = entry["process"]["environment"]["TRACEPARENT"].split("-")
        assert of == trace and attempts[parent].attributes["selfevo.attempt.name"] == entry["attempt"]


def test_without_a_collector_nothing_is_passed_on_and_no_identity_is_made(project: Project) -> None:
    project.environment["TRACEPARENT"] = "00-not-ours-01"
    assert project.drive("run.yaml", "-q").returncode == 0
    assert all("TRACEPARENT" not in entry["process"]["environment"] for entry in project.diary("start"))
    (status,) = project.workdir.rglob("status.json")
    assert json.loads(status.read_text())["metadata"]["uid"] == ""


def test_a_collector_that_hangs_does_not_hold_a_run_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfevo.verbs.run, "CLOSING_S", 0.2)
    with silent_server() as server:
        project.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": server.address, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        begun = time.monotonic()
        assert project.drive("run.yaml", "-q").returncode == 0
        assert time.monotonic() - begun < 25  # without a limit of ours it is thirty


def test_where_nothing_can_be_sent_the_run_says_so_and_goes_on(project: Project) -> None:
    project.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "collector:4318"
    done = project.drive("run.yaml")
    assert done.returncode == 0
    assert done.stdout.count("no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318'") == 1
