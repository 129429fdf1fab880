"""What a judge with criteria is asked, and whether its budget suffices: lines of `selfevo size` and `selfevo plan`."""

from __future__ import annotations

from typing import Any

import pytest

from harness.runs import RUBRIC, make_run
from selfevo.views.judge import judge_json, judge_lines, judge_table
from selfevo_contract.plan import plan
from selfevo_contract.sizing.hours import Lengths
from selfevo_contract.sizing.judged import Judged, call_tokens, judged, warnings
from selfevo_contract.sizing.memory import PROMPT_TOKENS
from selfevo_contract.sizing.speeds import CRITERIA, VERDICT
from selfevo_contract.spec.rubric import SYSTEM, Rubric
from selfevo_contract.spec.run import RunSpec

ANCHORS = {"anchors": {"data": {"uri": "file:///data/anchors.jsonl"}}}


def spec_of(verifier: dict[str, Any] | None = None, **rubric: Any) -> RunSpec:
    """Two iterations with the reference's sizes and such a judge."""
    before = RUBRIC["spec__verifier"]
    changed = {**before, **(verifier or {}), "rubric": {**before["rubric"], **rubric}}
    return make_run(**{**RUBRIC, "spec__verifier": changed}).spec


def asked(spec: RunSpec, **more: Any) -> dict[str, Judged]:
    return {one.step.name: one for one in judged(spec, plan(spec), Lengths(), **more)}


def budget(tokens: int) -> dict[str, Any]:
    return {"endpoint": {**RUBRIC["spec__verifier"]["rubric"]["endpoint"], "maxTokens": tokens}}


def warnings_of(**rubric: Any) -> list[str]:
    spec = spec_of(**rubric)
    return warnings(spec, judged(spec, plan(spec), Lengths()))


def test_answers_are_those_of_the_method_and_each_has_its_votes() -> None:
    spec = spec_of(ANCHORS)
    challenger, rollout, solver = spec.challenger, spec.rollout, spec.solver
    written = challenger.grpo.max_steps * challenger.grpo.completions_per_step
    answers = {
        "challenger-train": written * challenger.reward.solver_samples,
        "solver-rollout": rollout.questions * rollout.samples + 2 * 64,  # and the pairs of anchors
        "solver-train": solver.grpo.max_steps * solver.grpo.completions_per_step,
    }
    found = asked(spec)
    assert {name: one.answers for name, one in found.items()} == {
        f"{phase}-{t}": count for phase, count in answers.items() for t in (1, 2)
    }
    assert all(one.calls == 3 * one.answers for one in found.values())
    once = asked(spec_of(ANCHORS, votes=1))
    assert all(one.tokens == pytest.approx(3 * once[name].tokens) for name, one in found.items())
    assert asked(spec_of())["solver-rollout-1"].answers == rollout.questions * rollout.samples
    assert set(asked(spec, done=["challenger-train-1"])) == set(found) - {"challenger-train-1"}


def test_a_comparison_has_two_answers_in_two_orders_and_each_has_its_votes() -> None:
    """Groups of four, three comparisons of each answer: all six pairs."""
    alone, compared = asked(spec_of(ANCHORS)), asked(spec_of(ANCHORS, pairwise={}))
    assert {name: one.answers for name, one in compared.items()} == {name: one.answers for name, one in alone.items()}
    assert compared["challenger-train-1"].tokens == alone["challenger-train-1"].tokens
    rollout, before = compared["solver-rollout-1"], alone["solver-rollout-1"]
    assert rollout.calls == before.calls and rollout.tokens > before.tokens  # 64 anchors: two scores, or two orders
    solver = compared["solver-train-1"]
    assert solver.calls == 3 * 2 * solver.answers // 4 * 6
    fewer = asked(spec_of(pairwise={"comparisons": 2}))["solver-train-1"]
    assert fewer.calls == solver.calls * 4 / 6 and fewer.tokens == pytest.approx(solver.tokens * 4 / 6)
    judge = Rubric.model_validate({**RUBRIC["spec__verifier"]["rubric"], "pairwise": {"system": "j" * 40}})
    assert call_tokens(judge, 1000, judge.pairwise) == pytest.approx(
        CRITERIA.value + PROMPT_TOKENS + 10 + 2 * 1000 + VERDICT.value
    )
    [line] = [one for one in warnings_of(pairwise={}, **budget(int(solver.tokens) - 1)) if "solver-train-1" in one]
    assert line.endswith("votes (3) or verifier.rubric.pairwise.comparisons (4) or solver.grpo.promptsPerStep")


def test_a_run_without_such_a_judge_asks_none() -> None:
    spec = make_run().spec
    assert (asked(spec), judge_lines(spec, []), judge_json(spec, []), judge_table(spec, None, True)) == (
        {},
        [],
        None,
        [],
    )


@pytest.mark.parametrize(
    ("rubric", "answer", "read", "written"),
    [
        ({}, 1000, len(SYSTEM) / 4 + 1000, VERDICT.value),
        ({"system": "j" * 40}, 1000, 10 + 1000, VERDICT.value),
        ({"maxCharacters": 400}, 1000, len(SYSTEM) / 4 + 100, VERDICT.value),  # it is cut at its end
        ({"maxCompletionLength": 20}, 1, len(SYSTEM) / 4 + 1, 20),
    ],
)
def test_tokens_of_a_call(rubric: dict[str, Any], answer: int, read: float, written: float) -> None:
    judge = Rubric.model_validate({**RUBRIC["spec__verifier"]["rubric"], **rubric})
    assert call_tokens(judge, answer) == pytest.approx(CRITERIA.value + PROMPT_TOKENS + read + written)


def test_a_budget_that_does_not_suffice_is_reported_with_what_would() -> None:
    found = asked(spec_of())
    most, least = (pick(one.tokens for one in found.values()) for pick in (max, min))
    assert warnings_of(**budget(int(most) + 1)) == []
    warnings = warnings_of(**budget(int(least) - 1))
    phases = ["challenger-train-1", "solver-rollout-1", "solver-train-1"]
    assert len(warnings) == 3  # one a phase, and not one a step
    fields = ["challenger.reward.solverSamples", "rollout.samples", "solver.grpo.promptsPerStep"]
    for line, step, field in zip(warnings, phases, fields, strict=True):
        assert line.startswith(f"spec.verifier.rubric.endpoint.maxTokens is {int(least) - 1:,}, and {step} may ask")
        assert line.endswith(f"raise it to that, or lower verifier.rubric.votes (3) or {field}")
    [alone] = warnings_of(votes=1, **budget(int(most / 3) - 1))
    assert "challenger-train-1" in alone and "votes" not in alone
    # The budget that is named suffices.
    enough = int(alone.partition("for about ")[2].partition(" tokens")[0].replace(",", ""))
    assert warnings_of(votes=1, **budget(enough)) == []


def test_the_message_about_it() -> None:
    spec = spec_of(**budget(10**5))
    table = judge_table(spec, None, with_figures=True)
    assert table[0].split() == ["asks", "the", "judge", "answers", "calls", "million", "tokens", "of", "maxTokens"]
    assert [line.split("  ")[0] for line in table[1:5]] == [
        "challenger-train",
        "solver-rollout",
        "solver-train",
        "the run",
    ]
    assert all(line.split()[-1].endswith("%") for line in table[1:4]) and not table[4].endswith("%")
    assert "budget.tokens counts none" in table[5] and sum(line.startswith("  ") for line in table) == 2
    assert sum(line.startswith("warning: spec.verifier.rubric.endpoint.maxTokens is 100,000") for line in table) == 3
    shorter = judge_table(spec, 10, with_figures=False)
    assert float(shorter[4].split()[-1].replace(",", "")) < float(table[4].split()[-1].replace(",", ""))
    line, *warnings = judge_lines(spec, ["challenger-train-1"])
    assert line.startswith("judge: at most about ") and "the 5 steps not in the store" in line and len(warnings) == 3
    [of] = [judge_json(spec, ["challenger-train-1"])]
    assert of is not None and of["calls"] == sum(one.calls for one in asked(spec, done=["challenger-train-1"]).values())
    assert len(of["warnings"]) == 3
