"""A real control plane for the tests of this folder: one a session, a namespace a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness.cluster import controlplane
from harness.cluster.admitter import admitting
from harness.cluster.client import Api
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet, playing
from harness.gotools import ToolUnavailable


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager, with the CRDs installed."""
    try:
        with controlplane.running(tmp_path_factory.mktemp("control-plane"), crds=controlplane.CRDS) as plane:
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace that admits only pods which PodSecurity calls restricted."""
    name = control_plane.make_namespace()
    yield name
    control_plane.remove_namespace(name)


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    """The API server, for an administrator."""
    return control_plane.admin


@pytest.fixture
def kubelet(api: Api, namespace: str) -> Iterator[FakeKubelet]:
    """Plays the pods of the test's namespace, each in no time."""
    with playing(api, namespace, hurry=True) as kubelet:
        yield kubelet


@pytest.fixture
def queue(api: Api, namespace: str) -> Iterator[Any]:
    """Makes an admitter for the test's namespace."""
    with ExitStack() as stack:
        yield lambda queues, **more: stack.enter_context(admitting(api, namespace, queues, **more))
