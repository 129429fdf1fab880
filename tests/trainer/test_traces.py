"""What a trainer's process does, as spans below its attempt's."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from harness.collector import VARIABLES, collecting
from harness.inprocess import run_main
from harness.runs import make_run
from runs import phase_environment
from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseResult, phase_config
from selfevo_contract.traces import Span, attempt_span
from selfevo_trainer.process import traces
from selfevo_trainer.process.clock import Clock
from selfevo_trainer.process.traces import Trace, open_trace
from silent_server import silent_server

PARENT = attempt_span("5f0c2a52-3a3c-4a57-9f0e-0d6f6f3f7b11", "demo-solver-rollout-1-1")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Kept(list[Span]):
    """A sender that keeps."""

    on = True

    def send(self, span: Span) -> None:
        self.append(span)

    def close(self, seconds: float = 0.0) -> None: ...


def test_parts_lie_within_each_other_as_the_clock_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "SHORTEST_S", 0)
    kept = Kept()
    trace = Trace(kept, PARENT, time.time())
    clock = Clock(trace)
    with clock.during("training"):
        with clock.during("generation"):
            time.sleep(0.01)
        with pytest.raises(KeyError), clock.during("reward"):
            raise KeyError
    with clock.during("store"):
        pass
    trace.ended(PhaseResult(phase="solver-train", key="a" * 64, outcome="committed", timings={"store": 1.0}), None)
    spans = {span.name: span for span in kept}
    process, training = spans["trainer"], spans["training"]
    assert list(spans) == ["generation", "reward", "training", "store", "trainer"]
    assert spans["generation"].parent == spans["reward"].parent == training.id
    assert training.parent == spans["store"].parent == process.id and process.parent == PARENT
    assert all(process.start <= span.start <= span.end <= process.end for span in kept)
    assert training.start <= spans["generation"].start <= spans["generation"].end <= training.end
    assert (spans["generation"].end - spans["generation"].start) / 1e9 == pytest.approx(
        clock.seconds["generation"], abs=0.005
    )
    assert (spans["reward"].error, training.error) == ("KeyError", None)
    assert process.attributes["selfevo.seconds.store"] == 1.0


def test_short_parts_and_those_beyond_a_number_are_left_out_and_none_hangs_in_the_air(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    trace = Trace(kept, PARENT, time.time())
    with trace.part("short"):
        pass
    assert kept == []
    monkeypatch.setattr(traces, "SHORTEST_S", 0)
    monkeypatch.setattr(traces, "PARTS", 3)
    with trace.part("training"):
        for _ in range(5):
            with trace.part("generation"):
                pass
    trace.ended(PhaseResult(phase="solver-train", key="a" * 64, outcome="committed"), None)
    assert [span.name for span in kept] == [*["generation"] * 3, "training", "trainer"]
    assert kept[-1].attributes["selfevo.parts.left_out"] == 3
    assert {span.parent for span in kept} <= {PARENT, *(span.id for span in kept)}


@pytest.mark.parametrize(
    ("rank", "traceparent", "sends"),
    [
        (None, PARENT.traceparent, True),
        (None, "", False),  # no attempt's
        (0, PARENT.traceparent, True),
        (1, PARENT.traceparent, False),
    ],
)
def test_who_sends(rank: int | None, traceparent: str, sends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    environ = {"TRACEPARENT": traceparent}
    trace = open_trace(environ, rank, time.time())
    assert bool(trace.traceparent) is sends
    assert environ["TRACEPARENT"] == (trace.traceparent or traceparent)  # what it starts is below it
    trace.close(0)


def environment(folder: Path, address: str) -> dict[str, str]:
    """The environment of a shard that its run does not have: it ends at once, with code 2."""
    run = make_run(spec__storage={"uri": f"file://{folder / 'store'}"})
    step = next(step for step in plan(run.spec).steps if step.phase == "solver-rollout")
    config = phase_config(run.spec, "demo", "team", step, "demo-1")
    return {
        **phase_environment(json.dumps(config.wire()), folder, 99),
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "TRACEPARENT": PARENT.traceparent,
    }


def test_a_process_that_fails_says_how_below_its_attempt(tmp_path: Path) -> None:
    with collecting() as inbox:
        ended = run_main(environment(tmp_path, inbox.address))
    (span,) = inbox.spans
    assert (ended.code, span.attributes["process.exit.code"]) == (2, 2)
    assert (span.name, span.failed, span.message) == ("trainer 99", True, ended.result.message)
    assert (span.trace, span.parent) == (f"{PARENT.trace:032x}", f"{PARENT.span:016x}")
    own = {"namespace": "team", "run": "demo", "step": "solver-rollout-1", "phase": "solver-rollout", "iteration": 1}
    own |= {"attempt.name": "demo-1", "outcome": "failed", "reason": "InvalidInput", "index": 99}
    assert {f"selfevo.{name}": value for name, value in own.items()}.items() <= span.attributes.items()
    assert span.resource["service.name"] == "selfevo-trainer" and span.attributes["process.pid"] == os.getpid()


def test_a_collector_that_hangs_costs_a_process_no_more_than_its_last_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfevo_trainer.main.CLOSING_S", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    with silent_server() as server:
        begun = time.perf_counter()
        ended = run_main(environment(tmp_path, server.address))
        spent = time.perf_counter() - begun
    assert ended.code == 2 and ended.result.reason == "InvalidInput"
    assert spent < 25  # thirty without a limit


def test_a_collector_that_is_not_there_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    ended = run_main(environment(tmp_path, "collector:4318"))
    assert ended.code == 2
    assert ended.log.count("no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318'") == 1
