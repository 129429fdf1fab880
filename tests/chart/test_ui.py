"""The pages of `selfevo ui` by the chart: what they may, who reaches them, and that they are off by default."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from harness import chart
from harness.chart import HelmError
from harness.gotools import GoTool
from harness.podsecurity import violations
from selfevo.main import app

PROXY = {
    "name": "oauth2-proxy",
    "image": "quay.io/oauth2-proxy/oauth2-proxy@sha256:" + "b" * 64,
    "args": ["--http-address=0.0.0.0:4180", "--upstream=http://127.0.0.1:8321", "--pass-host-header=false"],
}
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}


def pages(helm: GoTool, **values: Any) -> dict[str, Any]:
    """The objects of the pages by kind."""
    scope = values.pop("scope", {"namespaces": ["research", "production"]})
    objects = chart.manifests(chart.template({"scope": scope, "ui": {"enabled": True, **values}}, tool=helm))
    label = "app.kubernetes.io/component"
    return {o["kind"]: o for o in objects if (o["metadata"].get("labels") or {}).get(label) == "ui"}


@pytest.mark.slow
def test_they_are_off_by_default_and_lint_when_on(any_helm: GoTool) -> None:
    assert "selfevo-ui" not in chart.template({}, tool=any_helm)
    on = chart.given({"ui": {"enabled": True, "proxy": {"containers": [PROXY]}}})
    assert "0 chart(s) failed" in chart.helm("lint", "--strict", chart.CHART, *chart.FOR, *on, tool=any_helm)


def test_they_may_read_runs_of_one_namespace_and_nothing_else(helm: GoTool) -> None:
    found = pages(helm)
    assert set(found) == {"ServiceAccount", "Role", "RoleBinding", "Deployment"}
    assert found["Role"]["rules"] == [
        {"apiGroups": ["selfevo.dev"], "resources": ["selfevolutionruns"], "verbs": ["get", "list"]}
    ]
    assert found["Role"]["metadata"]["namespace"] == found["RoleBinding"]["metadata"]["namespace"] == "research"
    assert found["RoleBinding"]["subjects"][0]["name"] == found["ServiceAccount"]["metadata"]["name"] == "selfevo-ui"
    assert pages(helm, namespace="production")["Role"]["metadata"]["namespace"] == "production"
    assert pages(helm, namespace="any", scope={"allNamespaces": True})["Role"]["metadata"]["namespace"] == "any"
    with pytest.raises(HelmError, match="namespace is other, and the operator does not serve it"):
        pages(helm, namespace="other")


def test_their_pod_is_restricted_and_gets_what_the_values_say(helm: GoTool) -> None:
    pod = pages(helm, credentialsSecret="reader", env=[{"name": "A", "value": "b"}])["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert violations(pod["spec"]) == [] and pod["spec"]["serviceAccountName"] == "selfevo-ui"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert (
        container["envFrom"] == [{"secretRef": {"name": "reader"}}] and {"name": "A", "value": "b"} in container["env"]
    )
    assert container["args"] == ["ui", "--namespace=research", "--port=8321"]
    invoked = CliRunner().invoke(app, [*container["args"], "--context", "none", "--kubeconfig", "/nonexistent"])
    assert "no such option" not in invoked.output.lower() and invoked.exit_code != 2


def test_a_proxy_stands_before_them_in_their_pod(helm: GoTool) -> None:
    found = pages(helm, proxy={"containers": [{**PROXY, "securityContext": SECURITY}]})
    pod = found["Deployment"]["spec"]["template"]
    assert [each["name"] for each in pod["spec"]["containers"]] == ["ui", "oauth2-proxy"]
    assert violations(pod["spec"]) == []
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == 4180
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    operators = {"app.kubernetes.io/component": "operator"}
    assert not operators.items() <= pod["metadata"]["labels"].items()
