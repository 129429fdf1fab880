"""Helm and the other programs, or the reason why this machine has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster import tools
from harness.gotools import GoTool, ToolUnavailable


def _program(tool: GoTool) -> Path:
    try:
        return tools.program(tool)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session", params=[tools.HELM, tools.HELM_3], ids=lambda tool: f"helm {tool.version}")
def any_helm(request: pytest.FixtureRequest) -> GoTool:
    """Each version of Helm that the chart is for."""
    _program(request.param)
    return request.param


@pytest.fixture(scope="session")
def helm() -> GoTool:
    """The newest."""
    _program(tools.HELM)
    return tools.HELM


@pytest.fixture(scope="session")
def promtool() -> Path:
    return _program(tools.PROMTOOL)


@pytest.fixture(scope="session")
def kube_score() -> Path:
    return _program(tools.KUBE_SCORE)
