"""Fixtures for tests of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of its own, nothing done yet."""
    return Project(tmp_path / "project")
