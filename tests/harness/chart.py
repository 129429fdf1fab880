"""charts/selfevo by the real Helm: rendered, linted, installed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import tools
from harness.gotools import GoTool

CHART = Path(__file__).parents[2] / "charts" / "selfevo"
RELEASE, NAMESPACE = "selfevo", "selfevo-system"
FOR = ("--kube-version", tools.KUBERNETES_VERSION)
"""Without a cluster, a Helm that was built as a module does not know for which Kubernetes it renders."""


class HelmError(Exception):
    """Helm refused; the message is its own."""


def helm(*arguments: str | Path, tool: GoTool = tools.HELM, kubeconfig: Path | None = None) -> str:
    """What Helm printed.

    Raises:
        HelmError: it failed.
        ToolUnavailable: this machine cannot have it.
    """
    with tempfile.TemporaryDirectory(prefix="helm-") as home:  # no plugins, caches and repositories of this machine
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        environment |= {
            "HELM_CACHE_HOME": home,
            "HELM_CONFIG_HOME": home,
            "HELM_DATA_HOME": home,
            "KUBECONFIG": str(kubeconfig or Path(home) / "none"),
        }
        command = [tools.program(tool), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    if done.returncode != 0:
        raise HelmError(f"{done.stdout[-2000:]}{done.stderr[-6000:]}")
    return done.stdout


def given(values: Mapping[str, Any]) -> list[str]:
    """Values as arguments of Helm: ``given({"scope": {"allNamespaces": True}})``."""
    return [argument for name, value in values.items() for argument in ("--set-json", f"{name}={json.dumps(value)}")]


def template(
    values: Mapping[str, Any] | None = None,
    *,
    namespace: str = NAMESPACE,
    flags: Sequence[str] = (),
    tool: GoTool = tools.HELM,
) -> str:
    """The manifests as Helm would send them, as text."""
    return helm("template", RELEASE, CHART, "--namespace", namespace, *FOR, *given(values or {}), *flags, tool=tool)


def manifests(text: str) -> list[dict[str, Any]]:
    """The objects of a rendered chart."""
    return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found]


def of_kind(objects: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [found for found in objects if found["kind"] == kind]


EXAMPLE_DIGEST = "sha256:" + "a" * 64

MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "whole cluster": {"scope": {"allNamespaces": True}},
    "several namespaces": {"scope": {"namespaces": ["research", "production"]}},
    "nothing optional": {
        "crds": {"enabled": False},
        "policy": {"enabled": False},
        "rbac": {"create": False, "userRoles": False},
        "serviceAccount": {"create": False, "name": "given"},
        "deployment": {"resources": None},
    },
    "CRD that goes with the release": {"crds": {"keep": False}},
    "by digest, from a registry": {
        "image": {"registry": "registry.example.com:5000", "repository": "a/operator", "digest": EXAMPLE_DIGEST},
        "trainer": {"image": {"repository": "a/trainer", "digest": EXAMPLE_DIGEST, "pullPolicy": "Always"}},
        "imagePullSecrets": ["registry"],
    },
    "everything on": {
        "commonLabels": {"team": "platform"},
        "operator": {"workers": 4, "resyncSeconds": 60, "verbose": True},
        "deployment": {
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "important",
            "podLabels": {"a": "b"},
            "podAnnotations": {"c": "d"},
        },
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {
            "operator": {
                "enabled": True,
                "apiServerCidrs": ["10.0.0.1/32"],
                "metricsFrom": {"kubernetes.io/metadata.name": "monitoring"},
            },
            "trainer": {"enabled": True},
        },
        "metrics": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s"},
            "serviceMonitor": {"enabled": True, "interval": "15s"},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True, "annotations": {"folder": "training"}},
        },
        "tracing": {
            "endpoint": "http://otel-collector.observability:4318",
            "headersSecret": {"name": "otel"},
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}],
        },
        "tests": {
            "storage": {"uri": "s3://models/helm-test", "credentialsSecret": "s3-credentials"},
            "model": {"uri": "s3://models/tiny", "dtype": "float32"},
            "spec": {"pods": {"serviceAccountName": "trainer", "imagePullSecrets": ["registry"]}},
        },
    },
    "network policies of the whole cluster": {
        "scope": {"allNamespaces": True},
        "networkPolicy": {
            "operator": {"enabled": True},
            "trainer": {"enabled": True, "namespaces": ["research"], "egressCidrs": ["10.1.0.0/16"]},
        },
    },
    "a strict platform": {
        "scope": {"namespaces": ["research"]},
        "trainer": {
            "pods": {
                "imagePullSecrets": ["registry"],
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            },
            "runAsUser": 1000680000,
            "runAsGroup": None,
            "fsGroup": None,
            "gpuResources": ["*/gpu", "nvidia.com/mig-*"],
        },
        "policy": {
            "allowed": {
                "images": ["registry.example.com/team/*"],
                "nodeSelectors": ["pool=gpu"],
                "tolerations": ["nvidia.com/gpu", "(every)"],
                "queues": ["team-a", "team-a-rollout"],
                "workloadPriorities": ["low"],
                "priorityClasses": [],
                "runtimeClasses": ["nvidia"],
                "resources": ["cpu", "memory", "nvidia.com/gpu"],
                "env": ["NCCL_*", "HTTPS_PROXY"],
                "storage": ["s3://models/team-a/*"],
                "endpoints": ["https://minio.example.com:9000"],
                "servers": ["http://llm.serving:8000"],
                "sources": ["hf://Qwen/*", "s3://models/*"],
                "trustRemoteCode": True,
            }
        },
    },
}
"""Values that the gates run over."""
