"""kube-score finds nothing in the chart but what kube-score-waivers.yaml gives a reason for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import chart
from harness.chart import MATRIX
from harness.gotools import GoTool

pytestmark = pytest.mark.slow

WAIVERS = yaml.safe_load((Path(__file__).parent / "kube-score-waivers.yaml").read_text())
ALSO = ("container-seccomp-profile", "container-ports-check")
"""Checks that kube-score leaves out unless asked."""
FINE = 10
ENTRIES = ("defaults", "whole cluster", "by digest, from a registry", "everything on", "a strict platform")


def findings(kube_score: Path, manifests: str) -> Iterator[tuple[str, str, str]]:
    """Check, object and what is wrong."""
    flags = [flag for check in ALSO for flag in ("--enable-optional-test", check)]
    command = [kube_score, "score", "--output-format", "json", *flags, "-"]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, timeout=120)
    for scored in json.loads(done.stdout) or []:
        name = f"{scored['type_meta']['kind']}/{scored['object_meta']['name']}"
        for check in scored["checks"]:
            if not check["skipped"] and check["grade"] < FINE:
                summary = "; ".join(comment["summary"] for comment in check["comments"] or [])
                yield check["check"]["id"], name, summary


def without_crd(values: dict[str, Any], helm: GoTool) -> str:
    """kube-score knows nothing of CRDs."""
    return chart.template({**values, "crds": {"enabled": False}}, tool=helm)


def waived(check: str, name: str) -> bool:
    return any(waiver["check"] == check and name in waiver["objects"] for waiver in WAIVERS)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_finding_has_a_waiver(name: str, kube_score: Path, helm: GoTool):
    found = list(findings(kube_score, without_crd(MATRIX[name], helm)))
    assert [(check, name, summary) for check, name, summary in found if not waived(check, name)] == []


def test_every_waiver_is_used_and_gives_a_reason(kube_score: Path, helm: GoTool):
    found = {(check, o) for name in ENTRIES for check, o, _ in findings(kube_score, without_crd(MATRIX[name], helm))}
    for waiver in WAIVERS:
        assert len(waiver["reason"]) > 40
        for name in waiver["objects"]:
            assert (waiver["check"], name) in found, "this finding is gone; remove its waiver"


def test_a_careless_pod_is_found(kube_score: Path, helm: GoTool):
    careless = {"podSecurityContext": {"seccompProfile": None}, "securityContext": {"seccompProfile": None}}
    careless["securityContext"]["readOnlyRootFilesystem"] = False
    found = {check for check, _, _ in findings(kube_score, without_crd({"deployment": careless}, helm))}
    assert {"container-security-context-readonlyrootfilesystem", "container-seccomp-profile"} <= found
