"""Devices by claims (Dynamic Resource Allocation): what pods ask for, what is refused, how many train."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from harness.podsecurity import in_container, violations
from harness.runs import make_run
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan
from selfevo_operator.manifests import allowlist
from selfevo_operator.manifests.job import render
from selfevo_operator.manifests.settings import PodSettings

TEMPLATES, CLAIMS = ("gpus-*", "nic"), ("team-a-fabric",)
SETTINGS = PodSettings(image="trainer", resource_claim_templates=TEMPLATES, resource_claims=CLAIMS)
SOLVER, EVALUATE = "solver-train-1", "evaluate-0"
GPUS = {"name": "gpus", "resourceClaimTemplateName": "gpus-8"}
NIC = {"name": "nic", "resourceClaimName": "team-a-fabric", "request": "rdma"}
Claim = dict[str, Any]


def job_of(*claims: Claim, step: str = SOLVER, settings: PodSettings = SETTINGS, **more: Any) -> dict[str, Any]:
    changes = {
        "metadata__uid": "u",
        "spec__storage__uri": "s3://models/selfevo",
        "spec__solver__grpo__perDeviceTrainBatchSize": 2,
        "spec__pods": {"resourceClaims": list(claims)},
    }
    run = make_run(**{**changes, **more})
    return render(run, plan(run.spec).by_name[step], 1, "job", settings)[0]


def pod_of(*claims: Claim, **more: Any) -> dict[str, Any]:
    return job_of(*claims, **more)["spec"]["template"]["spec"]


def solver(**pods: Any) -> dict[str, Any]:
    return {"spec__solver__pods": pods}


def limit(gpus: int) -> dict[str, Any]:
    return solver(resources={"limits": {"nvidia.com/gpu": gpus}})


def test_the_pod_names_claims_and_the_trainer_takes_them() -> None:
    pod = pod_of({**GPUS, "gpus": 8}, NIC, **solver(resources={"requests": {"memory": "1Gi"}}))
    assert pod["resourceClaims"] == [
        {"name": "gpus", "resourceClaimTemplateName": "gpus-8"},
        {"name": "nic", "resourceClaimName": "team-a-fabric"},
    ]
    assert pod["containers"][0]["resources"] == {
        "requests": {"memory": "1Gi"},
        "claims": [{"name": "gpus"}, {"name": "nic", "request": "rdma"}],
    }
    assert violations(pod) == []
    assert "resourceClaims" not in pod_of() and "resources" not in pod_of()["containers"][0]


def test_only_the_trainer_has_them_and_not_what_serves_a_model() -> None:
    served = {"spec__challenger__engine": {"kind": "server", "gpus": 1}, "step": "challenger-train-1"}
    pod = pod_of({**GPUS, "gpus": 1}, **served)
    assert pod["containers"][0]["resources"] == {"claims": [{"name": "gpus"}]}
    fetch, server = pod["initContainers"]
    assert "resources" not in fetch and server["resources"] == {"limits": {"nvidia.com/gpu": 1}}


@pytest.mark.parametrize(
    ("claims", "more", "processes"),
    [
        ([{**GPUS, "gpus": 8}], {}, "8"),
        ([{**GPUS, "gpus": 4}, NIC], {}, "4"),
        ([{**GPUS, "gpus": 4}, {**NIC, "gpus": 4}], {}, "8"),
        ([{**GPUS, "gpus": 1}], {}, None),
        ([{**GPUS, "gpus": 0}], {}, None),
        ([NIC], limit(4), "4"),
        ([{**GPUS, "gpus": 0}], limit(4), "4"),
        ([{**GPUS, "gpus": 4}], limit(0), "4"),
        ([{**GPUS, "gpus": 8}], solver(resourceClaims=[{**GPUS, "gpus": 2}]), "2"),
        ([GPUS], solver(resourceClaims=[{**GPUS, "gpus": 2}]), "2"),
        ([GPUS], {"step": EVALUATE}, None),
        ([{**GPUS, "gpus": 8}], {"step": EVALUATE}, None),
    ],
)
def test_a_training_has_a_process_for_each_gpu_of_its_claims(
    claims: list[Claim], more: dict[str, Any], processes: str | None
) -> None:
    (trainer,) = pod_of(*claims, **more)["containers"]
    assert in_container(trainer["env"]).get("SELFEVO_PROCESSES") == processes


def test_each_of_several_nodes_has_the_gpus_of_a_claim() -> None:
    job = job_of({**GPUS, "gpus": 4}, **solver(nodes=2))
    env = in_container(job["spec"]["template"]["spec"]["containers"][0]["env"])
    assert (env["SELFEVO_PROCESSES"], env["SELFEVO_NODES"], job["spec"]["completions"]) == ("4", "2", 2)


@pytest.mark.parametrize(
    ("claims", "more", "message"),
    [
        (
            [NIC, GPUS],
            {},
            "spec.solver.pods.resourceClaims does not say how many GPUs a pod has by them, and a training has a "
            "process for each; add gpus to one of them (0 where they bring none)",
        ),
        (
            [{**GPUS, "gpus": 4}],
            limit(2),
            "spec.solver.pods has 2 GPUs by resources.limits and 4 by resourceClaims; set one of them to 0 (what a "
            "part of the spec does not set, it inherits from spec.pods)",
        ),
        (
            [{**GPUS, "gpus": 64}, {**NIC, "gpus": 1}],
            {},
            "spec.solver.pods.resourceClaims has 65 GPUs; a pod trains on at most 64",
        ),
        (
            [{**GPUS, "resourceClaimTemplateName": "gpu"}],
            {},
            "spec.solver.pods.resourceClaims has gpus with resourceClaimTemplateName 'gpu', which this operator gives "
            "no pod; remove it, or ask for an entry in policy.allowed.resourceClaimTemplates (the operator's "
            "--allow-resource-claim-templates)",
        ),
        (
            [{"name": "x", "resourceClaimName": "gpus-8"}],
            {"step": EVALUATE},
            "spec.evaluation.pods.resourceClaims has x with resourceClaimName 'gpus-8', which this operator gives no "
            "pod; remove it, or ask for an entry in policy.allowed.resourceClaims (the operator's "
            "--allow-resource-claims)",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_sentence(claims: list[Claim], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        job_of(*claims, **more)
    assert str(refused.value) == message


@pytest.mark.parametrize("claim", [{**GPUS, "gpus": 1}, {**NIC, "gpus": 1}], ids=["template", "claim"])
def test_nobody_has_a_claim_where_the_platform_lists_none(claim: Claim) -> None:
    with pytest.raises(InputError, match="which this operator gives no pod"):
        job_of(claim, settings=PodSettings(image="trainer"))


def test_the_list_of_what_a_job_may_hold_knows_which_claims_are_let_through() -> None:
    job = job_of({**GPUS, "gpus": 1}, NIC)
    allowlist.check_job(job, claim_templates=TEMPLATES, claims=CLAIMS)
    with pytest.raises(allowlist.NotAllowed, match=r"resourceClaims\[0\]\.resourceClaimTemplateName is 'gpus-8'"):
        allowlist.check_job(job, claims=("*",))
    with pytest.raises(allowlist.NotAllowed, match=r"resourceClaims\[1\]\.resourceClaimName is 'team-a-fabric'"):
        allowlist.check_job(job, claim_templates=("*",))
    for claim in (
        {"name": "a"},
        {"resourceClaimTemplateName": "gpus-8"},
        {"name": "a", "resourceClaimName": "team-a-fabric", "resourceClaimTemplateName": "gpus-8"},
        {"name": "a", "resourceClaimTemplateName": "gpus-8", "adminAccess": True},
        {"name": "a", "resourceClaimTemplateName": 8},
    ):
        broken = copy.deepcopy(job)
        broken["spec"]["template"]["spec"]["resourceClaims"] = [claim]
        with pytest.raises(allowlist.NotAllowed, match="resourceClaims"):
            allowlist.check_job(broken, claim_templates=TEMPLATES, claims=CLAIMS)


def test_a_job_whose_claims_are_others_has_another_place_in_its_queue() -> None:
    def place(claim: Claim) -> str:
        return job_of(claim)["metadata"]["annotations"]["selfevo.dev/template"].rpartition("-")[2]

    eight = {**GPUS, "gpus": 8}
    assert place({**eight, "resourceClaimTemplateName": "gpus-h200"}) != place(eight) == place(dict(eight))
