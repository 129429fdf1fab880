"""Which judge a run with a Verifier goes by: the status, its column, events, guards."""

from __future__ import annotations

from typing import Any

import pytest
from test_reconcile import Scenario, starts

from harness.runs import TRIAD, make_run
from selfevo_contract.errors import InputError
from selfevo_contract.guard_signals import blind_guards
from selfevo_contract.packing import packed, unpacked
from selfevo_contract.run import refuse_what_is_not_built
from selfevo_contract.status import StepStatus
from selfevo_core.judges import agreement_line, judge_of, promotion_line
from selfevo_operator.writes.events import event

AT = "2026-01-01T00:00:01Z"
WORSE = {"promoted": 0.0, "anchors/after": 0.61, "anchors/before": 0.84, "anchors/error": 0.051}


def judged(iteration: int, **metrics: float) -> StepStatus:
    name = f"verifier-train-{iteration}"
    return StepStatus(
        name=name, phase="verifier-train", iteration=iteration, key="a" * 64, state="Succeeded", metrics=metrics
    )


@pytest.mark.parametrize(
    ("promoted", "column"),
    [
        ([], ""),
        ([1], "iteration 0"),
        ([1, 1, 1], "iteration 2"),
        ([1, 0, 0], "iteration 0; 1, 2 not promoted"),
        ([1, 1, 0, 1], "iteration 3"),
        ([1, 0, 1, 0], "iteration 2; 3 not promoted"),
    ],
)
def test_the_column_names_the_judge_that_scores(promoted: list[int], column: str) -> None:
    assert judge_of([judged(i, promoted=float(value)) for i, value in enumerate(promoted)]) == column


def test_a_lost_figure_says_nothing_of_a_judge() -> None:
    assert judge_of([judged(0, promoted=1.0), judged(1), judged(2, promoted=0.0)]) == "iteration 0; 2 not promoted"


def test_a_judge_that_is_not_promoted_is_reported() -> None:
    scenario = Scenario(**TRIAD)
    for name in ("verifier-train-0", "evaluate-0", "challenger-train-1", "solver-rollout-1"):
        scenario.done(name, **({"promoted": 1.0} if name.startswith("verifier") else {}))
    before = scenario.reconcile().status
    assert (before.judge, starts(scenario.reconcile())) == ("iteration 0", [("verifier-train-1", 1)])
    scenario.done("verifier-train-1", **WORSE)
    after = scenario.reconcile().status
    assert after.judge == "iteration 0; 1 not promoted"
    assert starts(scenario.reconcile()) == [("solver-train-1", 1)]  # by the judge before
    made = event(scenario.run, before, after, AT)
    assert made is not None and (made["type"], made["reason"]) == ("Warning", "VerifierNotPromoted")
    expected = "its judge is not promoted: 61.0 % of the sealed anchors right, 84.0 % before (± 5.1)"
    assert expected in made["message"]


def test_a_judge_that_follows_lengths_is_reported_with_its_correlation() -> None:
    lengths = {"refused/length": 1.0, "anchors/length_after": 0.62, "anchors/length_before": 0.3}
    line = promotion_line(judged(1, **{**WORSE, **lengths}))
    assert line.endswith(
        "84.0 % before (± 5.1), and its scores follow the answers' lengths (correlation 0.62, 0.30 before)"
    )
    assert promotion_line(judged(1, **{**WORSE, **lengths, "refused/length": 0.0})).endswith("before (± 5.1)")


def test_a_promotion_is_an_event() -> None:
    scenario = Scenario(**TRIAD)
    for name in ("verifier-train-0", "evaluate-0", "challenger-train-1", "solver-rollout-1"):
        scenario.done(name)
    before = scenario.reconcile().status
    scenario.done("verifier-train-1", **{**WORSE, "promoted": 1.0, "anchors/after": 0.9})
    made = event(scenario.run, before, scenario.reconcile().status, AT)
    assert made is not None and (made["type"], made["reason"]) == ("Normal", "VerifierPromoted")
    assert "its judge is promoted: 90.0 % of the sealed anchors right, 84.0 % before" in made["message"]


@pytest.mark.parametrize(("share", "kind"), [(0.558, "Warning"), (0.821, None)])
def test_a_first_judge_that_guesses_is_an_event(share: float, kind: str | None) -> None:
    scenario = Scenario(**TRIAD)
    before = scenario.reconcile().status
    scenario.done("verifier-train-0", **{"promoted": 1.0, "anchors/after": share, "anchors/count": 285.0})
    made = event(scenario.run, before, scenario.reconcile().status, AT)
    assert made is not None and ("no better than chance" in made["message"]) == (kind is not None)
    assert (made["type"], made["reason"]) == (("Warning", "VerifierPromoted") if kind else ("Normal", "StepSucceeded"))


def test_a_judge_that_is_replaced_is_not_doubted() -> None:
    guessed = {"anchors/after": 0.5, "anchors/before": 0.9, "anchors/count": 64.0}
    assert "chance" not in promotion_line(judged(1, promoted=0.0, **guessed))
    assert "no better than chance: see that the judge" in promotion_line(judged(1, promoted=1.0, **guessed))


def test_other_steps_have_no_judge() -> None:
    step = StepStatus(name="evaluate-1", phase="evaluate", iteration=1, key="a" * 64, metrics={"promoted": 1.0})
    assert promotion_line(step) == "" and judge_of([step]) == ""
    assert Scenario().reconcile().status.judge == ""


def test_which_judges_were_promoted_outlives_the_figures() -> None:
    steps = [judged(i, promoted=float(i == 7)).model_dump() for i in range(450)]
    lines, kept = packed(steps, set())
    assert lines[7].endswith("promoted=1.0") and len(lines) + len(kept) == len(steps)
    assert judge_of(map(StepStatus.model_validate, unpacked(lines))).startswith("iteration 7; 8, 9, 10")


def test_a_judge_with_criteria_is_reported_by_its_newest_anchors() -> None:
    def rollout(iteration: int, **metrics: float) -> StepStatus:
        place = {"name": f"solver-rollout-{iteration}", "iteration": iteration, "key": "a" * 64}
        return StepStatus(phase="solver-rollout", state="Succeeded", metrics=metrics, **place)

    asked = {"anchors/accuracy": 0.891, "anchors/count": 64.0}
    steps = [rollout(2, **asked), rollout(1, **{**asked, "anchors/accuracy": 0.5}), rollout(3)]
    assert judge_of(steps) == "89.1 % of 64 anchors right"
    tied = {**asked, "anchors/accuracy": 0.5}  # 32 right, 28 tied and 4 wrong, say
    assert judge_of([*steps, rollout(4, **tied)]) == "50.0 % of 64 anchors right"
    assert judge_of([rollout(1)]) == agreement_line({}) == ""


def test_guards_that_need_votes_are_blind() -> None:
    blind = blind_guards(make_run(spec__guards={}, **TRIAD).spec)
    assert blind["inBand"] == "spec.verifier scores answers, and no share of them is a majority"
    assert "labelAccuracy" in blind and "inBand" not in blind_guards(
        make_run(spec__guards={}, spec__rollout__questions=200).spec
    )


@pytest.mark.parametrize(
    ("field", "value"), [("oracle", {"kind": "arithmetic"}), ("labels", "random"), ("wellFormed", [{"kind": "number"}])]
)
def test_what_is_about_boxes_is_refused(field: str, value: object) -> None:
    refuse_what_is_not_built(make_run(**TRIAD).spec)
    with pytest.raises(InputError) as error:
        refuse_what_is_not_built(make_run(**{**TRIAD, f"spec__rollout__{field}": value}).spec)
    assert str(error.value) == (
        f"spec.rollout.{field} is about answers in boxes, and in a run with spec.verifier a judge scores whole "
        f"answers; remove spec.rollout.{field}"
    )


def test_a_judge_pays_no_finetuning() -> None:
    labelled = {"data": {"uri": "s3://bucket/labelled.jsonl"}}
    refuse_what_is_not_built(make_run(**TRIAD, spec__finetune=labelled).spec)
    with pytest.raises(InputError) as error:
        refuse_what_is_not_built(make_run(**TRIAD, spec__finetune={**labelled, "kind": "grpo"}).spec)
    assert str(error.value) == (
        "spec.finetune.kind is 'grpo', paid by spec.solver.reward, and in a run with spec.verifier that compares no "
        "answer with a label; set it to sft"
    )


@pytest.mark.parametrize("mode", ["confidence", "selfCertainty"])
def test_what_uses_no_label_pays_no_finetuning(mode: str) -> None:
    changes: dict[str, Any] = {
        "spec__solver__reward": {"mode": mode},
        "spec__finetune": {"data": {"uri": "s3://bucket/labelled.jsonl"}},
    }
    refuse_what_is_not_built(make_run(**changes).spec)
    changes["spec__finetune"]["kind"] = "grpo"
    with pytest.raises(InputError) as error:
        refuse_what_is_not_built(make_run(**changes).spec)
    assert str(error.value) == (
        f"spec.finetune.kind is 'grpo', paid by spec.solver.reward, whose mode {mode!r} uses no label; set it to sft"
    )
