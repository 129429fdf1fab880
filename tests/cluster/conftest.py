"""A real control plane for the tests of this folder: one a session, a namespace a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import controlplane
from harness.cluster.controlplane import ControlPlane
from harness.gotools import ToolUnavailable

CRDS = sorted((Path(__file__).parents[2] / "crds").glob("*.yaml"))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager, with the CRDs installed."""
    try:
        with controlplane.running(tmp_path_factory.mktemp("control-plane"), crds=CRDS) as plane:
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace that admits only pods which PodSecurity calls restricted."""
    name = control_plane.make_namespace()
    yield name
    control_plane.remove_namespace(name)
