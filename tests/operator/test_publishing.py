"""spec.publish in the core and in Jobs: which Solver, when, by whose token, and its messages."""

from __future__ import annotations

from typing import Any

import pytest
from test_finetuning import LABELLED, last_outcome, replanned
from test_jobs import pod_of
from test_reconcile import ALL, Scenario, starts

from harness.runs import make_run
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_contract.pods import pods_of
from selfevo_core.invalid_spec import parse_run

HUB: dict[str, Any] = {"to": "hf://acme/sums", "tokenSecret": {"name": "hub"}}


def scored(*means: float, **changes: Any) -> Scenario:
    """A run of two iterations whose base and Solvers have these scores."""
    scenario = Scenario(**{"spec__publish": HUB, **changes})
    for name in ALL:
        phase, _, number = name.rpartition("-")
        scenario.done(name, **({"mean": means[int(number)]} if phase == "evaluate" else {}))
    return scenario


def test_the_best_solver_is_published_when_all_are_scored() -> None:
    scenario = scored(0.5, 0.75, 0.625)
    assert (last_outcome(scenario).actions, scenario.status.phase) == ((), "Running")
    assert scenario.status.publish is not None and scenario.status.publish.model_dump(exclude_none=True) == {"best": 1}
    assert starts(replanned(scenario).reconcile()) == [("publish-1", 1)]
    scenario.done("publish-1", put=5.0)
    assert scenario.status.phase == "Succeeded"
    assert scenario.status.publish.model_dump() == {"best": 1, "iteration": 1, "uri": "hf://acme/sums"}
    assert scenario.status.best is not None and scenario.status.best.iteration == 1


def test_scores_that_are_known_again_before_the_steps_that_led_to_them_choose_the_best() -> None:
    scenario = Scenario(spec__publish=HUB, spec__parallelSteps=8)  # its record was lost
    for name in ALL:
        phase, _, number = name.rpartition("-")
        if phase in ("evaluate", "solver-train"):
            scenario.done(name, **({"mean": (0.5, 0.75, 0.625)[int(number)]} if phase == "evaluate" else {}))
            assert not [step for step, _ in starts(last_outcome(scenario)) if step.startswith("publish")]
    assert scenario.status.publish is not None and scenario.status.publish.best == 1
    begun = {step for step, _ in starts(replanned(scenario).reconcile())}
    assert "publish-1" in begun and "publish-2" not in begun


def test_where_the_base_is_the_best_nothing_is_published() -> None:
    scenario = scored(0.75, 0.5, 0.625)
    assert starts(replanned(scenario).reconcile()) == [] and scenario.status.phase == "Succeeded"
    assert scenario.status.publish is not None and scenario.status.publish.model_dump(exclude_none=True) == {"best": 0}


def test_each_solver_is_published_with_its_iteration_and_nothing_waits_for_it() -> None:
    scenario = Scenario(spec__publish={**HUB, "what": "each"}, spec__parallelSteps=2)
    scenario.done(*ALL[: ALL.index("evaluate-1") + 1], mean=0.5)
    begun = [name for name, _ in starts(last_outcome(scenario))]
    assert set(begun) == {"publish-1", "challenger-train-2"}
    scenario.done("publish-1")
    assert scenario.status.publish is not None
    assert scenario.status.publish.model_dump() == {
        "best": None, "iteration": 1, "uri": "hf://acme/sums@iteration-1"
    }  # fmt: skip


def test_it_is_asked_for_changed_and_removed_when_the_run_has_ended() -> None:
    scenario = scored(0.5, 0.625, 0.75, spec__publish=None)
    assert scenario.status.phase == "Succeeded" and scenario.status.publish is None
    scenario.change(spec__publish=HUB).reconcile()
    assert scenario.status.phase == "Running" and starts(replanned(scenario).reconcile()) == [("publish-2", 1)]
    scenario.done("publish-2")
    scenario.change(spec__publish={**HUB, "to": "s3://releases/sums"})
    assert starts(replanned(scenario).reconcile()) == [("publish-2", 1)]
    scenario.change(spec__publish=None)
    replanned(scenario).reconcile()
    assert scenario.status.phase == "Succeeded" and scenario.status.publish is None


def test_the_choice_is_one_for_fine_tuning_and_publication() -> None:
    scenario = scored(0.5, 0.75, 0.625, spec__finetune=LABELLED, spec__parallelSteps=3)
    assert starts(replanned(scenario).reconcile()) == [("publish-1", 1), ("finetune-1", 1), ("finetune-0", 1)]


def test_no_other_step_has_another_key_and_an_iteration_that_is_computed_anew_another_place() -> None:
    from selfevo_contract.status import Rollback

    plain = {step.name: step.key for step in plan(make_run().spec).steps}
    for publish in (HUB, {**HUB, "what": "each", "private": False}):
        steps = plan(make_run(spec__publish=publish).spec).steps
        assert {step.name: step.key for step in steps if not step.type.publishes} == plain
    each = make_run(spec__publish={**HUB, "what": "each"}).spec
    went = plan(each, [Rollback(iteration=2, guard="kl")])
    revisions = [step.inputs.revision for step in went.steps if step.type.publishes]  # type: ignore[union-attr]
    assert revisions == ["iteration-1", "iteration-2-again-1"]
    secret = make_run(spec__publish={**HUB, "tokenSecret": {"name": "new"}}).spec
    watched = make_run(spec__publish=HUB, spec__guards={"kl": {}}).spec
    assert (
        plan(secret).steps[-1].key
        == plan(watched).steps[-1].key
        == plan(make_run(spec__publish=HUB).spec).steps[-1].key
    )


def test_a_solver_that_was_never_trained_is_not_published() -> None:
    assert not [step for step in plan(make_run(spec__publish=HUB, spec__solver__grpo__maxSteps=0).spec).steps if
                step.type.publishes]  # fmt: skip


# --- Jobs -------------------------------------------------------------------------------------------------------------


def test_the_hubs_token_is_for_the_publication_alone() -> None:
    def named(step: str, **changes: Any) -> dict[str, Any]:
        pod = pod_of(step, **{"spec__publish": HUB, **changes})
        return {variable["name"]: variable for variable in pod["containers"][0]["env"]}

    token = named("publish-2")["SELFEVO_PUBLISH_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "SELFEVO_PUBLISH_TOKEN" not in named("solver-train-2")
    assert "SELFEVO_PUBLISH_TOKEN" not in named("publish-2", spec__publish={"to": "s3://releases/sums"})


def test_its_pod_asks_for_no_device() -> None:
    limits = {"nvidia.com/gpu": 8, "memory": "64Gi"}
    shared = {"resources": {"limits": limits, "requests": limits}, "nodeSelector": {"pool": "a"}}
    spec = make_run(spec__publish=HUB, spec__pods=shared).spec
    pods = pods_of(spec, "publish")
    assert set(pods.resources.limits) == set(pods.resources.requests) == {"memory"}
    assert pods.node_selector == {"pool": "a"}
    container = pod_of("publish-2", spec__publish=HUB, spec__pods=shared)["containers"][0]
    assert set(container["resources"]["limits"]) == {"memory"}
    own = {**HUB, "pods": {"resources": {"limits": {"memory": "8Gi"}}}}
    assert (
        str(pods_of(make_run(spec__publish=own, spec__pods=shared).spec, "publish").resources.limits["memory"]) == "8Gi"
    )


def test_a_run_in_a_cluster_is_refused_at_once_without_a_token_or_with_a_path() -> None:
    def document(**publish: Any) -> dict[str, Any]:
        run = make_run(spec__publish={"to": "hf://acme/sums", **publish}, spec__storage__uri="s3://models/runs")
        return run.model_dump(mode="json", by_alias=True, exclude_none=True)

    with pytest.raises(InputError) as refused:
        parse_run(document())
    assert str(refused.value) == (
        "spec.publish.to is 'hf://acme/sums', and no token may write there; name a Secret that holds one in "
        "spec.publish.tokenSecret"
    )
    secret = {"secretKeyRef": {"name": "hub", "key": "token"}}
    parse_run(document(tokenSecret={"name": "hub"}))
    parse_run(document(pods={"env": [{"name": "HF_TOKEN", "valueFrom": secret}]}))
    parse_run(document(to="s3://releases/sums"))
    with pytest.raises(InputError, match=r"spec\.publish\.to is 'file:///out', and a pod's disk is gone with the pod"):
        pod_of("publish-2", spec__publish={"to": "file:///out"}, spec__storage__uri="s3://models/runs")
