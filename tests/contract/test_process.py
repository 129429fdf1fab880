"""What a process gets and what it reports: it has to fit, and to come back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.runs import make_run
from selfevo_contract.phases import input_key
from selfevo_contract.plan import plan
from selfevo_contract.process import TERMINATION_LOG_LIMIT, PhaseConfig, PhaseResult, phase_config

KEY = "a" * 64
figures = st.dictionaries(st.text(max_size=80), st.floats(allow_nan=False, allow_infinity=False), max_size=200)
results = st.builds(
    PhaseResult,
    phase=st.sampled_from(["challenger-train", "solver-rollout", "solver-train", "evaluate"]),
    key=st.just(KEY),
    outcome=st.sampled_from(["committed", "found", "shard", "failed", "terminated"]),
    exit_code=st.integers(0, 255),
    reason=st.text(max_size=6000),
    message=st.text(max_size=6000),
    metrics=figures,
    timings=figures,
    resumed_from=st.none() | st.integers(0, 10**9),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(results)
def test_a_result_fits_into_a_termination_message_and_keeps_what_decides(result: PhaseResult) -> None:
    data = result.message_bytes()
    assert len(data) <= TERMINATION_LOG_LIMIT == 4096
    read = PhaseResult.model_validate_json(data)
    kept = ("phase", "key", "outcome", "exit_code", "resumed_from")
    assert [getattr(read, name) for name in kept] == [getattr(result, name) for name in kept]
    assert result.message.startswith(read.message) and result.reason.startswith(read.reason)
    assert read.metrics.items() <= result.metrics.items() and read.timings.items() <= result.timings.items()
    if len(result.model_dump_json(by_alias=True, exclude_none=True).encode()) <= TERMINATION_LOG_LIMIT:
        assert read == result


def many(prefix: str, count: int) -> dict[str, float]:
    return {f"{prefix}{number:03}": 0.123456789 for number in range(count)}


@pytest.mark.parametrize(
    ("large", "lost"),
    [
        ({"message": "m" * 5000}, {"message": "m" * 512}),
        # A control character is six bytes of JSON.
        ({"message": "\x00" * 5000}, {"message": "\x00" * 512}),
        ({"timings": many("t", 500)}, {"timings": {}}),
        ({"metrics": many("m", 500)}, {"metrics": many("m", 64), "timings": {}}),
        ({"reason": "R" * 5000}, {"reason": "R" * 64, "message": "", "metrics": {}, "timings": {}}),
    ],
    ids=["a message", "control characters", "timings", "metrics", "a reason"],
)
def test_what_is_too_large_gives_way_in_order(large: dict[str, Any], lost: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"message": "what; remedy", "metrics": {"a": 1.0}, "timings": {"total": 2.0}}
    result = PhaseResult(phase="evaluate", key=KEY, outcome="failed", **{**fields, **large})
    read = PhaseResult.model_validate_json(result.message_bytes())
    assert read == result.model_copy(update=lost)


def test_the_scores_that_decide_are_the_last_to_give_way() -> None:
    totals = {"mean": 0.5, "greedy": 0.4, "maj": 0.6}
    tasks = [f"task-{number}" for number in range(32)]
    rest = ("crashed", "greedy", "greedy_stderr", "maj", "mean", "mean_gain", "mean_gain_stderr", "pass@8", "tokens")
    metrics = {f"{task}/{name}": 1 / 3 for task in tasks for name in rest} | totals
    result = PhaseResult(phase="evaluate", key=KEY, outcome="committed", metrics=metrics)
    read = PhaseResult.model_validate_json(result.message_bytes()).metrics
    assert totals.items() <= read.items()
    assert {f"{task}/mean" for task in tasks} <= read.keys()


@pytest.mark.parametrize("name", [step.name for step in plan(make_run().spec).steps])
def test_a_config_says_all_of_its_step_and_survives_the_wire(name: str) -> None:
    spec = make_run().spec
    step = plan(spec).by_name[name]
    config = phase_config(spec, "demo", "research", step, attempt="demo-1")
    assert PhaseConfig.model_validate_json(json.dumps(config.wire())) == config
    assert (config.run, config.namespace, config.step, config.attempt) == ("demo", "research", name, "demo-1")
    assert config.key == step.key == input_key(config.inputs)
    assert config.prefix == f"research/{step.phase}/{step.key}"


def test_what_is_not_computed_with_is_passed_outside_of_the_inputs() -> None:
    plain = make_run().spec
    tuned = make_run(
        spec__solver__engine={"kind": "transformers", "batchSize": 7}, spec__solver__checkpointEvery=3
    ).spec
    before, after = (phase_config(spec, "demo", "x", plan(spec).by_name["solver-train-1"]) for spec in (plain, tuned))
    assert (after.engine.kind, after.checkpoint_every) == ("transformers", 3)
    assert after.key == before.key and after.inputs == before.inputs
