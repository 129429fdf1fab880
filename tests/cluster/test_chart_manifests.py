"""kubeconform, with the schemas of the real apiserver, over everything that the chart renders to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from harness import chart
from harness.chart import MATRIX
from harness.cluster import tools
from harness.cluster.controlplane import ControlPlane
from harness.cluster.openapi import LOCATION, wait_for, write_schemas
from harness.gotools import ToolUnavailable

pytestmark = pytest.mark.slow

OTHERS = "PodMonitor,ServiceMonitor,PrometheusRule"
"""Kinds of Prometheus' operator, which this apiserver does not have."""


@pytest.fixture(scope="module")
def kubeconform() -> Path:
    try:
        tools.program(tools.HELM)
        return tools.program(tools.KUBECONFORM)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def schemas(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    wait_for(control_plane.admin, "apis/selfevo.dev/v1alpha1")
    kinds = write_schemas(control_plane.admin, folder)
    assert {("apps", "v1", "Deployment"), ("selfevo.dev", "v1alpha1", "SelfEvolutionRun")} <= set(kinds)
    return folder


def check(kubeconform: Path, schemas: Path, manifests: str) -> dict:
    command = [kubeconform, "-strict", "-summary", "-output", "json", "-skip", OTHERS]
    command += ["-schema-location", f"{schemas}/{LOCATION}", "-"]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", MATRIX)
def test_every_object_fits_the_apiservers_schema(name: str, kubeconform: Path, schemas: Path):
    text = chart.template(MATRIX[name])
    found = check(kubeconform, schemas, text)
    assert found["resources"] == []
    summary = found["summary"]
    skipped = [o for o in chart.manifests(text) if o["kind"] in OTHERS.split(",")]
    assert summary["skipped"] == len(skipped)
    assert summary["valid"] == len(chart.manifests(text)) - len(skipped) > 0


def test_examples_fit_too(kubeconform: Path, schemas: Path):
    examples = sorted((chart.CHART.parents[1] / "examples").glob("*.yaml"))
    found = check(kubeconform, schemas, "\n---\n".join(path.read_text() for path in examples))
    assert found["resources"] == [] and found["summary"]["valid"] == len(examples) > 0


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("Deployment", {"replicaz": 1}, "replicaz"),
        ("Deployment", {"replicas": "one"}, "replicas"),
        ("Role", {}, "rulez"),
    ],
)
def test_what_is_wrong_is_found(kind: str, change: dict, message: str, kubeconform: Path, schemas: Path):
    (found,) = (o for o in chart.manifests(chart.template()) if o["kind"] == kind and "test" not in str(o["metadata"]))
    found["spec" if change else "rulez"] = {**found.get("spec", {}), **change}
    (refused,) = check(kubeconform, schemas, yaml.safe_dump(found))["resources"]
    assert refused["status"] == "statusInvalid" and message in refused["msg"]
