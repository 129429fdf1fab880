"""A rendered Job with GPUs by a claim, before a real API server, its controllers and its scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.cluster import controlplane, kwok
from harness.cluster.controlplane import ControlPlane
from harness.gotools import ToolUnavailable
from harness.podsecurity import in_container
from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_operator.manifests.job import render
from selfevo_operator.manifests.settings import PodSettings

pytestmark = pytest.mark.slow
Object = dict[str, Any]
DRAWN = {"apiVersion": "resource.k8s.io/v1"}
DRIVER = "gpu.example.com"
ROOM = {"kwok-0": 4, "kwok-1": 8}
"""GPUs of the nodes, which no device plugin counts."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("claims")
    try:
        with (
            controlplane.running(folder / "plane", scheduler=True) as plane,
            kwok.running(plane, folder / "kwok", nodes=len(ROOM), seconds=3600),
        ):
            expression = f"device.driver == '{DRIVER}'"
            chosen = {"selectors": [{"cel": {"expression": expression}}]}
            plane.admin.create({**DRAWN, "kind": "DeviceClass", "metadata": {"name": "gpu"}, "spec": chosen})
            for node, gpus in ROOM.items():
                spec = {
                    "driver": DRIVER,
                    "nodeName": node,
                    "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
                    "devices": [{"name": f"gpu-{number}"} for number in range(gpus)],
                }
                plane.admin.create({**DRAWN, "kind": "ResourceSlice", "metadata": {"name": node}, "spec": spec})
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


def rendered(namespace: str, name: str) -> Object:
    run = make_run(
        metadata__namespace=namespace,
        metadata__uid="u",
        spec__storage__uri="s3://models/x",
        spec__solver__grpo__perDeviceTrainBatchSize=2,
        spec__pods={"resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "gpus-8", "gpus": 8}]},
    )
    lists = PodSettings(image="trainer", resource_claim_templates=("gpus-*",))
    job = render(run, plan(run.spec).by_name["solver-train-1"], 1, name, lists)[0]
    del job["metadata"]["ownerReferences"]  # the garbage collector would search for the run
    return job


def pod_when(plane: ControlPlane, namespace: str, job: str, until: Any) -> Object:
    found = plane.admin.wait("jobs", job, namespace, until=lambda found: found["status"].get("active") == 1)
    label = f"batch.kubernetes.io/controller-uid={found['metadata']['uid']}"
    (pod,) = plane.admin.list("pods", namespace, label)
    return plane.admin.wait("pods", pod["metadata"]["name"], namespace, until=until)


def waits(pod: Object | None) -> str:
    """Why the scheduler gives the pod no node."""
    conditions = (pod or {}).get("status", {}).get("conditions", [])
    return next(
        (c.get("message", "") for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), ""
    )


def test_a_claim_brings_the_trainer_to_the_gpus_that_its_processes_are_counted_by(plane: ControlPlane) -> None:
    namespace, admin = plane.make_namespace(), plane.admin
    asked = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu", "count": 8}}]}}
    template = {"kind": "ResourceClaimTemplate", "metadata": {"name": "gpus-8"}, "spec": {"spec": asked}}
    admin.create({**DRAWN, **template}, namespace)
    stored = admin.create(rendered(namespace, "first"), fieldValidation="Strict")
    spec = stored["spec"]["template"]["spec"]
    # A server without the feature drops both without a word.
    assert spec["resourceClaims"] == [{"name": "gpus", "resourceClaimTemplateName": "gpus-8"}]
    assert spec["containers"][0]["resources"] == {"claims": [{"name": "gpus"}]}

    pod = pod_when(plane, namespace, "first", lambda pod: pod["spec"].get("nodeName"))
    assert pod["spec"]["nodeName"] == "kwok-1"
    (status,) = pod["status"]["resourceClaimStatuses"]
    claim = admin.get(f"{DRAWN['apiVersion']}/resourceclaims", status["resourceClaimName"], namespace)
    given = claim["status"]["allocation"]["devices"]["results"]
    assert {(one["driver"], one["pool"]) for one in given} == {(DRIVER, "kwok-1")}
    (trainer,) = pod["spec"]["containers"]
    assert in_container(trainer["env"])["SELFEVO_PROCESSES"] == str(len(given)) == "8"

    admin.create(rendered(namespace, "second"), fieldValidation="Strict")
    second = pod_when(plane, namespace, "second", waits)
    assert "cannot allocate all claims" in waits(second)
