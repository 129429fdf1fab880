"""Guards by tables: what steps have measured in, what each guard says and what follows out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from test_reconcile import NOW, Scenario, starts, stops

from harness.runs import DOCUMENT, make_run
from selfevo_contract.guard_signals import blind_guards, warning_guards
from selfevo_contract.phases import PublishInputs
from selfevo_contract.plan import plan, rollbacks_of
from selfevo_contract.scores import SCORES
from selfevo_contract.spec.guards import GuardAction, Guards
from selfevo_contract.status import GuardStatus
from selfevo_core.policies.guarding import watching
from selfevo_core.policies.guards import GUARDS, Guard
from selfevo_core.policies.guards.base import Estimate, History, Reading
from selfevo_core.policies.guards.consensus import CONSENSUS
from selfevo_core.policies.guards.in_band import IN_BAND
from selfevo_core.policies.guards.malformed import MALFORMED
from selfevo_core.policies.guards.similarity import SIMILARITY
from selfevo_core.policies.guards.truncation import TRUNCATION

HEALTHY: dict[str, dict[str, float]] = {
    "evaluate": {
        "mean": 0.5,
        "mean_stderr": 0.02,
        "greedy": 0.5,
        "greedy_gain": 0.0,
        "greedy_gain_stderr": 0.02,
        "consensus": 0.6,
        "consensus_gain_stderr": 0.01,
    },
    "challenger-train": {"reward_last": 0.4},
    "solver-rollout": {
        "questions": 100,
        "valid": 95,
        "similar_share": 0.1,
        "kept": 40,
        "expected_accuracy": 0.3,
        "distinct_share": 0.9,
        "in_band_share": 0.5,
        "answers/truncated": 0.01,
        "label_accuracy": 0.8,
        "dropped_proof": 1,
        "dropped_above_band": 30,
    },
    "solver-train": {
        "reward_first": 0.3,
        "reward_last": 0.4,
        "kl_first": 0.0,
        "kl_last": 0.01,
        "entropy_first": 1.0,
        "entropy_last": 0.8,
        "frac_reward_zero_std_last": 0.4,
        "completions/mean_length_first": 100,
        "completions/mean_length_last": 110,
    },
}
GROUPS = {"spec__solver__grpo__promptsPerStep": 32, "spec__rollout__questions": 200}
ORACLE = {
    "spec__rollout__oracle": {"kind": "arithmetic"},
    "spec__rollout__replay": {"share": 0.5, "pool": 1000},
    **GROUPS,
}
"""What every guard needs."""


def life(iterations: dict[int, dict[str, float]], last: int = 0, **changes: Any) -> Scenario:
    """A run of five iterations whose steps are done up to ``last``, healthy but for ``phase/metric`` in ``iterations``.

    ``solver-rollout/valid=None`` takes a figure away.
    """
    last = last or max(iterations)
    scenario = Scenario(**{"spec__iterations": 5, "spec__guards": {}, **ORACLE, **changes})
    for step in scenario.plan.steps:
        if step.iteration <= last and step.phase in HEALTHY:
            odd = iterations.get(step.iteration, {})
            own = {name.split("/", 1)[1]: value for name, value in odd.items() if name.startswith(f"{step.phase}/")}
            metrics = {name: value for name, value in {**HEALTHY[step.phase], **own}.items() if value is not None}
            scenario.done(step.name, **metrics)
    scenario.reconcile()
    return scenario


def guards_of(scenario: Scenario) -> dict[str, GuardStatus]:
    return {guard.name: guard for guard in scenario.status.guards}


def test_a_healthy_run_passes_all_guards() -> None:
    scenario = life({}, last=3)
    assert {guard.state for guard in scenario.status.guards} == {"Passing"} and len(scenario.status.guards) == len(
        GUARDS
    )
    assert scenario.status.watch == "passing" and scenario.conditions()["GuardTripped"] == "False"
    assert starts(scenario.reconcile()) == [("challenger-train-4", 1)]


def test_a_run_without_guards_has_nothing_of_them() -> None:
    scenario = life({3: {"solver-rollout/answers/truncated": 0.9}}, spec__guards=None)
    assert scenario.status.guards == [] and scenario.status.watch == "" and "GuardTripped" not in scenario.conditions()


FALL = {"evaluate/mean": 0.3}
LESS = {"evaluate/mean": 0.47}
ROSE = {"evaluate/mean": 0.6}
AGAIN = {"solver-rollout/similar_share": 0.6}
AGREED = {"evaluate/consensus": 0.72}
LIMITS: dict[str, dict[str, float]] = {
    "heldOut": {"limit": 2},
    "flips": {"limit": 2},
    "consensusWithoutGain": {"limit": 0.1, "patience": 2},
    "labelAccuracy": {"warnAt": 0.1, "limit": 0.15},
    "rewardGap": {"limit": 0.05},
    "malformed": {"limit": 0.3, "rise": 0.2},
    "diversity": {"limit": 0.5, "fall": 1},
    "similarity": {"limit": 0.5, "patience": 2},
    "inBand": {"limit": 0.1},
    "truncation": {"warnAt": 0.05, "limit": 0.15},
    "entropy": {"limit": 0.3},
    "zeroSpread": {"limit": 0.9},
    "kl": {"limit": 10},
    "length": {"limit": 2},
}
"""Of the tables, so that they say what a limit means, whatever the defaults are."""


def limits(guard: str, errors: float, action: str) -> dict[str, Any]:
    return {**LIMITS, "standardErrors": errors, guard: {**LIMITS[guard], "action": action}}


TABLE: list[tuple[str, dict[int, dict[str, float]], str, str]] = [
    # guard, what is odd, state with action stop, part of the sentence
    (
        "heldOut",
        {2: FALL},
        "Warned",
        "30.0 %, 7.1 standard errors below the best before it, 50.0 %",
    ),
    ("heldOut", {2: FALL, 3: FALL}, "Tripped", "in iteration 3 the held-out score is 30.0 %"),
    ("heldOut", {2: {"evaluate/mean": 0.45}, 3: {"evaluate/mean": 0.45}}, "Passing", "1.8 standard errors below"),
    ("heldOut", {2: FALL, 3: FALL, 4: {}}, "Passing", "0.0 standard errors below"),
    ("flips", {3: {"evaluate/greedy_gain": -0.05}}, "Tripped", "2.5 standard errors more went from right to wrong"),
    ("flips", {3: {"evaluate/greedy_gain": 0.05}}, "Passing", "no more went from right to wrong"),
    (
        "consensusWithoutGain",
        {2: AGREED},
        "Warned",
        "has 72.0 % of them, 60.0 % when the score last rose, beyond 10 points",
    ),
    ("consensusWithoutGain", {2: AGREED, 3: AGREED}, "Tripped", "in iteration 3 the largest class of equal answers"),
    ("consensusWithoutGain", {2: AGREED, 3: AGREED | ROSE, 4: AGREED | ROSE}, "Passing", "72.0 % of them, 72.0 % when"),
    ("consensusWithoutGain", {2: AGREED | ROSE}, "Passing", "in iteration 2 the score of the held-out questions rose"),
    ("consensusWithoutGain", {2: AGREED | LESS, 3: AGREED | LESS}, "Tripped", "60.0 % when the score last rose"),
    ("labelAccuracy", {3: {"solver-rollout/label_accuracy": 0.69}}, "Warned", "11.0 points fewer than at first"),
    ("labelAccuracy", {3: {"solver-rollout/label_accuracy": 0.63}}, "Tripped", "63.0 % of the labels are right"),
    ("labelAccuracy", {2: {"solver-rollout/label_accuracy": 0.95}}, "Passing", "15.0 points more than at first"),
    (
        "rewardGap",
        {2: {"solver-train/reward_first": 0.2}},
        "Tripped",
        "earned 0.2 at the first update of its training, and its votes foretold 0.3, beyond a gap of 0.05",
    ),
    ("rewardGap", {2: {"solver-train/reward_first": -0.3}}, "Tripped", "answers earned -0.3 at the first update"),
    ("rewardGap", {2: {"solver-train/reward_first": 0.26}}, "Passing", "earned 0.26 at the first update"),
    ("rewardGap", {2: {"solver-train/reward_first": 0.9}}, "Passing", "answers earned 0.9"),
    ("malformed", {2: {"solver-rollout/valid": 66}}, "Tripped", "35.0 % of the Challenger's completions"),
    ("malformed", {2: {"solver-rollout/valid": 72}}, "Tripped", "29.0 % of the Challenger's completions"),
    ("malformed", {2: {"solver-rollout/dropped_proof": 24}}, "Tripped", "29.0 % of the Challenger's completions"),
    ("malformed", {2: {"solver-rollout/valid": 76}}, "Passing", "25.0 % of the Challenger's completions"),
    ("diversity", {2: {"solver-rollout/distinct_share": 0.4}}, "Tripped", "40.0 % of the Challenger's completions are"),
    ("diversity", {2: {"solver-rollout/distinct_share": 0.5}}, "Passing", "50.0 %"),
    (
        "similarity",
        {2: AGAIN},
        "Warned",
        "60.0 % of the Challenger's questions are similar to one of an earlier iteration, 10.0 % before",
    ),
    (
        "similarity",
        {2: AGAIN, 3: {"solver-rollout/similar_share": 0.7}},
        "Tripped",
        "70.0 % of the Challenger's questions",
    ),
    ("similarity", {2: AGAIN, 3: AGAIN}, "Passing", "60.0 % before"),
    ("inBand", {2: {"solver-rollout/in_band_share": 0.09}}, "Tripped", "9.0 % of the valid questions are in the band"),
    ("truncation", {2: {"solver-rollout/answers/truncated": 0.06}}, "Warned", "6.0 % of the rollout's answers ended"),
    ("truncation", {2: {"solver-rollout/answers/truncated": 0.16}}, "Tripped", "at their length limit, beyond 15.0 %"),
    ("entropy", {2: {"solver-train/entropy_last": 0.29}}, "Tripped", "29.0 % of 1 at first, below 30.0 %"),
    ("entropy", {2: {"solver-train/entropy_last": 0.31}}, "Passing", "31.0 % of 1"),
    ("zeroSpread", {2: {"solver-train/frac_reward_zero_std_last": 0.95}}, "Tripped", "95.0 % of the groups had equal"),
    ("kl", {2: {"solver-train/kl_last": 0.2, "solver-train/reward_last": 0.3}}, "Tripped", "its reward did not rise"),
    ("kl", {2: {"solver-train/kl_last": 0.2}}, "Passing", "the reward of the Solver's training rose"),
    (
        "length",
        {2: {"solver-train/completions/mean_length_last": 201}},
        "Tripped",
        "201 tokens long after training",
    ),
    ("length", {2: {"solver-train/completions/mean_length_last": 49}}, "Tripped", "49 tokens long after training, 100"),
    ("length", {2: {"solver-train/completions/mean_length_last": 51}}, "Passing", "51 tokens"),
]


@pytest.mark.parametrize(("guard", "odd", "state", "sentence"), TABLE)
def test_what_a_guard_says(guard: str, odd: dict[int, dict[str, float]], state: str, sentence: str) -> None:
    scenario = life(odd, spec__guards=limits(guard, 0, "stop"))
    verdict = guards_of(scenario)[guard]
    assert verdict.state == state and sentence in verdict.message, verdict
    assert (scenario.status.phase == "Failed") is (state == "Tripped")
    assert {name for name, other in guards_of(scenario).items() if other.state != "Passing"} <= {guard}
    # The same and no more with the action warn.
    warned = guards_of(life(odd, spec__guards=limits(guard, 0, "warn")))[guard]
    assert warned.state == ("Warned" if state == "Tripped" else state) and warned.message == verdict.message
    assert guard not in guards_of(life(odd, spec__guards=limits(guard, 0, "ignore")))


def readings(guard: Guard, history: History, **changes: Any) -> list[tuple[int, float]]:
    """Level by iteration."""
    spec = make_run(**{"spec__guards": {}, **changes}).spec
    return [(reading.iteration, round(reading.level, 4)) for reading in guard.readings(history, spec, None)]


def test_similar_questions_are_counted_by_one_step_alone() -> None:
    asked = {
        n: {"rollout/similar_share": 0.3, "rollout/valid": 100.0, "challenger/similar_last": 0.1 * n} for n in (2, 3)
    }
    half_done = {**asked, 4: {"challenger/similar_last": 0.8}}
    replay: dict[str, Any] = {"spec__rollout__replay": {}, "spec__challenger__reward__memory": {}}
    assert readings(SIMILARITY, half_done, **replay) == [(2, 0.0), (3, 0.0)]
    assert readings(SIMILARITY, half_done, spec__challenger__reward__memory={}) == [(2, 0.0), (3, 0.3), (4, 0.8)]


def test_the_first_share_of_similar_questions_is_no_rise() -> None:
    constant = {n: {"rollout/similar_share": 0.9, "rollout/valid": 100.0} for n in (2, 3, 4)}
    assert readings(SIMILARITY, constant, spec__rollout__replay={}) == [(2, 0.0), (3, 0.0), (4, 0.0)]


def test_consensus_rises_since_the_score_did_also_when_the_errors_of_old_iterations_are_forgotten() -> None:
    def evaluated(score: float, consensus: float, errors: bool = True) -> dict[str, float]:
        known = {"evaluation/mean_gain_stderr": 0.015, "evaluation/consensus_gain_stderr": 0.01} if errors else {}
        return {"evaluation/mean": score, "evaluation/consensus": consensus, **known}

    base = {0: evaluated(0.5, 0.6, errors=False)}
    old, new = dict.fromkeys(range(1, 5), (0.52, 0.65)), dict.fromkeys(range(5, 8), (0.52, 0.74))
    all_known = {**base, **{n: evaluated(*both) for n, both in {**old, **new}.items()}}
    forgotten = {**all_known, **{n: evaluated(*both, errors=False) for n, both in old.items()}}
    expected = [*((n, 0.05) for n in old), *((n, 0.14) for n in new)]
    assert readings(CONSENSUS, all_known) == readings(CONSENSUS, forgotten) == expected
    rose = {**all_known, 6: evaluated(0.56, 0.75)}
    assert readings(CONSENSUS, rose)[-2:] == [(6, 0.0), (7, -0.01)]


def test_every_guard_is_in_the_table_with_a_trip_and_a_pass() -> None:
    states = {guard: {state for name, _, state, _ in TABLE if name == guard} for guard in {row[0] for row in TABLE}}
    assert set(states) == {guard.name for guard in GUARDS}
    assert ["max_rollbacks", "standard_errors", *(guard.field for guard in GUARDS)] == list(Guards.model_fields)
    assert all("Tripped" in found for found in states.values())


FEW, MANY = {"solver-rollout/valid": 38}, {"solver-rollout/valid": 3800}
LABELS = "solver-rollout/label_accuracy"
UNCERTAIN: list[tuple[str, dict[str, float], dict[str, float], str, str]] = [
    # guard, the first iteration's figures, the second one's, state, part of the sentence; at 2 standard errors
    ("truncation", {}, {**FEW, "solver-rollout/answers/truncated": 0.25}, "Warned", "% by more than 2 standard errors"),
    (
        "truncation",
        {},
        {**FEW, "solver-rollout/answers/truncated": 0.1},
        "Passing",
        "5.0 %, but by no more than 2 stan",
    ),
    ("truncation", {}, {**MANY, "solver-rollout/answers/truncated": 0.1}, "Warned", "beyond 5.0 % by more than 2"),
    ("truncation", {}, {**MANY, "solver-rollout/answers/truncated": 0.2}, "Tripped", "beyond 15.0 % by more than 2"),
    ("inBand", {}, {**FEW, "solver-rollout/in_band_share": 0.05}, "Passing", "below 10.0 %, but by no more than 2"),
    ("inBand", {}, {**MANY, "solver-rollout/in_band_share": 0.05}, "Tripped", "below 10.0 % by more than 2 standard"),
    ("diversity", {}, {"solver-rollout/distinct_share": 0.45}, "Passing", "diversity.fall, but by no more than 2"),
    ("diversity", {}, {"solver-rollout/distinct_share": 0.3}, "Tripped", "30.0 % of the Challenger's completions"),
    ("malformed", {}, {"solver-rollout/valid": 72}, "Passing", "by no more than 2 standard errors"),
    ("malformed", {}, {"solver-rollout/valid": 50}, "Tripped", "51.0 % of the Challenger's completions"),
    # The share is no more than its error beyond .3, nor the rise beyond .2: here and at first there were 100.
    ("malformed", {"solver-rollout/valid": 88}, {"solver-rollout/valid": 62}, "Passing", "(13.0 % at first); beyond"),
    ("malformed", {"solver-rollout/valid": 99}, {"solver-rollout/valid": 64}, "Tripped", "37.0 % of the Challenger's"),
    # Labels: 40 in iteration 1, of which .8 are right; 14 and 4000 in iteration 2. Then the first ones are few.
    ("labelAccuracy", {}, {"solver-rollout/kept": 14, LABELS: 0.6}, "Passing", "20.0 points fewer than at first"),
    ("labelAccuracy", {}, {"solver-rollout/kept": 4000, LABELS: 0.5}, "Tripped", "30.0 points fewer than at first"),
    ("labelAccuracy", {"solver-rollout/kept": 9}, {"solver-rollout/kept": 4000, LABELS: 0.5}, "Passing", "30.0 points"),
    ("labelAccuracy", {}, {"solver-rollout/label_checked": 5, LABELS: 0.4}, "Passing", "40.0 points fewer"),
    ("labelAccuracy", {LABELS: 1.0, "solver-rollout/kept": 3}, {LABELS: 0.6}, "Passing", "40.0 points fewer"),
    # 32 questions in a step, .3 expected by 40 questions of 4 answers, or by one.
    ("rewardGap", {}, {"solver-train/reward_first": 0.1}, "Passing", "beyond a gap of 0.05, but by no more than 2"),
    ("rewardGap", {}, {"solver-train/reward_first": 0.0}, "Tripped", "beyond a gap of 0.05 by more than 2 standard"),
    ("rewardGap", {}, {"solver-train/reward_first": 0.0, "solver-rollout/kept": 1}, "Passing", "by no more than 2"),
    # Four groups in an update (DOCUMENT).
    (
        "zeroSpread",
        {},
        {"solver-train/frac_reward_zero_std_last": 0.95},
        "Passing",
        "beyond 90.0 %, but by no more than",
    ),
    # Nobody says how sure these are.
    ("entropy", {}, {"solver-train/entropy_last": 0.29}, "Tripped", "below 30.0 %"),
    ("heldOut", {}, {"evaluate/mean": 0.43}, "Warned", "2.5 standard errors below the best before it, 50.0 %, beyond"),
    # All models answer the same questions.
    ("heldOut", {}, {"evaluate/mean": 0.47, "evaluate/mean_gain_stderr": 0.01}, "Warned", "3.0 standard errors below"),
    ("heldOut", {"evaluate/mean": 0.55}, {"evaluate/mean": 0.53}, "Passing", "0.7 standard errors below"),
    (
        "heldOut",
        {"evaluate/mean": 0.55, "evaluate/mean_gain_stderr": 0.006},
        {"evaluate/mean": 0.53, "evaluate/mean_gain_stderr": 0.008},
        "Warned",
        "2.0 standard errors below the best before it, 55.0 %",
    ),
]


@pytest.mark.parametrize(("guard", "first", "second", "state", "sentence"), UNCERTAIN)
def test_what_few_questions_say_may_be_chance(
    guard: str, first: dict[str, float], second: dict[str, float], state: str, sentence: str
) -> None:
    verdict = guards_of(life({1: first, 2: second}, spec__guards=limits(guard, 2, "stop")))[guard]
    assert verdict.state == state and sentence in verdict.message, verdict


def test_what_several_measurements_in_a_row_say_is_summed() -> None:
    """Truncated .12 of 38 questions: 1.2 errors beyond .05, and none by itself beyond it by two."""
    often = {**FEW, "solver-rollout/answers/truncated": 0.12}
    guards = {**limits("truncation", 2, "stop"), "truncation": {"limit": 0.05, "action": "rollback"}}

    def verdict(odd: dict[int, dict[str, float]]) -> GuardStatus:
        return guards_of(life(odd, spec__guards=guards))["truncation"]

    once = verdict({2: often})
    assert once.state == "Passing" and once.since is None and "5.0 %, but by no more than 2 standard" in once.message
    again = verdict({1: often, 2: often})
    assert again.state == "Tripped" and again.since == 1, "the first of them may be to blame"
    assert again.message.endswith(
        "beyond 5.0 % by more than 2 standard errors, summed over the measurements in a row that are"
    )
    large = verdict({1: often, 2: {**FEW, "solver-rollout/answers/truncated": 0.4}})
    assert large.state == "Tripped" and large.message.endswith("by more than 2 standard errors")


def test_an_iteration_whose_figures_the_status_has_lost_is_not_to_blame() -> None:
    """A row of bad measurements may be older than what the status remembers of them."""
    often = {"solver-rollout/answers/truncated": 0.3}
    everything = {f"{phase}/{name}": None for phase, names in HEALTHY.items() for name in names if name not in SCORES}
    unmeasured = {"solver-rollout/answers/truncated": None}

    def since(early: dict[str, None]) -> int | None:
        odd: dict[int, Any] = {**dict.fromkeys((1, 2, 3), early), 4: often, 5: often}
        return guards_of(life(odd, spec__guards=limits("truncation", 2, "rollback")))["truncation"].since

    assert since(everything) == 4
    assert since(unmeasured) == 1, "nobody knows of a good one"


def test_a_sum_begins_again_within_the_limit() -> None:
    def reading(iteration: int, level: float, error: float = 0.04) -> Reading:
        return Reading(iteration, level, None, level, error)

    rows = [reading(i, level) for i, level in enumerate((0.12, 0.12, 0.04, 0.12, 0.12, 0.06), 1)]
    assert TRUNCATION.beyond(rows, 0.05, 2) == [False, True, False, False, True, True]
    assert TRUNCATION.beyond(rows, 0.05, 0) == [True, True, False, True, True, True]
    # One whose error nobody knows counts by itself, and begins no sum.
    unknown = [reading(1, 0.12), reading(2, 0.12, 0.0), reading(3, 0.12)]
    assert TRUNCATION.beyond(unknown, 0.05, 2) == [False, True, False]
    inside = [reading(i, 0.02) for i in (1, 2)]
    assert IN_BAND.beyond(inside, 0.06, 1.5) == [False, True] and IN_BAND.beyond(inside, 0.06, 0) == [True, True]


def test_the_error_of_the_baseline_is_kept_with_it() -> None:
    scenario = Scenario(spec__iterations=14, spec__guards=limits("labelAccuracy", 2, "stop"), **ORACLE)
    odd = {1: {"kept": 9}, 13: {"kept": 4000, "label_accuracy": 0.5}}
    for step in scenario.plan.steps:
        if step.iteration <= 13:
            own = odd.get(step.iteration, {}) if step.phase == "solver-rollout" else {}
            scenario.done(step.name, **{**HEALTHY[step.phase], **own})
    assert scenario.step("solver-rollout-1").metrics == {}
    verdict = guards_of(scenario)["labelAccuracy"]
    assert (verdict.baseline, verdict.baseline_error, verdict.state) == (0.8, 0.13134, "Passing")


@pytest.mark.parametrize(("fall", "state"), [(0.2, "Tripped"), (0.24, "Passing"), (0.3, "Passing"), (1, "Passing")])
def test_questions_that_differ_less_than_at_first_trip_before_the_limit(fall: float, state: str) -> None:
    guards = {"standardErrors": 1, "diversity": {"limit": 0.5, "fall": fall, "action": "stop"}}
    verdict = guards_of(life({2: {"solver-rollout/distinct_share": 0.62}}, spec__guards=guards))["diversity"]
    assert (verdict.state, verdict.baseline) == (state, 0.9) and "are different questions (90.0 % at" in verdict.message


def test_a_question_without_a_well_formed_answer_is_hard_and_not_malformed() -> None:
    hard = {1: {"solver-rollout/dropped_empty_majority": 60}}
    assert guards_of(life(hard))["malformed"].state == "Warned"
    assert guards_of(life(hard, spec__rollout__wellFormed=[{"kind": "length"}]))["malformed"].value == 0.06


@pytest.mark.parametrize(("recorded", "checked", "baseline"), [(0.0, True, 0.1), (0.01, True, 0.5), (0.0, False, 0.5)])
def test_a_baseline_that_counted_hard_questions_is_not_taken_over(
    recorded: float, checked: bool, baseline: float
) -> None:
    """One that a version recorded which knew no errors."""
    form = {"spec__rollout__wellFormed": [{"kind": "length"}]} if checked else {}
    spec = make_run(spec__guards={}, **form).spec
    history = {2: {"rollout/questions": 100.0, "rollout/valid": 90.0}}
    (reading,) = MALFORMED.readings(history, spec, Estimate(0.5, recorded))
    assert reading.baseline is not None and reading.baseline.value == baseline


@pytest.mark.parametrize(
    ("settings", "warns"),
    [({}, 0.15), ({"limit": 0.1}, 0.1), ({"limit": 0.4}, 0.15), ({"limit": 0.5, "warnAt": 0.3}, 0.3)],
)
def test_a_guard_warns_at_its_limit_at_the_latest(settings: dict[str, float], warns: float) -> None:
    assert Guards.model_validate({"truncation": settings}).truncation.warns_from == warns
    assert Guards.model_validate({"labelAccuracy": {"limit": 0.15}}).label_accuracy.warns_from == 0.15


TRUNCATED = {"solver-rollout/answers/truncated": 0.4}


def test_a_guard_that_trips_stops_what_runs_and_says_how_to_go_on() -> None:
    scenario = life({1: {}}, spec__parallelSteps=2)
    scenario.done("challenger-train-2")
    scenario.done("solver-rollout-2", **{**HEALTHY["solver-rollout"], "answers/truncated": 0.4})
    assert scenario.status.phase == "Failed" and scenario.status.finished_at is not None
    assert scenario.status.watch == "tripped: truncation"
    ready = next(c for c in scenario.status.conditions if c.type == "Ready")
    assert ready.reason == "GuardTripped"
    assert ready.message == (
        "guard truncation: in iteration 2 40.0 % of the rollout's answers ended at their length limit, beyond 15.0 % "
        "by more than 2 standard errors; "
        "change spec.guards.truncation (a limit, or action: warn) to go on with what there is, or start another run"
    )
    tripped = next(c for c in scenario.status.conditions if c.type == "GuardTripped")
    assert (tripped.status, tripped.reason) == ("True", "GuardTripped") and tripped.message.startswith("truncation: in")
    assert starts(scenario.reconcile()) == []


def test_what_runs_beside_it_ends_at_its_checkpoint() -> None:
    scenario = life({2: {}}, spec__parallelSteps=2, spec__evaluation__every=1)
    running = scenario.attempt("challenger-train-3")
    scenario.change(spec__guards={"length": {"limit": 1, "action": "stop"}})
    assert stops(scenario.reconcile()) == [(running.name, "RunFailed")]


@pytest.mark.parametrize("answer", [{"limit": 0.5}, {"action": "warn"}, {"action": "ignore"}, {"patience": 2}])
def test_a_changed_guard_lets_the_run_go_on(answer: dict[str, Any]) -> None:
    scenario = life({2: TRUNCATED})
    assert scenario.status.phase == "Failed"
    scenario.change(spec__guards={"diversity": {"limit": 0.4}})
    scenario.reconcile()
    assert scenario.status.phase == "Failed"  # another guard's is no answer
    scenario.change(spec__guards={"truncation": answer})
    assert starts(scenario.reconcile()) == [("challenger-train-3", 1)]
    assert scenario.status.phase == "Running" and scenario.status.finished_at is None


def test_guards_that_are_taken_away_leave_their_condition_as_false() -> None:
    scenario = life({2: TRUNCATED}).change(spec__guards=None)
    scenario.reconcile()
    assert scenario.conditions()["GuardTripped"] == "False" and scenario.status.guards == []


def test_a_run_that_is_done_is_done_whatever_its_guards_say() -> None:
    scenario = life({5: TRUNCATED})
    assert (scenario.status.phase, scenario.status.watch) == ("Succeeded", "tripped: truncation")


def test_patience_counts_measurements_in_a_row() -> None:
    guards = {"truncation": {"patience": 2}}
    assert life({2: TRUNCATED}, spec__guards=guards).status.watch == "warned: truncation"
    assert life({2: TRUNCATED, 4: TRUNCATED}, spec__guards=guards).status.watch == "warned: truncation"
    assert life({3: TRUNCATED, 4: TRUNCATED}, spec__guards=guards).status.watch == "tripped: truncation"
    assert guards_of(life({2: TRUNCATED}, last=4, spec__guards=guards))["truncation"].last_beyond == 2


def test_what_is_not_known_neither_trips_nor_passes() -> None:
    gone = {"solver-rollout/answers/truncated": None}
    scenario = life({1: gone, 2: gone})  # type: ignore[dict-item]
    assert guards_of(scenario)["truncation"].state == "Waiting"
    lost = life({2: TRUNCATED, 3: gone}, spec__guards={"truncation": {"action": "warn"}})  # type: ignore[dict-item]
    assert guards_of(lost)["truncation"].state == "Warned"


def test_the_baseline_outlives_the_figures_that_it_was_read_from() -> None:
    scenario = Scenario(spec__iterations=14, spec__guards=limits("labelAccuracy", 0, "stop"), **ORACLE)
    for step in scenario.plan.steps:
        if step.iteration <= 13:
            odd = {"label_accuracy": 0.6} if step.name == "solver-rollout-13" else {}
            scenario.done(step.name, **{**HEALTHY[step.phase], **odd})
    first = scenario.step("solver-rollout-1")
    assert first.metrics == {}
    verdict = guards_of(scenario)["labelAccuracy"]
    assert (verdict.baseline, verdict.state) == (0.8, "Tripped")


NO_EARLIER = (
    "nothing reads earlier questions (neither spec.rollout.replay is set, nor is a Challenger trained with "
    "spec.challenger.reward.memory)"
)
NO_SECOND = "it compares with the first iteration of the run, which has no other one; raise spec.iterations"
FEW_QUESTIONS = (
    "a rollout has 20 questions, of which even none, in each of 2 iterations, are not below 3.0 % by 2 standard errors"
    "; raise spec.rollout.questions or spec.guards.inBand.limit, or lower spec.guards.standardErrors"
)
FEW_GROUPS = {"spec__solver__grpo__promptsPerStep": 2, "spec__solver__grpo__perDeviceTrainBatchSize": 8}


@pytest.mark.parametrize(
    ("changes", "blind"),
    [
        ({"spec__rollout__oracle": None}, {"labelAccuracy": "there is no spec.rollout.oracle"}),
        (
            {"spec__evaluation": None},
            dict.fromkeys(("heldOut", "flips", "consensusWithoutGain"), "there is no spec.evaluation"),
        ),
        (
            {"spec__evaluation__samples": 1},
            {
                "consensusWithoutGain": "one sampled answer agrees with itself (samples of spec.evaluation or one of "
                "its tasks is 1)"
            },
        ),
        (
            {"spec__rollout__replay": None},
            {"similarity": NO_EARLIER},
        ),
        ({"spec__rollout__replay": None, "spec__challenger__reward__memory": {}}, {}),
        (
            {"spec__rollout__samples": 2},
            {
                "rewardGap": "no share of 1 answer, which are those to a question but one, is in spec.rollout.band "
                "(0.25 to 0.75); raise spec.rollout.samples, or widen the band"
            },
        ),
        ({"spec__rollout__samples": 2, "spec__rollout__band": {"min": 0, "max": 1}}, {}),
        (
            {
                "spec__rollout__replay": None,
                "spec__challenger__reward__memory": {},
                "spec__challenger__grpo__maxSteps": 0,
            },
            {"similarity": NO_EARLIER},
        ),
        (
            {"spec__solver__grpo__maxSteps": 0},
            dict.fromkeys(
                ("rewardGap", "entropy", "zeroSpread", "kl", "length"),
                "the Solver is not trained (spec.solver.grpo.maxSteps is 0)",
            ),
        ),
        (
            {"spec__solver__reward__mode": "confidence"},
            {"rewardGap": "no label pays the Solver (spec.solver.reward.mode is confidence)"},
        ),
        (
            {"spec__rollout__labels": "truth"},
            {"rewardGap": "the labels are not what the Solver voted for (spec.rollout.labels is truth)"},
        ),
        ({"spec__rollout__labels": "committee"}, {}),
        (
            {"spec__rollout__answerSampling": {"temperature": 0.5}},
            {
                "rewardGap": "answers are drawn in another way in the rollout than in training "
                "(spec.rollout.answerSampling)"
            },
        ),
        (
            {
                "spec__guards": {
                    **{name: {"action": "ignore"} for name in LIMITS if name != "rewardGap"},
                    "standardErrors": 9,
                },
                **FEW_GROUPS,
            },
            {
                "rewardGap": "a step has 2 groups, of which even all, in each of 2 iterations, are not beyond 10.0 % "
                "by 9 standard errors; raise spec.solver.grpo.promptsPerStep, or lower spec.guards.rewardGap.limit or "
                "spec.guards.standardErrors"
            },
        ),
        (
            {**FEW_GROUPS},
            {
                "zeroSpread": "an update has 2 groups, of which even all, in each of 2 iterations, are not beyond 90.0 "
                "% by 2 standard errors; raise spec.solver.grpo.promptsPerUpdate, or lower "
                "spec.guards.zeroSpread.limit or spec.guards.standardErrors"
            },
        ),
        ({**FEW_GROUPS, "spec__iterations": 5}, {}),
        ({"spec__iterations": 1}, dict.fromkeys(("labelAccuracy", "similarity", "kl"), NO_SECOND)),
        (
            {"spec__iterations": 3, "spec__forkFrom": {"run": "other", "iteration": 2}},
            dict.fromkeys(("labelAccuracy", "similarity", "kl"), NO_SECOND),
        ),
        ({"spec__rollout__questions": 20}, {"inBand": FEW_QUESTIONS}),
        ({"spec__rollout__questions": 20, "spec__guards": {"inBand": {"limit": 0.2}}}, {}),
        (
            {"spec__rollout__questions": 20, "spec__guards": {"truncation": {"limit": 0.97, "warnAt": 0.97}}},
            {
                "inBand": FEW_QUESTIONS,
                "truncation": "a rollout has 20 questions, of which even all, in each of 2 iterations, are not beyond "
                "97.0 % by 2 standard errors; raise spec.rollout.questions, or lower spec.guards.truncation.warnAt or "
                "spec.guards.standardErrors",
            },
        ),
        (
            {
                "spec__rollout__questions": 20,
                "spec__guards": {"inBand": {"action": "ignore"}, "truncation": {"limit": 0.99, "warnAt": 0.96}},
            },
            {
                "truncation": "a rollout has 20 questions, of which even all, in each of 2 iterations, are not beyond "
                "96.0 % by 2 standard errors; raise spec.rollout.questions, or lower spec.guards.truncation.warnAt or "
                "spec.guards.standardErrors",
            },
        ),
        ({**FEW_GROUPS, "spec__guards": {"standardErrors": 0}}, {}),
        (
            {"spec__solver__grpo__beta": 0},
            {"kl": "the KL divergence is not computed (spec.solver.grpo.beta is 0)"},
        ),
    ],
)
def test_a_guard_never_needs_what_a_run_does_not_have(changes: dict[str, Any], blind: dict[str, str]) -> None:
    scenario = Scenario(**{"spec__guards": {}, **ORACLE, **changes})
    assert blind_guards(scenario.run.spec) == blind
    scenario.reconcile()
    assert {guard.name: guard.message for guard in scenario.status.guards if guard.state == "Blind"} == blind
    assert starts(scenario.reconcile()) != [] or scenario.run.spec.fork_from is not None


PATIENT = "it acts when 2 evaluations in a row are beyond its limit, and the run has 1 evaluation that can be; lower "


@pytest.mark.parametrize(
    ("changes", "never"),
    [
        ({}, []),
        ({"spec__iterations": 1}, ["heldOut", "consensusWithoutGain"]),
        (
            {"spec__iterations": 3, "spec__evaluation__every": 3, "spec__guards": {"heldOut": {"action": "warn"}}},
            ["consensusWithoutGain"],
        ),
    ],
)
def test_a_guard_whose_patience_outlasts_the_run_only_warns(changes: dict[str, Any], never: list[str]) -> None:
    spec = Scenario(**{"spec__guards": {}, **GROUPS, **changes}).run.spec
    found = warning_guards(spec)
    assert list(found) == never
    for name, why in found.items():
        every = "lower spec.evaluation.every, 3, or " if spec.iterations > 1 else ""
        assert why == f"{PATIENT}spec.guards.{name}.patience, or {every}raise spec.iterations"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"limit": 0.97},
            "a rollout has 20 questions, of which even all, in each of 2 iterations, are not beyond 97.0 % by 2 "
            "standard errors; raise spec.rollout.questions, or lower spec.guards.truncation.limit or "
            "spec.guards.standardErrors",
        ),
        (
            {"limit": 1},
            "nothing is beyond spec.guards.truncation.limit, 1; lower it, or set spec.guards.truncation.action to warn",
        ),
        ({"limit": 0.97, "action": "warn"}, None),
        ({"limit": 0.4}, None),
    ],
)
def test_a_guard_that_warns_before_a_limit_beyond_its_reach_only_warns(
    settings: dict[str, Any], why: str | None
) -> None:
    changes = {**GROUPS, "spec__rollout__questions": 20, "spec__publish": {"to": "s3://releases/sums", "what": "each"}}
    spec = Scenario(**changes, spec__guards={"truncation": settings}).run.spec
    assert "truncation" not in blind_guards(spec) and warning_guards(spec).get("truncation") == why
    published = [step.inputs for step in plan(spec).steps if isinstance(step.inputs, PublishInputs)]
    assert published
    for inputs in published:
        [action] = [guard.action for guard in inputs.guards or () if guard.name == "truncation"]
        assert action == ("stop" if why is None and "action" not in settings else "warn")


def test_one_that_is_ignored_is_not_blind_either() -> None:
    ignored = {name: {"action": "ignore"} for name in ("labelAccuracy", "similarity")}
    spec = Scenario(spec__guards=ignored, **GROUPS).run.spec
    assert blind_guards(spec) == {} and not ignored.keys() & {guard.name for guard in watching(spec)}


FLIPPED = {"evaluate/greedy_gain": -0.1}


def replanned(scenario: Scenario) -> Scenario:
    """The next reconcile's plan, with what is recorded."""
    scenario.plan = plan(scenario.run.spec, scenario.status.rollbacks)
    return scenario


def test_a_rollback_goes_on_from_the_last_good_iteration_with_another_seed_and_deletes_nothing() -> None:
    scenario = life({2: FLIPPED}, spec__parallelSteps=2)
    before, outcome = scenario.plan.by_name, scenario.reconcile()
    assert (scenario.status.phase, outcome.actions, outcome.wake_at) == ("Running", (), NOW)
    (rollback,) = scenario.status.rollbacks
    assert (rollback.iteration, rollback.guard) == (2, "flips") and "went from right to wrong" in rollback.message
    assert rollback.abandoned == {name: step.key for name, step in before.items() if step.iteration == 2}

    running = scenario.attempt("challenger-train-3")  # it had begun on what is abandoned
    outcome = replanned(scenario).reconcile()
    assert stops(outcome) == [(running.name, "NotInPlan")]
    assert starts(outcome) == [("challenger-train-2", 1)]
    after = scenario.plan.by_name
    assert all(after[name].key == step.key for name, step in before.items() if step.iteration < 2)
    assert all(after[name].key != step.key for name, step in before.items() if step.iteration >= 2)
    assert after["challenger-train-2"].inputs.seed != before["challenger-train-2"].inputs.seed
    assert after["evaluate-2"].inputs.seed == before["evaluate-2"].inputs.seed  # scores stay paired
    assert guards_of(scenario)["flips"].state == "Passing" and scenario.status.watch == "passing"
    assert len(scenario.status.rollbacks) == 1 and scenario.status.iteration <= 2
    # What is computed anew and is good goes on.
    scenario.attempts = {}
    for name, step in after.items():
        if step.iteration == 2:
            scenario.done(name, **HEALTHY[step.phase])
    assert starts(scenario.reconcile()) == [("challenger-train-3", 1)]


def test_a_run_that_goes_wrong_again_and_again_stops_after_so_many_rollbacks() -> None:
    scenario = life({2: FLIPPED}, spec__guards={"maxRollbacks": 2})
    seeds = set()
    for count in (1, 2):
        assert len(scenario.status.rollbacks) == count and scenario.status.phase == "Running"
        seeds.add(replanned(scenario).plan.by_name["solver-train-2"].inputs.seed)
        for name, step in scenario.plan.by_name.items():
            if step.iteration == 2:
                scenario.done(
                    name, **{**HEALTHY[step.phase], **({"greedy_gain": -0.1} if name == "evaluate-2" else {})}
                )
        scenario.reconcile()
    assert len(seeds) == 2
    assert len(scenario.status.rollbacks) == 2 and scenario.status.phase == "Failed"
    assert "; raise spec.guards.maxRollbacks, 2 rollbacks are done, or change spec.guards.flips" in next(
        c.message for c in scenario.status.conditions if c.type == "Failed"
    )
    scenario.change(spec__guards={"maxRollbacks": 3})
    replanned(scenario).reconcile()
    assert (scenario.status.phase, len(scenario.status.rollbacks)) == ("Running", 3)


def test_it_goes_back_before_what_was_not_measured() -> None:
    every = {**DOCUMENT["spec"]["evaluation"], "every": 2}
    scenario = life({4: FLIPPED}, spec__evaluation=every)
    assert [rollback.iteration for rollback in scenario.status.rollbacks] == [3]
    patient = life({2: TRUNCATED, 3: TRUNCATED}, spec__guards={"truncation": {"patience": 2, "action": "rollback"}})
    assert [rollback.iteration for rollback in patient.status.rollbacks] == [2]
    first = life({1: TRUNCATED}, spec__guards={"truncation": {"action": "rollback"}})
    assert [rollback.iteration for rollback in first.status.rollbacks] == [1]
    assert set(first.status.rollbacks[0].abandoned) == {"challenger-train-1", "solver-rollout-1"}


@pytest.mark.parametrize(
    ("guard", "figures", "from_iteration"),
    [
        # The limit of each is crossed in the last of these iterations, and half of the way to it as the name says.
        ("entropy", [{"solver-train/entropy_last": last} for last in (0.8, 0.46, 0.44, 0.05)], 3),
        ("entropy", [{"solver-train/entropy_last": last} for last in (0.5, 0.5, 0.05)], 3),
        ("labelAccuracy", [{"solver-rollout/label_accuracy": share} for share in (0.95, 0.6, 0.5, 0.01)], 3),
        ("rewardGap", [{"solver-train/reward_first": reward} for reward in (0.9, 0.26, 0.24, 0.0)], 3),
        ("similarity", [{"solver-rollout/similar_share": share} for share in (0.1, 0.2, 0.3, 0.9)], 3),
        ("similarity", [{"solver-rollout/similar_share": share} for share in (0.4, 0.9)], 1),
        ("inBand", [{"solver-rollout/in_band_share": share} for share in (0.5, 0.3, 0.2, 0.0)], 3),
        ("truncation", [{"solver-rollout/answers/truncated": share} for share in (0.01, 0.07, 0.09, 0.5)], 3),
        ("zeroSpread", [{"solver-train/frac_reward_zero_std_last": share} for share in (0.6, 0.74, 0.76, 1.0)], 3),
        ("kl", [{"solver-train/kl_last": kl, "solver-train/reward_last": 0.3} for kl in (0.01, 0.029, 0.031, 0.2)], 3),
        ("length", [{"solver-train/completions/mean_length_last": n} for n in (100, 170, 180, 300)], 3),
        ("flips", [{"evaluate/greedy_gain": gain} for gain in (0.0, -0.019, -0.021, -0.1)], 3),
        ("heldOut", [{"evaluate/mean": score} for score in (0.5, 0.47, 0.46, 0.3)], 3),
    ],
)
def test_a_rollback_goes_back_behind_what_was_half_of_the_way_to_the_limit(
    guard: str, figures: list[dict[str, float]], from_iteration: int
) -> None:
    guards = {guard: {"action": "rollback", "patience": 1}}
    (rollback,) = life(dict(enumerate(figures, 1)), spec__guards=guards).status.rollbacks
    assert (rollback.guard, rollback.iteration) == (guard, from_iteration)


BACK = {"truncation": {"action": "rollback"}}


def test_a_guard_waits_until_what_came_before_is_known_again() -> None:
    """A record that was lost is known by Jobs that are still there, and by steps that are begun again."""
    scenario = Scenario(**{"spec__iterations": 5, "spec__guards": BACK, **ORACLE})
    metrics = {**HEALTHY["solver-rollout"], "answers/truncated": TRUNCATED["solver-rollout/answers/truncated"]}
    scenario.done("solver-rollout-2", **metrics)
    scenario.reconcile()
    assert (guards_of(scenario)["truncation"].state, scenario.status.rollbacks) == ("Waiting", [])
    scenario.done("solver-rollout-1", **HEALTHY["solver-rollout"])
    scenario.reconcile()
    assert [rollback.iteration for rollback in scenario.status.rollbacks] == [2]


def test_the_last_iteration_can_be_rolled_back_too() -> None:
    scenario = life({5: FLIPPED})
    assert scenario.status.phase == "Running" and scenario.status.finished_at is None
    assert starts(replanned(scenario).reconcile()) == [("challenger-train-5", 1)]


def test_a_run_that_is_done_is_not_undone_by_a_change_of_its_guards() -> None:
    scenario = life({5: FLIPPED}, spec__guards={"flips": {"action": "warn"}})
    assert scenario.status.phase == "Succeeded"
    scenario.change(spec__guards={})
    assert (scenario.reconcile().actions, scenario.status.phase, scenario.status.rollbacks) == ((), "Succeeded", [])
    assert guards_of(scenario)["flips"].state == "Tripped"
    scenario.change(spec__iterations=6)
    scenario.plan = plan(scenario.run.spec)
    scenario.reconcile()
    assert (scenario.status.phase, len(scenario.status.rollbacks)) == ("Running", 1), (
        "it goes on, so it goes back first"
    )


def suspended(scenario: Scenario) -> str:
    return next(c.reason for c in scenario.status.conditions if c.type == "Suspended")


@pytest.mark.parametrize("held", [{"spec__review": {"before": [2]}}, {"spec__budget": {"gpuHours": 0.001}}])
def test_a_run_goes_back_before_it_waits_for_anybody(held: dict[str, Any]) -> None:
    scenario = life({1: TRUNCATED}, spec__guards=BACK, **held)
    assert (scenario.status.phase, len(scenario.status.rollbacks)) == ("Running", 1), "and not Suspended for a moment"
    assert starts(replanned(scenario).reconcile()) == [("challenger-train-1", 1)]


def test_what_is_computed_anew_is_reviewed_before_the_next_iteration_begins() -> None:
    scenario = life({1: TRUNCATED}, spec__guards=BACK, spec__review={"before": [2]})
    for name, step in replanned(scenario).plan.by_name.items():
        if step.iteration == 1:
            scenario.done(name, **HEALTHY[step.phase])
    assert (scenario.reconcile().actions, scenario.status.phase, suspended(scenario)) == (
        (),
        "Suspended",
        "AwaitingReview",
    )
    scenario.change(spec__approvedIteration=2)
    assert starts(scenario.reconcile()) == [("challenger-train-2", 1)]


def test_an_approval_holds_for_an_iteration_that_is_computed_anew() -> None:
    scenario = life({2: FLIPPED}, spec__review={"every": True}, spec__approvedIteration=2)
    assert [rollback.iteration for rollback in scenario.status.rollbacks] == [2]
    assert starts(replanned(scenario).reconcile()) == [("challenger-train-2", 1)]
    scenario.change(spec__approvedIteration=1)  # somebody wants to review again
    assert (scenario.reconcile().actions, suspended(scenario)) == ((), "AwaitingReview")


def test_a_budget_counts_what_was_abandoned_and_holds_the_new_steps_until_it_is_raised() -> None:
    scenario = life({1: {}}, spec__guards=BACK, spec__budget={"tokens": 10}).done("challenger-train-2")
    bad = {**HEALTHY["solver-rollout"], "answers/truncated": 0.4}
    used = {"tokens": 12, "result": scenario.result("solver-rollout-2", metrics=bad)}
    scenario.attempt("solver-rollout-2", state="Succeeded", **used)
    scenario.reconcile()
    assert (scenario.status.phase, len(scenario.status.rollbacks)) == ("Running", 1)
    assert replanned(scenario).reconcile().actions == () and scenario.status.usage is not None
    assert (scenario.status.phase, suspended(scenario), scenario.status.usage.tokens) == (
        "Suspended",
        "BudgetExceeded",
        12,
    )
    scenario.change(spec__budget={"tokens": 30})
    assert starts(scenario.reconcile()) == [("challenger-train-2", 1)] and len(scenario.status.rollbacks) == 1


def test_a_run_that_somebody_has_suspended_goes_back_when_it_goes_on() -> None:
    scenario = life({2: FLIPPED}, spec__suspend=True)
    assert (scenario.status.phase, scenario.status.rollbacks) == ("Suspended", [])
    scenario.change(spec__suspend=False)
    scenario.reconcile()
    assert (scenario.status.phase, len(scenario.status.rollbacks)) == ("Running", 1)


def test_promoting_the_best_ends_the_run_with_it() -> None:
    scenario = life({2: {"evaluate/mean": 0.6}, 3: FALL, 4: FALL}, spec__parallelSteps=2)
    assert (scenario.status.phase, scenario.status.watch) == ("Succeeded", "tripped: heldOut")
    assert scenario.status.best is not None and scenario.status.best.iteration == 2
    complete = next(c for c in scenario.status.conditions if c.type == "Complete")
    assert (complete.status, complete.reason) == ("True", "GuardTripped")
    assert "; the best is promoted, or change spec.guards.heldOut" in complete.message
    running = scenario.attempt("challenger-train-5")
    assert stops(scenario.reconcile()) == [(running.name, "RunEnded")]
    scenario.attempts = {}
    scenario.change(spec__guards={"heldOut": {"action": "warn"}})
    assert starts(scenario.reconcile()) == [("challenger-train-5", 1)]


def test_who_promotes_the_best_hears_that_it_is_not_published() -> None:
    labelled = {"data": {"uri": "s3://bucket/labelled.jsonl"}}
    places = {"spec__finetune": labelled, "spec__publish": {"to": "s3://bucket/out"}}
    for asked, left in ((places, "spec.finetune and spec.publish"), ({"spec__finetune": labelled}, "spec.finetune")):
        scenario = life({2: {"evaluate/mean": 0.6}, 3: FALL, 4: FALL}, **asked)
        complete = next(c for c in scenario.status.conditions if c.type == "Complete")
        assert f"; the best is promoted, without {left}, which a run that a guard has ended does" in complete.message


def test_what_abandoned_steps_have_used_is_counted_once() -> None:
    scenario = Scenario(spec__guards={"truncation": {"action": "rollback"}}).done("evaluate-0", "challenger-train-1")
    bad = {**HEALTHY["solver-rollout"], "answers/truncated": 0.4}
    scenario.attempt(
        "solver-rollout-1", state="Succeeded", tokens=7, result=scenario.result("solver-rollout-1", metrics=bad)
    )
    scenario.reconcile()
    assert scenario.status.usage is not None and (scenario.status.usage.tokens, len(scenario.status.rollbacks)) == (
        7,
        1,
    )
    replanned(scenario).reconcile()
    scenario.run = scenario.run.model_copy(update={"status": scenario.status.model_copy(update={"attempts": []})})
    scenario.reconcile()
    assert scenario.status.usage.tokens == 7


def test_promoting_needs_scores() -> None:
    changes = {"spec__guards": {"kl": {"action": "promoteBest"}}}
    assert make_run(**changes).spec.guards is not None
    with pytest.raises(ValidationError, match="promoteBest needs evaluation, which tells the best iteration"):
        make_run(**changes, spec__evaluation=None)
    assert make_run(spec__guards={}, spec__evaluation=None).spec.guards is not None


def test_rollbacks_of_another_run_are_none_of_this_ones() -> None:
    scenario = life({2: FLIPPED})
    assert rollbacks_of(scenario.run.spec, scenario.status.rollbacks) == scenario.status.rollbacks
    assert rollbacks_of(make_run(spec__seed=9, spec__iterations=5).spec, scenario.status.rollbacks) == []


def test_every_action_has_a_test() -> None:
    assert set(get_args(GuardAction)) == {"ignore", "warn", "stop", "rollback", "promoteBest"}


def test_the_page_has_every_guard_with_its_defaults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guards.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("| `"): row for row in rows if len(row) == 5}
    assert list(documented) == [guard.name for guard in GUARDS]
    for guard in GUARDS:
        settings = guard.settings(Guards())
        _, _, trips, patience, action = documented[guard.name]
        assert trips.startswith(f"{'below' if guard.below else 'above'} {settings.limit:g}"), trips
        assert not hasattr(settings, "warn_at") or f"warns at {settings.warns_from:g}" in trips
        assert (patience, action.strip(" |")) == (str(settings.patience), settings.action)
    assert all(f"| `{action}` |" in page for action in get_args(GuardAction))
