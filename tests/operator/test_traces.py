"""A run as one trace: its steps and attempts as spans, made of the record alone."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from test_controller import World
from test_jobs import SETTINGS, SOLVER, env_of, job_of
from test_operator import operator_of

from harness.collector import VARIABLES, Inbox, collecting
from harness.objects import ended, pod
from selfevo_contract import traces
from selfevo_contract.errors import InputError
from selfevo_contract.status import AttemptStatus, Condition, RunStatus, StepStatus
from selfevo_contract.traces import attempt_span, collector_of, parent_of, run_span, step_span
from selfevo_core.spans import Traced, ended_spans
from selfevo_operator.controller import Controller, MetricsHooks
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Cache
from selfevo_operator.runtime.settings import read_settings
from selfevo_traces import open_sender
from selfevo_traces.base import NOWHERE, Sender
from silent_server import silent_server

UID = "5f0c2a52-3a3c-4a57-9f0e-0d6f6f3f7b11"
RUN = Traced(UID, "team", "demo")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with collecting() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.address)
        yield made


def nanoseconds(text: str) -> int:
    return traces.nanoseconds(datetime.fromisoformat(text).timestamp())


def traced(world: World, sender: Sender) -> None:
    """The world's operator is started anew, and traces."""
    operator = operator_of(sender=sender)
    world.cache = Cache()
    world.controller = Controller(
        world.cluster, world.cache, PodSettings(image="trainer"), lambda: world.now,
        hooks=MetricsHooks(wrote=operator._wrote),
    )  # fmt: skip
    world.cache.put_run(world.cluster.run)
    for job in world.cluster.jobs.values():
        world.cache.put_job(job)


def test_a_run_is_one_trace_of_steps_and_attempts_also_over_a_restart(inbox: Inbox) -> None:
    lines: list[str] = []
    sender = open_sender("selfevo-operator", lines.append)
    world = World(spec__iterations=1)
    traced(world, sender)
    world.reconcile()
    (first,) = world.names
    world.cluster.pods = [pod(3, "no GPU")]
    world.see(first, ended("Failed"))  # and is tried again
    world.reconcile(1)
    finished = {first}
    while world.status["phase"] == "Running":
        world.reconcile(60)
        for name in set(world.names) - finished:
            world.finish(name)
            finished.add(name)
        world.reconcile(1)
        traced(world, sender)  # another operator reads the record
    assert world.status["phase"] == "Succeeded"
    world.reconcile(1)
    sender.close(30)
    assert lines == []

    (root,) = [span for span in inbox.spans if not span.parent]
    record = world.status
    assert (root.name, root.id) == ("demo", f"{run_span('run-1').span:016x}")
    assert (root.start, root.end) == (nanoseconds(record["startedAt"]), nanoseconds(record["finishedAt"]))
    assert len({span.id for span in inbox.spans}) == len(inbox.spans)  # nothing twice
    assert {span.trace for span in inbox.spans} == {root.trace}
    assert {span.name for span in inbox.below(root)} == {step["name"] for step in record["steps"]}
    assert {span.resource["service.name"] for span in inbox.spans} == {"selfevo-operator"}
    for step in record["steps"]:
        span = inbox.named(step["name"])
        assert (span.start, span.end) == (nanoseconds(step["startedAt"]), nanoseconds(step["finishedAt"]))
        own = {"step": step["name"], "phase": step["phase"], "iteration": step["iteration"], "state": "Succeeded"}
        own |= {"namespace": "default", "run": "demo", "key": step["key"], "reused": False}
        assert own.items() <= {name.removeprefix("selfevo."): value for name, value in span.attributes.items()}.items()
        tried = inbox.below(span)
        assert [one.attributes["selfevo.attempt"] for one in tried] == [*range(1, step["attempts"] + 1)]
        assert all(span.start <= one.start <= one.end <= span.end for one in tried)
    assert inbox.named("evaluate-0").attributes["selfevo.metrics.mean"] == 0.5
    failed, good = inbox.below(inbox.named("evaluate-0"))
    assert (failed.name, failed.failed, failed.attributes["process.exit.code"]) == ("attempt 1", True, 3)
    assert failed.message and failed.attributes["selfevo.reason"] == "ServiceFailed"
    assert (good.name, good.failed, good.attributes["selfevo.state"]) == ("attempt 2", False, "Succeeded")
    assert good.id == f"{attempt_span('run-1', good.attributes['selfevo.attempt.name']).span:016x}"


STEP = StepStatus(name="solver-train-2", phase="solver-train", iteration=2, key="a" * 64, state="Running")
ATTEMPT = AttemptStatus(name="demo-2", step="solver-train-2", attempt=1, state="Running")


def test_an_end_without_times_is_now_and_one_without_a_record_of_its_step_hangs_on_the_run() -> None:
    after = RunStatus(attempts=[ATTEMPT.model_copy(update={"state": "Failed", "reason": "AttemptLost"})])
    (span,) = ended_spans(RUN, RunStatus(), after, NOW)
    assert span.start == span.end == traces.nanoseconds(NOW.timestamp()) and span.parent == run_span(UID)
    assert span.error == "AttemptLost"


@pytest.mark.parametrize(("reason", "error"), [("Suspended", None), ("Crashed", "ended with exit code 1")])
def test_what_was_stopped_is_no_error(reason: str, error: str | None) -> None:
    end = {"state": "Failed", "reason": reason, "message": "ended with exit code 1"}
    after = RunStatus(steps=[STEP], attempts=[ATTEMPT.model_copy(update=end)])
    before = RunStatus(steps=[STEP], attempts=[ATTEMPT])
    (span,) = ended_spans(RUN, before, after, NOW)
    assert span.error == error
    assert ended_spans(RUN, after, after, NOW) == []


def test_a_run_that_failed_says_why() -> None:
    failed = Condition(type="Failed", status="True", reason="BadData", message="no question", last_transition_time="")
    (span,) = ended_spans(RUN, RunStatus(phase="Running"), RunStatus(phase="Failed", conditions=[failed]), NOW)
    assert (span.error, span.attributes["selfevo.reason"], span.parent) == ("no question", "BadData", None)


def test_identities() -> None:
    assert f"{run_span(UID).trace:032x}" == UID.replace("-", "")
    assert run_span("run-1").trace not in (0, run_span("run-2").trace)  # a UID that is none
    others = [step_span(UID, "a", "k1"), step_span(UID, "a", "k2"), attempt_span(UID, "a"), run_span(UID)]
    assert len({span.span for span in others}) == 4
    traceparent = attempt_span(UID, "a").traceparent
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", traceparent)
    assert parent_of({"TRACEPARENT": traceparent}) == attempt_span(UID, "a")


@pytest.mark.parametrize(
    "traceparent", ["", "00-1-2-01", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'1' * 16}-00"]
)
def test_no_parent(traceparent: str) -> None:
    assert parent_of({"TRACEPARENT": traceparent}) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318', which"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:x"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is 'http://a:x'"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', and traces are sent by http/protobuf",
        ),
    ],
)
def test_where_nothing_can_be_sent_the_operator_says_so_at_once(
    variables: dict[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        collector_of(variables)
    with pytest.raises(SystemExit):
        read_settings(["--all-namespaces", "--image=x"], variables)
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("off", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_off(off: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in off.items():
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        monkeypatch.setenv(name, value)
    assert open_sender("x", pytest.fail) is NOWHERE


def test_without_the_packages_the_error_names_them(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "selfevo_traces.otlp", raising=False)
    assert open_sender("x", lines.append) is NOWHERE
    assert lines == [
        "no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT is set, and the packages that send traces are not installed "
        "here; pip install 'selfevo[traces]', or unset it"
    ]


def test_a_trainers_pod_gets_its_attempt_and_the_place() -> None:
    place = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318")
    on = replace(SETTINGS, collector=place)
    environment = env_of(SOLVER, settings=on)
    job = job_of(SOLVER, settings=on)
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel:4318"
    assert parent_of(environment) == attempt_span(job["metadata"]["ownerReferences"][0]["uid"], job["metadata"]["name"])
    # Another attempt has other variables, and is no other Job for it.
    again = job_of(SOLVER, settings=on, attempt=2)
    mark = "selfevo.dev/template"
    assert job["metadata"]["annotations"][mark] == again["metadata"]["annotations"][mark]
    assert "TRACEPARENT" not in env_of(SOLVER)


def test_a_runs_own_way_to_a_collector_holds() -> None:
    on = replace(SETTINGS, collector=("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"))
    own = {"env": [{"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "http://node:4318/v1/traces"}]}
    environment = env_of(SOLVER, settings=on, spec__pods=own)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in environment and "TRACEPARENT" in environment


def test_a_served_model_gets_nothing() -> None:
    on = replace(SETTINGS, collector=("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"))
    pods = job_of(
        "challenger-train-1", settings=on, spec__challenger__engine={"kind": "server"},
        spec__challenger__pods={"resources": {"limits": {"nvidia.com/gpu": 1}}},
    )["spec"]["template"]["spec"]  # fmt: skip
    for container in pods["initContainers"]:
        assert not [variable for variable in container["env"] if variable["name"].startswith(("OTEL", "TRACE"))]


def spent(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def test_a_collector_that_hangs_costs_nothing_until_the_end_and_little_there(monkeypatch: pytest.MonkeyPatch) -> None:
    after = RunStatus(attempts=[ATTEMPT.model_copy(update={"state": "Failed"})])
    (span,) = ended_spans(RUN, RunStatus(), after, NOW)
    with silent_server() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
        sender = open_sender("selfevo-operator", lambda _: None)
        assert spent(lambda: [sender.send(span) for _ in range(2000)]) < 25  # none waits for the 600 s of a call
        assert len(sender._processor._batch_processor._queue) <= 64  # type: ignore[attr-defined]
        assert spent(lambda: sender.close(0.2)) < 25  # thirty without a limit


def test_a_collector_that_refuses_is_named_once_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    after = RunStatus(attempts=[ATTEMPT.model_copy(update={"state": "Failed"})])
    (span,) = ended_spans(RUN, RunStatus(), after, NOW)
    with collecting(answer=401) as inbox:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", inbox.address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        sender = open_sender("selfevo-operator", lines.append)
        deadline = time.monotonic() + 30
        while len(inbox.headers) < 3 and time.monotonic() < deadline:
            sender.send(span)
            time.sleep(0.02)
        sender.close(30)
    assert lines == [f"traces are not taken by {inbox.address}; what it does not take is dropped"]


def test_a_defect_of_ours_costs_the_spans_and_not_the_run(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("selfevo_operator.runtime.operator.ended_spans", broken)
    world = World()
    sender = open_sender("selfevo-operator", pytest.fail)
    traced(world, sender)
    world.reconcile()
    assert world.status["phase"] == "Running"
    sender.close(30)
