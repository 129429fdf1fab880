"""Fixtures for tests of the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.apiserver_standin import ApiServer, serving
from harness.cli import Project
from harness.following import Follower
from harness.runs import document


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of its own, nothing done yet."""
    return Project(tmp_path / "project")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A cluster with the run ``demo`` in ``default``; KUBECONFIG leads to it."""
    with serving() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        server.put(document())
        yield server


@pytest.fixture
def following(project: Project) -> Iterator[Callable[..., Follower]]:
    """Starts the command; nothing of it is left behind."""
    started: list[Follower] = []

    def follow(*args: str, **settings: float) -> Follower:
        started.append(Follower(project, *args, **settings))
        return started[-1]

    yield follow
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
