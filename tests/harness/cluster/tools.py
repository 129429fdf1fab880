"""The programs of a Kubernetes control plane and node, each built once from its Go module (docs/testing.md).

`python -m harness.cluster.tools` (with tests/ on the path) builds all of them; a test that needs one asks for it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from harness.gotools import GoTool, ToolUnavailable, ensure

KUBERNETES_VERSION = "v1.36.3"

# Kubernetes' own go.mod requires these at v0.0.0, from its staging folder; elsewhere they have versions of their own.
_STAGING = (
    "api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap "
    "code-generator component-base component-helpers controller-manager cri-api cri-client cri-streaming "
    "csi-translation-lib dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator "
    "kube-controller-manager kube-proxy kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission "
    "sample-apiserver streaming"
)
_REPLACE = "".join(
    f"replace k8s.io/{name} => k8s.io/{name} {KUBERNETES_VERSION.replace('v1.', 'v0.')}\n" for name in _STAGING.split()
)
_MAJOR, _MINOR = KUBERNETES_VERSION.lstrip("v").split(".")[:2]
# Without these, /version cannot be parsed and clients refuse the server.
_VERSION_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": _MAJOR,
        "gitMinor": _MINOR,
    }.items()
)


def _kubernetes(*binaries: str) -> GoTool:
    return GoTool(
        name="kubernetes",
        version=KUBERNETES_VERSION,
        module="k8s.io/kubernetes",
        packages=tuple(f"k8s.io/kubernetes/cmd/{binary}" for binary in binaries),
        ldflags=f"-s -w {_VERSION_FLAGS}",
        go_mod=_REPLACE,
    )


KUBE_APISERVER = _kubernetes("kube-apiserver")
KUBE_CONTROLLER_MANAGER = _kubernetes("kube-controller-manager")
KUBE_SCHEDULER = _kubernetes("kube-scheduler")
KUBELET = _kubernetes("kubelet")
KUBECTL = _kubernetes("kubectl")
ETCD = GoTool("etcd", "v3.6.16", "go.etcd.io/etcd/server/v3", ("go.etcd.io/etcd/server/v3",), binary="etcd")
KWOK = GoTool("kwok", "v0.8.0", "sigs.k8s.io/kwok", ("sigs.k8s.io/kwok/cmd/kwok",))
PROMTOOL = GoTool(
    "promtool",
    "v0.316.0",
    "github.com/prometheus/prometheus",
    ("github.com/prometheus/prometheus/cmd/promtool",),
    tags=("remove_all_sd",),
)
HELM = GoTool("helm", "v4.3.1", "helm.sh/helm/v4", ("helm.sh/helm/v4/cmd/helm",))
HELM_3 = GoTool("helm", "v3.22.0", "helm.sh/helm/v3", ("helm.sh/helm/v3/cmd/helm",))
KUBECONFORM = GoTool(
    "kubeconform", "v0.8.0", "github.com/yannh/kubeconform", ("github.com/yannh/kubeconform/cmd/kubeconform",)
)
KUBE_SCORE = GoTool(
    "kube-score", "v1.20.0", "github.com/zegl/kube-score", ("github.com/zegl/kube-score/cmd/kube-score",)
)


def program(tool: GoTool) -> Path:
    """The tool's one program: from KUBEBUILDER_ASSETS where that has it, else from the cache, else built.

    Raises:
        ToolUnavailable: when it is in neither and there is no Go to build it with.
    """
    (name,) = tool.binaries
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / name, os.X_OK):
        return Path(assets) / name
    return ensure(tool)[name]


def main() -> None:
    """Build everything that the tests need, with the time that each took."""
    cluster = (ETCD, KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBE_SCHEDULER, KWOK, KUBELET, KUBECTL)
    for tool in (*cluster, PROMTOOL, HELM, HELM_3, KUBECONFORM, KUBE_SCORE):
        begun = time.monotonic()
        try:
            print(f"{program(tool)}  {time.monotonic() - begun:.0f} s", flush=True)
        except ToolUnavailable as reason:
            sys.exit(str(reason))


if __name__ == "__main__":
    main()
