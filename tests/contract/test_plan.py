"""What a step's key depends on, and what it must not depend on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.runs import DIGEST, RUBRIC, TRIAD, make_run
from selfevo_contract.phases import BaseModelRef, StepModelRef, input_key, inputs_adapter
from selfevo_contract.plan import Plan, plan
from selfevo_contract.process import PhaseConfig, phase_config
from selfevo_contract.spec.finetune import Finetune
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.status import Fork

LABELLED = {"data": {"uri": "s3://bucket/labelled.jsonl", "digest": DIGEST}}


def planned(**changes: Any) -> Plan:
    return plan(make_run(**changes).spec)


def keys(**changes: Any) -> dict[str, str]:
    return {step.name: step.key for step in planned(**changes).steps}


def moved(**changes: Any) -> set[str]:
    """Names of the steps whose keys differ from those of the unchanged run."""
    before, after = keys(), keys(**changes)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


ALL = set(keys())
HELD_OUT = {"name": "held-out", "data": {"uri": "file:///data/heldout.jsonl", "digest": DIGEST}}


def test_the_plan_is_a_dag_in_order() -> None:
    assert [(step.name, step.parents) for step in planned().steps] == [
        ("evaluate-0", ()),
        ("challenger-train-1", ()),
        ("solver-rollout-1", ("challenger-train-1",)),
        ("solver-train-1", ("solver-rollout-1",)),
        ("evaluate-1", ("evaluate-0", "solver-train-1")),
        ("challenger-train-2", ("challenger-train-1", "solver-train-1")),
        ("solver-rollout-2", ("solver-train-1", "challenger-train-2")),
        ("solver-train-2", ("solver-train-1", "solver-rollout-2")),
        ("evaluate-2", ("evaluate-0", "solver-train-2")),
    ]


SCHEDULING: list[dict[str, Any]] = [
    {"metadata__name": "other"},
    {"metadata__namespace": "other"},
    {"spec__suspend": True},
    {"spec__queue": "team-a"},
    {"spec__parallelSteps": 7},
    {"spec__backoffLimit": 0},
    {"spec__pods": {"image": "x", "resources": {"limits": {"nvidia.com/gpu": 8}}, "priorityClassName": "high"}},
    {"spec__solver__pods": {"resources": {"limits": {"nvidia.com/gpu": 8}}}},
    {"spec__evaluation__pods": {"nodeSelector": {"a": "b"}}},
    {"spec__challenger__engine": {"kind": "transformers", "batchSize": 7}},
    {"spec__rollout__engine": {"kind": "vllm"}},
    {"spec__evaluation__engine": {"kind": "server", "gpus": 1}},
    {"spec__challenger__checkpointEvery": 5},
    {"spec__rollout__chunkQuestions": 5},
    {"spec__rollout__shards": 4},
    {"spec__evaluation__shards": 4, "spec__evaluation__chunkQuestions": 5},
    {"spec__evaluation__tasks": [{**HELD_OUT, "shards": 3}]},
    {"spec__evaluation__metric": "greedy"},
    {"spec__evaluation__tasks": [{**HELD_OUT, "group": "math"}]},
    {"spec__evaluation__tasks": [{**HELD_OUT, "samples": 2, "prompt": {"user": "{question}"}}]},
    {"spec__budget": {"wallTime": "1h"}},
    {"spec__review": {"every": True}},
    {"spec__approvedIteration": 1},
    {"spec__guards": {"inBand": {"limit": 0.2}}},
    {"spec__storage": {"uri": "s3://elsewhere/x", "endpoint": "http://minio:9000", "requireConditionalPut": False}},
    {"spec__model__uri": "s3://bucket/base"},  # a digest names the weights
    {"spec__evaluation__tasks": [{"name": "held-out", "data": {"uri": "s3://bucket/x.jsonl", "digest": DIGEST}}]},
]


@pytest.mark.parametrize("changes", SCHEDULING, ids=[next(iter(changes)) for changes in SCHEDULING])
def test_where_and_how_fast_things_run_moves_no_key(changes: dict[str, Any]) -> None:
    assert moved(**changes) == set()


@given(st.lists(st.sampled_from(SCHEDULING), max_size=5))
@settings(max_examples=30, deadline=None)
def test_nor_does_any_mixture_of_it(changes: list[dict[str, Any]]) -> None:
    assert moved(**{name: value for one in changes for name, value in one.items()}) == set()


def test_where_the_policys_vllm_runs_moves_no_key() -> None:
    by_vllm = {"spec__solver__grpo__generation": "vllm"}
    beside = {"vllmMode": "server", "vllmTensorParallelSize": 2, "sharding": "fsdp"}
    served = {f"spec__solver__grpo__{name}": value for name, value in beside.items()}
    assert keys(**by_vllm) == keys(**by_vllm, **served) != keys()


AFTER_SOLVER_1 = {
    *("solver-train-1", "evaluate-1"),
    *("challenger-train-2", "solver-rollout-2", "solver-train-2", "evaluate-2"),
}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"spec__seed": 1}, ALL),
        ({"spec__model__digest": "e" * 64}, ALL),
        ({"spec__model__dtype": "bfloat16"}, ALL),
        ({"spec__grading": {"timeoutSeconds": 1.0}}, ALL),
        ({"spec__solver__grpo__learningRate": 1e-4}, AFTER_SOLVER_1),
        ({"spec__solver__grpo__maxSteps": 3}, AFTER_SOLVER_1),
        ({"spec__solver__reward": {"mode": "code"}}, AFTER_SOLVER_1),
        # The Solver's sampling is also how it answers the Challenger, the rollout and the evaluation.
        ({"spec__solver__grpo__temperature": 0.7}, ALL),
        ({"spec__challenger__grpo__learningRate": 1e-4}, ALL - {"evaluate-0"}),
        ({"spec__challenger__reward": {"mode": "code"}}, ALL - {"evaluate-0"}),
        ({"spec__exclude": [{"uri": "s3://bucket/x", "digest": DIGEST}]}, ALL - {"evaluate-0"}),
        ({"spec__evaluation__tasks": [{"name": "b", "data": {"uri": "s3://bucket/b"}}]}, ALL),
        ({"spec__rollout__contamination": {"words": 8}}, ALL - {"evaluate-0"}),
        ({"spec__rollout__samples": 5}, ALL - {"evaluate-0", "challenger-train-1"}),
        ({"spec__rollout__labels": "random"}, ALL - {"evaluate-0", "challenger-train-1"}),
        ({"spec__rollout__labels": "committee"}, ALL - {"evaluate-0", "challenger-train-1"}),
        ({"spec__solver__reward": {"mode": "confidence"}}, AFTER_SOLVER_1),
        ({"spec__evaluation__samples": 3}, {"evaluate-0", "evaluate-1", "evaluate-2"}),
        ({"spec__evaluation__sampling": {"temperature": 0.5}}, {"evaluate-0", "evaluate-1", "evaluate-2"}),
        *(
            ({"spec__evaluation__tasks": [{**HELD_OUT, **own}]}, {"evaluate-0", "evaluate-1", "evaluate-2"})
            for own in (
                {"samples": 3},
                {"sampling": {"temperature": 0.5}},
                {"prompt": {"user": "Solve: {question}"}},
                {"answers": "number"},
            )
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_change_moves_what_depends_on_it_and_nothing_else(changes: dict[str, Any], wanted: set[str]) -> None:
    assert moved(**changes) == wanted


@given(st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_raising_iterations_keeps_the_earlier_keys(few: int, more: int) -> None:
    first, second = keys(spec__iterations=few), keys(spec__iterations=few + more)
    assert first.items() <= second.items()
    assert len(second) == 1 + 4 * (few + more)


def test_gains_are_over_the_bases_evaluation_and_a_base_has_none() -> None:
    by_name = planned(spec__iterations=3, spec__evaluation__every=2).by_name
    base = by_name["evaluate-0"]
    assert base.inputs.base is None and base.parents == ()
    assert {by_name[name].inputs.base for name in ("evaluate-2", "evaluate-3")} == {base.key}
    [between] = planned(spec__iterations=3, spec__evaluation__every=2).unscheduled[:1]
    assert (between.name, between.inputs.base) == ("evaluate-1", base.key)
    # An untrained Solver is the base: what is done for it is done once.
    frozen = planned(spec__solver__grpo__maxSteps=0)
    assert {step.key for step in frozen.steps if step.phase == "evaluate"} == {base.key}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spec__publish": {"to": "s3://there/sums", "what": "each"}, "spec__finetune": LABELLED},
        {"spec__publish": {"to": "s3://there/sums"}, **TRIAD},
        {"spec__solver__grpo__maxSteps": 0},
    ],
)
def test_an_evaluation_that_is_kept_stands_where_it_stood(changes: dict[str, Any]) -> None:
    every, fewer = (planned(spec__iterations=4, spec__evaluation__every=each, **changes) for each in (1, 3))
    kept = fewer.keeping({"evaluate-1", "evaluate-2", "evaluate-0", "solver-train-1"})
    assert [step.name for step in kept.steps] == [step.name for step in every.steps]
    assert not kept.unscheduled and fewer.keeping(set()) is fewer
    assert [step.name for step in fewer.keeping({"evaluate-2"}).unscheduled] == ["evaluate-1"]


def test_evaluating_less_often_keeps_the_keys_of_what_is_left() -> None:
    every, second = keys(spec__iterations=5), keys(spec__iterations=5, spec__evaluation__every=2)
    assert second.items() <= every.items()
    assert every.keys() - second.keys() == {"evaluate-1", "evaluate-3"}


def test_without_a_digest_the_uri_names_the_input() -> None:
    assert keys(spec__model={"uri": "s3://bucket/a"}) != keys(spec__model={"uri": "s3://bucket/b"})
    assert keys(spec__model={"uri": "s3://bucket/a"}) != keys(spec__model={"uri": "s3://bucket/a", "digest": DIGEST})


def test_keys_are_different_from_one_another() -> None:
    found = keys(spec__iterations=10)
    assert len(set(found.values())) == len(found)


def test_an_untrained_role_has_no_step_and_keeps_the_base() -> None:
    control = planned(spec__challenger__grpo__maxSteps=0)
    assert not [step for step in control.steps if step.phase == "challenger-train"]
    assert all(isinstance(ref, BaseModelRef) for ref in control.challengers)
    frozen = planned(spec__solver__grpo__maxSteps=0)
    assert all(isinstance(ref, BaseModelRef) for ref in frozen.solvers)
    assert all(isinstance(ref, StepModelRef) for ref in frozen.challengers[1:])


def test_optional_parts_have_their_place() -> None:
    names = [step.name for step in planned(**TRIAD, spec__finetune=LABELLED).steps]
    assert names[:2] == ["verifier-train-0", "evaluate-0"]
    assert names[2:7] == ["challenger-train-1", "solver-rollout-1", "verifier-train-1", "solver-train-1", "evaluate-1"]
    assert names[-4:] == ["finetune-2", "finetune-evaluate-2", "finetune-0", "finetune-evaluate-0"]


def test_a_finetune_in_one_process_has_nobody_to_share_the_weights_out_to() -> None:
    served = {"generation": "vllm", "vllmMode": "server", "vllmTensorParallelSize": 2}
    solver = Grpo.model_validate({"sharding": "fsdp", "cpuOffload": True, "gradientCheckpointing": True, **served})
    for kind in ("sft", "grpo"):
        trained = Finetune.model_validate({**LABELLED, "kind": kind}).training(solver)
        assert trained.gradient_checkpointing and not trained.sharded and not trained.offloaded
        assert trained.cpu_offload is None
        assert trained.policy_server is None and trained.vllm_tensor_parallel_size is None
        assert trained.generation == ("vllm" if kind == "grpo" else "transformers")


def test_what_is_finetuned_is_the_best_solver_and_its_control_the_base() -> None:
    spec = make_run(spec__iterations=3, spec__finetune=LABELLED).spec
    before, after = plan(spec), plan(spec, best=2)
    assert {step.name for step in after.steps if step.type.closes} == {
        "finetune-2", "finetune-evaluate-2", "finetune-0", "finetune-evaluate-0"
    }  # fmt: skip
    tuned, control = after.by_name["finetune-2"], after.by_name["finetune-0"]
    assert (tuned.inputs.model, control.inputs.model) == (after.solvers[2], after.solvers[0])
    # Nothing else tells them apart, and both wait until the best is known.
    assert tuned.inputs.model_copy(update={"model": control.inputs.model}) == control.inputs
    scores = {f"evaluate-{number}" for number in range(4)}
    assert scores <= set(tuned.parents) and scores <= set(control.parents)

    # What comes before keeps its keys, whatever is fine-tuned, and so does the control.
    def shared(steps: Plan) -> dict[str, str]:
        return {step.name: step.key for step in steps.steps if not step.type.closes or step.iteration == 0}

    assert shared(before) == shared(after)
    assert keys(spec__iterations=3).items() <= shared(after).items()
    scored = after.by_name["finetune-evaluate-2"]
    assert scored.inputs.base == after.by_name["evaluate-0"].key
    assert scored.parents == ("evaluate-0", "finetune-2")


def test_without_a_control_or_a_trained_solver_one_model_is_finetuned() -> None:
    alone = planned(spec__finetune={**LABELLED, "control": False})
    assert [step.name for step in alone.steps if step.phase == "finetune"] == ["finetune-2"]
    frozen = planned(spec__solver__grpo__maxSteps=0, spec__finetune=LABELLED)
    assert [step.name for step in frozen.steps if step.phase == "finetune"] == ["finetune-0"]
    unscored = planned(spec__evaluation=None, spec__finetune=LABELLED)
    assert unscored.steps[-1].name == "finetune-0"
    assert "solver-train-2" in unscored.steps[-1].parents


def test_finetuning_by_grpo_has_the_solvers_settings_and_supervised_training_its_optimizer_only() -> None:
    solver = make_run(spec__solver__grpo__beta=0.5, spec__solver__grpo__weightDecay=0.25).spec.solver.grpo
    own = {**LABELLED, "maxSteps": 7, "batch": 16, "perDeviceTrainBatchSize": 4}
    by = Finetune.model_validate({**own, "kind": "grpo"}).training(solver)
    assert (by.updates, by.prompts_per_step, by.per_device_train_batch_size) == (7, 16, 4)
    assert (by.beta, by.weight_decay, by.num_generations, by.learning_rate) == (
        0.5, 0.25, solver.num_generations, solver.learning_rate
    )  # fmt: skip
    supervised = Finetune.model_validate(own).training(solver)
    assert (supervised.updates, supervised.beta, supervised.weight_decay, supervised.rate) == (7, 0, 0.25, 1e-5)
    adapter = make_run(spec__solver__grpo__lora={"rank": 4}).spec.solver.grpo
    assert Finetune.model_validate(own).training(adapter).rate == pytest.approx(1e-4)
    # Of a run that only differs in how its Solver is rewarded, supervised training is the same.
    other = make_run(spec__solver__grpo__beta=0.1, spec__solver__grpo__weightDecay=0.25).spec.solver.grpo
    assert Finetune.model_validate(own).training(other) == supervised


def test_a_judge_scores_what_comes_after_it() -> None:
    steps = planned(**TRIAD).by_name
    key = {name: step.key for name, step in steps.items()}
    asked = {name: step.inputs.judge.key for name, step in steps.items() if getattr(step.inputs, "judge", None)}
    assert asked == {
        "challenger-train-1": key["verifier-train-0"],
        "solver-rollout-1": key["verifier-train-0"],
        "verifier-train-1": key["verifier-train-0"],
        "solver-train-1": key["verifier-train-1"],
        "challenger-train-2": key["verifier-train-1"],
        "solver-rollout-2": key["verifier-train-1"],
        "verifier-train-2": key["verifier-train-1"],
        "solver-train-2": key["verifier-train-2"],
    }
    for name, judge in asked.items():  # it waits for its judge
        assert judge in {steps[parent].key for parent in steps[name].parents}
    trained = steps["verifier-train-2"].inputs
    assert trained.rollout == key["solver-rollout-2"] and trained.first_judge.key == key["verifier-train-0"]
    assert trained.solver.key == key["solver-train-1"] and (trained.challenger, trained.earlier_solver) == (None, None)


def test_a_judge_with_criteria_is_not_trained_and_keys_what_it_scores() -> None:
    def keyed(**over: Any) -> dict[str, str]:
        verifier = RUBRIC["spec__verifier"]
        return keys(**{**RUBRIC, "spec__verifier": {**verifier, "rubric": {**verifier["rubric"], **over}}})

    steps = planned(**RUBRIC)
    assert not [step.name for step in steps.steps if step.phase == "verifier-train"]
    asks = {step.name for step in steps.steps if getattr(step.inputs, "rubric", None) is not None}
    assert asks == {f"{phase}-{t}" for phase in ("challenger-train", "solver-rollout", "solver-train") for t in (1, 2)}
    before = keyed()
    for over in (
        {"criteria": [{"uri": "file:///data/criteria.yaml", "digest": "b" * 64}]},
        {"model": "weak"},
        {"system": "Judge."},
        {"votes": 2},
    ):
        after = keyed(**over)
        assert {name for name, key in after.items() if key != before[name]} >= asks
        assert after["evaluate-0"] == before["evaluate-0"]
    compared = keyed(pairwise={})
    assert {name for name, key in compared.items() if key != before[name]} >= {"solver-train-1", "challenger-train-2"}
    assert all(compared[name] == before[name] for name in ("challenger-train-1", "solver-rollout-1"))
    assert keyed(pairwise={"comparisons": 2})["solver-train-1"] != compared["solver-train-1"]
    endpoint = {"url": "https://other", "maxTokens": 9, "maxConcurrency": 1}
    assert keyed(endpoint=endpoint, maxUnscored=0.5) == before


def test_anchors_of_a_judge_with_criteria_are_asked_in_the_rollout_and_by_no_challenger() -> None:
    data = {"uri": "file:///data/anchors.jsonl"}
    verifier = {**RUBRIC["spec__verifier"], "anchors": {"data": data}}
    steps = planned(**{**RUBRIC, "spec__verifier": verifier}).by_name
    rollout = steps["solver-rollout-1"].inputs
    assert rollout.anchors.uri == data["uri"] == rollout.exclude[-1].uri and rollout.curriculum_share == 0.5
    assert planned(**RUBRIC).by_name["solver-rollout-1"].inputs.anchors is None
    # They are compared where the Solver's answers are.
    comparing = {**verifier, "rubric": {**verifier["rubric"], "pairwise": {}}}
    steps = planned(**{**RUBRIC, "spec__verifier": comparing}).by_name
    asked = {name: steps[name].inputs.rubric.pairwise for name in ("challenger-train-1", "solver-rollout-1")}
    assert asked["challenger-train-1"] is None and asked["solver-rollout-1"] is not None


def test_makers_of_pairs_that_ask_other_models_get_them() -> None:
    verifier = {**TRIAD["spec__verifier"], "pairs": ["role", "temporal"]}
    steps = planned(**{**TRIAD, "spec__verifier": verifier}).by_name
    first, second = steps["verifier-train-1"].inputs, steps["verifier-train-2"].inputs
    assert first.challenger.key == steps["challenger-train-1"].key and first.earlier_solver is None
    assert isinstance(second.earlier_solver, BaseModelRef) and second.solver.key == steps["solver-train-1"].key


def test_a_memory_is_of_the_rollout_before_and_moves_nothing_in_the_first_iteration() -> None:
    steps = planned(spec__challenger__reward={"memory": {"weight": 2.0}}).by_name
    first, second = steps["challenger-train-1"], steps["challenger-train-2"]
    assert first.inputs.earlier is None and second.inputs.earlier == steps["solver-rollout-1"].key
    assert "solver-rollout-1" in second.parents
    without = planned().by_name
    assert "memory" not in without["challenger-train-2"].inputs.wire()["reward"]
    assert "earlier" not in without["challenger-train-2"].inputs.wire()
    # The Challenger that is never trained remembers nothing.
    still = planned(spec__challenger={"reward": {"memory": {}}, "grpo": {"maxSteps": 0}}).by_name
    assert "challenger-train-2" not in still


def test_a_solver_that_is_paid_for_confidence_gets_which_answers_vote() -> None:
    checks = {"spec__rollout__wellFormed": [{"kind": "number"}]}
    labels = planned(**checks).by_name["solver-train-1"]
    assert labels.inputs.well_formed is None and "wellFormed" not in labels.inputs.wire()
    confident = planned(**checks, spec__solver__reward={"mode": "confidence"}).by_name["solver-train-1"]
    assert [check.kind for check in confident.inputs.well_formed] == ["number"] and confident.key != labels.key
    assert planned(spec__solver__reward={"mode": "confidence"}).by_name["solver-train-1"].inputs.well_formed is None


def test_a_committee_is_the_solver_and_the_one_before() -> None:
    plain, steps = (
        planned(spec__iterations=3).by_name,
        planned(spec__iterations=3, spec__rollout__labels="committee").by_name,
    )
    assert "member" not in plain["solver-rollout-2"].inputs.wire()
    first, second, third = (steps[f"solver-rollout-{n}"].inputs for n in (1, 2, 3))
    assert first.member == first.solver and isinstance(first.member, BaseModelRef)
    assert isinstance(second.member, BaseModelRef) and second.solver.key == steps["solver-train-1"].key
    assert third.member.key == steps["solver-train-1"].key and third.solver.key == steps["solver-train-2"].key
    assert {"solver-train-1", "solver-train-2"} <= set(steps["solver-rollout-3"].parents)
    # What a fork begins with is all that it knows: its first committee is one Solver that votes twice.
    begun = Fork(run="other", iteration=2, solver="5" * 64, challenger="c" * 64, curriculum="d" * 64)
    changes = {"spec__iterations": 4, "spec__forkFrom": {"run": "other", "iteration": 2}}
    forked = plan(make_run(**changes, spec__rollout__labels="committee").spec, (), begun).by_name
    assert forked["solver-rollout-3"].inputs.member == forked["solver-rollout-3"].inputs.solver
    assert forked["solver-rollout-4"].inputs.member.key == "5" * 64


def test_no_phase_asks_the_anchors_questions() -> None:
    steps = planned(**TRIAD, spec__exclude=[{"uri": "s3://bucket/seen.jsonl"}]).by_name
    for name in ("challenger-train-1", "solver-rollout-2"):
        assert [data.uri for data in steps[name].inputs.exclude] == [
            "s3://bucket/seen.jsonl",
            "file:///data/anchors.jsonl",
        ]


def test_how_often_a_judges_training_is_saved_moves_no_key() -> None:
    often = {**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], "checkpointEvery": 1}}
    assert keys(**often) == keys(**TRIAD)


def test_a_frozen_judge_and_a_fast_one_begin_alike() -> None:
    arms = [{}, {"maxSteps": 0}, {"maxSteps": 15, "learningRate": 1e-6, "pairs": ["swap"], "replay": 0.75}]
    plans = [planned(**{**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], **arm}}) for arm in arms]
    assert len({arm.by_name["verifier-train-0"].key for arm in plans}) == 1
    assert len({arm.by_name["challenger-train-1"].key for arm in plans}) == 1
    frozen = plans[1].by_name
    assert [name for name in frozen if name.startswith("verifier-train")] == ["verifier-train-0"]
    assert frozen["solver-train-2"].inputs.judge.key == frozen["verifier-train-0"].key
    assert len({arm.by_name["solver-train-1"].key for arm in plans}) == 3


def test_how_pairs_answers_are_written_moves_no_key() -> None:
    engine = {"engine": {"kind": "transformers", "batchSize": 1}, "pods": {"image": "other"}}
    other = planned(**{**TRIAD, "spec__verifier": {**TRIAD["spec__verifier"], **engine}})
    assert {s.key for s in other.steps} == {s.key for s in planned(**TRIAD).steps}


def test_what_a_process_gets_survives_the_wire_for_every_step() -> None:
    for changes in (
        {},
        {"spec__rollout__oracle": {"kind": "arithmetic"}},
        TRIAD,
        {"spec__finetune": LABELLED},
    ):
        run = make_run(**changes)
        for step in plan(run.spec).steps:
            config = phase_config(run.spec, "demo", "default", step, "attempt")
            for read in (
                PhaseConfig.model_validate(config.wire()),
                PhaseConfig.model_validate_json(config.model_dump_json(by_alias=True)),
            ):
                assert read == config
                assert input_key(read.inputs) == step.key
            assert inputs_adapter.validate_python(step.inputs.wire()) == step.inputs
