"""What the chart renders to, over the values that people set."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from harness import chart
from harness.chart import CHART, MATRIX, HelmError
from harness.gotools import GoTool
from harness.podsecurity import violations
from selfevo_operator.runtime.settings import read_settings

pytestmark = pytest.mark.slow

DEPLOY = CHART.parents[1] / "deploy" / "rbac.yaml"
(RULES,) = (m["rules"] for m in yaml.load_all(DEPLOY.read_text(), yaml.CSafeLoader) if m["kind"] == "ClusterRole")
"""What tests/cluster/test_operator_rbac.py holds equal to an audit log of everything that the operator does."""


@pytest.fixture(scope="module")
def rendered(helm: GoTool) -> dict[str, list[dict[str, Any]]]:
    """The objects of every entry of the matrix."""
    return {name: chart.manifests(chart.template(values, tool=helm)) for name, values in MATRIX.items()}


def one(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = (o for o in chart.of_kind(objects, kind) if name in o["metadata"]["name"])
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one(objects, "Deployment")["spec"]["template"]["spec"], one(objects, "Pod")["spec"]]


@pytest.mark.parametrize("name", MATRIX)
def test_helm_lints_and_renders(name: str, any_helm: GoTool):
    assert "0 chart(s) failed" in chart.helm(
        "lint", "--strict", CHART, *chart.FOR, *chart.given(MATRIX[name]), tool=any_helm
    )
    objects = chart.manifests(chart.template(MATRIX[name], tool=any_helm))
    assert {"Deployment", "Pod"} <= {found["kind"] for found in objects}


def test_both_helms_render_the_same(helm: GoTool, any_helm: GoTool):
    values = MATRIX["everything on"]
    assert chart.manifests(chart.template(values, tool=helm)) == chart.manifests(chart.template(values, tool=any_helm))


@pytest.mark.parametrize("name", MATRIX)
def test_no_object_is_there_twice_and_each_is_labelled(name: str, rendered: dict[str, list[dict[str, Any]]]):
    objects = rendered[name]
    places = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(places) == len(set(places))
    for found in objects:
        if found["kind"] != "CustomResourceDefinition":
            assert found["metadata"]["labels"]["app.kubernetes.io/part-of"] == "selfevo", found["metadata"]["name"]


@pytest.mark.parametrize("name", MATRIX)
def test_every_pod_is_restricted_and_writes_nowhere(name: str, rendered: dict[str, list[dict[str, Any]]]):
    for pod in pods(rendered[name]):
        assert violations(pod) == []
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("name", MATRIX)
def test_nobody_gets_a_wildcard_or_other_peoples_secrets(name: str, rendered: dict[str, list[dict[str, Any]]]):
    for role in chart.of_kind(rendered[name], "Role") + chart.of_kind(rendered[name], "ClusterRole"):
        for rule in role["rules"]:
            everything = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in everything and "nonResourceURLs" not in rule, role["metadata"]["name"]
            # Helm's test alone may get the Secrets that its run names, by name, while it runs.
            if "secrets" in rule["resources"]:
                assert role["metadata"]["annotations"]["helm.sh/hook"] == "test"
                assert rule["resourceNames"] == ["registry", "s3-credentials"] and rule["verbs"] == ["get"]


def test_the_operator_gets_what_the_values_say(rendered: dict[str, list[dict[str, Any]]]):
    def settings(name: str) -> Any:
        return read_settings(container(rendered[name])["args"], {})

    parsed = settings("defaults")
    assert parsed.namespaces == ("selfevo-system",) and parsed.port == 8080 and parsed.host == "0.0.0.0"
    assert parsed.pods.image == "selfevo/trainer:0.1.0" and parsed.pods.image_pull_policy is None
    assert settings("whole cluster").namespaces == ()
    assert settings("several namespaces").namespaces == ("research", "production")
    assert settings("by digest, from a registry").pods.image == f"a/trainer@{chart.EXAMPLE_DIGEST}"
    assert settings("by digest, from a registry").pods.image_pull_policy == "Always"
    assert (parsed.pods.run_as_user, parsed.pods.fs_group, parsed.pods.gpu_resources) == (10001, 10001, ("*/gpu",))
    strict = settings("a strict platform").pods
    assert (strict.run_as_user, strict.run_as_group, strict.fs_group) == (1000680000, None, None)
    assert strict.gpu_resources == ("*/gpu", "nvidia.com/mig-*")
    assert strict.defaults.wire()["nodeSelector"] == {"pool": "gpu"}
    assert strict.defaults.image_pull_secrets == ["registry"] and strict.defaults.tolerations[0].key == "nvidia.com/gpu"
    everything = settings("everything on")
    assert (everything.workers, everything.resync_seconds, everything.verbose) == (4, 60, True)


def test_the_operator_gets_the_rights_that_it_uses_where_its_runs_are(rendered: dict[str, list[dict[str, Any]]]):
    roles = [r for r in chart.of_kind(rendered["several namespaces"], "Role") if "test" not in r["metadata"]["name"]]
    assert [(r["metadata"]["namespace"], r["rules"]) for r in roles] == [
        ("research", RULES),
        ("production", RULES),
    ]
    objects = rendered["whole cluster"]
    (operators,) = (r for r in chart.of_kind(objects, "ClusterRole") if "-runs-" not in r["metadata"]["name"])
    assert operators["rules"] == RULES
    (binding,) = chart.of_kind(objects, "ClusterRoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "selfevo", "namespace": "selfevo-system"}]
    assert chart.of_kind(rendered["nothing optional"], "ClusterRole") == []


def test_logs_are_read_for_progress_unless_the_values_say_no(helm: GoTool, rendered: dict[str, list[dict[str, Any]]]):
    objects = chart.manifests(chart.template({"progress": {"enabled": False}}, tool=helm))
    (role,) = (r for r in chart.of_kind(objects, "Role") if "test" not in r["metadata"]["name"])
    assert role["rules"] == [rule for rule in RULES if rule["resources"] != ["pods/log"]]
    assert read_settings(container(objects)["args"], {}).progress_seconds == 0
    assert read_settings(container(rendered["defaults"])["args"], {}).progress_seconds == 30
    with pytest.raises(HelmError, match="seconds"):
        chart.template({"progress": {"seconds": 5}}, tool=helm)


def test_workloads_are_read_where_the_values_say_so(helm: GoTool, rendered: dict[str, list[dict[str, Any]]]):
    objects = chart.manifests(chart.template({"kueue": {"readWorkloads": True}}, tool=helm))
    (role,) = (r for r in chart.of_kind(objects, "Role") if "test" not in r["metadata"]["name"])
    assert role["rules"] == [
        *RULES,
        {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["get", "list"]},
    ]
    assert read_settings(container(objects)["args"], {}).read_workloads
    assert not read_settings(container(rendered["defaults"])["args"], {}).read_workloads


def test_the_operator_gives_the_nodes_network_where_the_values_say_so(
    helm: GoTool, rendered: dict[str, list[dict[str, Any]]]
):
    objects = chart.manifests(chart.template({"policy": {"allowed": {"hostNetwork": True}}}, tool=helm))
    assert read_settings(container(objects)["args"], {}).pods.host_network
    assert not read_settings(container(rendered["defaults"])["args"], {}).pods.host_network


def test_claims_of_devices_are_let_through_where_the_values_list_them_and_kubernetes_has_them(
    helm: GoTool, rendered: dict[str, list[dict[str, Any]]]
):
    allowed = {"resourceClaimTemplates": ["gpus-8", "team-a-*"], "resourceClaims": ["fabric"]}
    objects = chart.manifests(chart.template({"policy": {"allowed": allowed}}, tool=helm))
    pods = read_settings(container(objects)["args"], {}).pods
    assert (pods.resource_claim_templates, pods.resource_claims) == (("gpus-8", "team-a-*"), ("fabric",))
    pods = read_settings(container(rendered["defaults"])["args"], {}).pods
    assert (pods.resource_claim_templates, pods.resource_claims) == ((), ())
    old = ["--kube-version", "1.33.5"]
    for name, entries in allowed.items():
        with pytest.raises(HelmError, match=f"policy.allowed.{name} is not empty, and Kubernetes v1.33.5 drops claims"):
            chart.template({"policy": {"allowed": {name: entries}}}, flags=old, tool=helm)
    assert chart.template({}, flags=old, tool=helm)


def test_images_go_by_digest_where_one_is_given(rendered: dict[str, list[dict[str, Any]]]):
    objects = rendered["by digest, from a registry"]
    image = f"registry.example.com:5000/a/operator@{chart.EXAMPLE_DIGEST}"
    assert [pod["containers"][0]["image"] for pod in pods(objects)] == [image, image]
    assert [pod["imagePullSecrets"] for pod in pods(objects)] == [[{"name": "registry"}]] * 2


def test_one_operator_that_is_probed_and_replaced_only_when_gone(rendered: dict[str, list[dict[str, Any]]]):
    spec = one(rendered["defaults"], "Deployment")["spec"]
    assert spec["replicas"] == 1 and spec["strategy"] == {"type": "Recreate"}
    probes = [container(rendered["defaults"])[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")]
    assert probes == [{"path": "/healthz", "port": "http"}, {"path": "/readyz", "port": "http"}]
    assert not chart.of_kind(rendered["defaults"], "PodDisruptionBudget")
    assert one(rendered["everything on"], "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(("name", "keep"), [("defaults", True), ("CRD that goes with the release", False)])
def test_the_crd_is_the_contracts_but_for_its_keeping(name: str, keep: bool, rendered: dict[str, Any]):
    crd = one(rendered[name], "CustomResourceDefinition")
    annotations = crd["metadata"].pop("annotations", {})
    assert annotations == ({"helm.sh/resource-policy": "keep"} if keep else {})
    assert crd == yaml.load((CHART / "files" / "selfevolutionruns.yaml").read_text(), yaml.CSafeLoader)
    assert not chart.of_kind(rendered["nothing optional"], "CustomResourceDefinition")


def test_the_policy_checks_every_part_of_a_spec_that_has_pods(rendered: dict[str, list[dict[str, Any]]]):
    crd = one(rendered["defaults"], "CustomResourceDefinition")
    (version,) = crd["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    places = ["spec.pods"] + [f"spec.{part}.pods" for part, of in spec.items() if "pods" in of.get("properties", {})]
    policies = chart.of_kind(rendered["defaults"], "ValidatingAdmissionPolicy")
    named = json.dumps(policies)
    fields = ["serviceAccountName", "imagePullSecrets", "image", "nodeSelector", "tolerations", "env"]
    fields += ["schedulerName", "labels", "annotations", "nodeAffinity", "volumes"]
    fields += ["priorityClassName", "runtimeClassName", "resources.limits", "resources.requests"]
    assert len(places) == 8
    for place in places:
        for field in fields:
            assert f"'{place}.{field}'" in named
    engines = [part for part, of in spec.items() if "engine" in of.get("properties", {})]
    assert len(engines) == 5
    for part in engines:
        for field in ("url", "tokenSecret.name"):
            assert f"'spec.{part}.engine.endpoint.{field}'" in named


def test_what_is_optional_is_off_by_default(rendered: dict[str, list[dict[str, Any]]]):
    optional = {"NetworkPolicy", "PodMonitor", "ServiceMonitor", "PrometheusRule", "Service", "PodDisruptionBudget"}
    assert {o["kind"] for o in rendered["defaults"]} & optional == set()
    assert {o["kind"] for o in rendered["everything on"]} & optional == optional


def test_network_policies_leave_the_metadata_address_out(rendered: dict[str, list[dict[str, Any]]]):
    trainers = one(rendered["everything on"], "NetworkPolicy", "trainers")
    blocks = [to["ipBlock"] for to in trainers["spec"]["egress"][-1]["to"]]
    assert blocks == [
        {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]},
        {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]},
    ]
    opened = {rule["ports"][0]["port"]: rule["to"] for rule in trainers["spec"]["egress"][3:-1]}
    assert opened == {
        80: [{"ipBlock": {"cidr": "169.254.170.23/32"}}, {"ipBlock": {"cidr": "fd00:ec2::23/128"}}],
        987: [{"ipBlock": {"cidr": "169.254.169.252/32"}}],
    }
    assert trainers["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/managed-by"] == "selfevo-operator"


def test_who_traces_knows_where_and_reaches_it(rendered: dict[str, list[dict[str, Any]]]):
    variables = {variable["name"]: variable for variable in container(rendered["everything on"])["env"]}
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == "http://otel-collector.observability:4318"
    secret = variables["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "otel", "key": "headers"}
    assert read_settings(
        ["--all-namespaces", "--image=x"], {name: variable.get("value", "") for name, variable in variables.items()}
    ).pods.collector == ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.observability:4318")
    to = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}]
    way = {"ports": [{"protocol": "TCP", "port": 4318}], "to": to}
    policies = chart.of_kind(rendered["everything on"], "NetworkPolicy")
    assert len(policies) == 2 and all(way in policy["spec"]["egress"] for policy in policies)
    assert not [v for v in container(rendered["defaults"])["env"] if v["name"].startswith("OTEL_")]


def test_the_pages_are_asked_at_their_proxys_port_and_ask_what_they_show(helm: GoTool):
    policy = {"enabled": True, "from": {"kubernetes.io/metadata.name": "ingress"}}
    values: dict[str, Any] = {
        "scope": {"namespaces": ["research"]},
        "ui": {"enabled": True, "proxy": {"containers": [{"name": "proxy", "image": "proxy"}]}},
        "networkPolicy": {
            "operator": {"apiServerCidrs": ["10.0.0.1/32"]},
            "trainer": {"egressCidrs": ["10.1.0.0/16"], "identities": []},
            "ui": policy,
        },
    }
    spec = one(chart.manifests(chart.template(values, tool=helm)), "NetworkPolicy", "ui")["spec"]
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "ui"
    assert spec["ingress"] == [
        {
            "ports": [{"protocol": "TCP", "port": 4180}],
            "from": [{"namespaceSelector": {"matchLabels": policy["from"]}}],
        }
    ]
    dns, api_server, store = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert [port["port"] for port in api_server["ports"]] == [443, 6443]
    assert api_server["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert store["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    # Without a proxy nobody asks the pod: `kubectl port-forward` comes from the node.
    alone = {**values, "ui": {"enabled": True}}
    spec = one(chart.manifests(chart.template(alone, tool=helm)), "NetworkPolicy", "ui")["spec"]
    assert "ingress" not in spec and spec["policyTypes"] == ["Ingress", "Egress"]
    nobody = {**values, "ui": {"enabled": False}}
    assert chart.of_kind(chart.manifests(chart.template(nobody, tool=helm)), "NetworkPolicy") == []


def test_monitors_find_the_operator(rendered: dict[str, list[dict[str, Any]]]):
    objects = rendered["everything on"]
    pod_labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    pod_monitor, service = one(objects, "PodMonitor"), one(objects, "Service")
    assert pod_monitor["spec"]["selector"]["matchLabels"].items() <= pod_labels.items()
    assert service["spec"]["selector"].items() <= pod_labels.items()
    selected = one(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= service["metadata"]["labels"].items()
    assert "http" in {port["name"] for port in container(objects)["ports"]}
    assert pod_monitor["metadata"]["labels"]["release"] == "prometheus"


WRONG = {
    "an unknown value": ({"polcy": {"enabled": True}}, "polcy"),
    "a misspelt value": ({"scope": {"namespace": ["a"]}}, "namespace"),
    "a namespace that is none": ({"scope": {"namespaces": ["A b"]}}, "/scope/namespaces/0"),
    "a number as text": ({"operator": {"workers": "many"}}, "/operator/workers"),
    "a digest without its kind": ({"image": {"digest": "abc"}}, "/image/digest"),
    "an image's tag in its repository": ({"image": {"repository": "a/b:1"}}, "/image/repository"),
    "a star that would match other hosts": ({"policy": {"allowed": {"images": ["good.example*"]}}}, "images/0"),
    "both scopes": ({"scope": {"allNamespaces": True, "namespaces": ["a"]}}, "give one of them"),
    "a test in a namespace that is not served": ({"tests": {"namespace": "b"}}, "the operator does not serve it"),
    "a test without a model": ({"tests": {"storage": {"uri": "s3://a"}}}, "name a small model"),
    "an identity that is none": ({"networkPolicy": {"trainer": {"identities": ["everything"]}}}, "identities/0"),
    "a collector without a scheme": ({"tracing": {"endpoint": "otel:4318"}}, "/tracing/endpoint"),
    "nobody who answers DNS": ({"networkPolicy": {"dns": {"to": []}}}, "/networkPolicy/dns/to"),
    "the user root": ({"trainer": {"runAsUser": 0}}, "/trainer/runAsUser"),
    "policies for unknown namespaces": (
        {"scope": {"allNamespaces": True}, "networkPolicy": {"trainer": {"enabled": True}}},
        "name the namespaces",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused(name: str, any_helm: GoTool):
    values, message = WRONG[name]
    with pytest.raises(HelmError) as refused:
        chart.template(values, tool=any_helm)
    assert message in str(refused.value)


def test_who_answers_dns_is_a_value_of_both_policies(any_helm: GoTool):
    """OpenShift's pods have other labels and another port; NodeLocal DNSCache is no pod in a network of pods."""
    both: dict[str, Any] = {"operator": {"enabled": True}, "trainer": {"enabled": True, "namespaces": ["a"]}}
    openshift = {"matchLabels": {"dns.operator.openshift.io/daemonset-dns": "default"}}
    other = [{"namespaceSelector": {}, "podSelector": openshift}, {"ipBlock": {"cidr": "169.254.20.10/32"}}]
    usual = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    for given, to, ports in (({}, usual, [53]), ({"dns": {"to": other, "ports": [53, 5353]}}, other, [53, 5353])):
        values = {"scope": {"allNamespaces": True}, "networkPolicy": {**both, **given}}
        policies = chart.of_kind(chart.manifests(chart.template(values, tool=any_helm)), "NetworkPolicy")
        assert len(policies) == 2
        for policy in policies:
            dns = policy["spec"]["egress"][0]
            assert dns["to"] == to
            assert dns["ports"] == [{"protocol": p, "port": port} for port in ports for p in ("UDP", "TCP")]


def test_the_notes_say_the_next_three_commands(helm: GoTool):
    command = ["install", chart.RELEASE, CHART, "--namespace", chart.NAMESPACE, "--dry-run=client"]
    notes = chart.helm(*command, *chart.given({"scope": {"namespaces": ["research"]}}), tool=helm).split("NOTES:")[1]
    assert "helm test selfevo --namespace selfevo-system" in notes
    assert "kubectl explain selfevolutionrun.spec" in notes
    assert "kubectl apply --namespace research -f run.yaml && kubectl get ser --namespace research --watch" in notes
    unguarded = chart.helm(*command, *chart.given({"policy": {"enabled": False}}), tool=helm).split("NOTES:")[1]
    assert "WARNING: policy.enabled is false" in unguarded and "WARNING" not in notes
