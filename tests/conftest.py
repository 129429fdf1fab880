"""Fixtures for every test."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from harness import versitygw
from harness import vllm as vllm_environment
from harness.audited_run import AuditedRun
from harness.cluster import audit
from harness.gotools import ToolUnavailable
from harness.versitygw import S3Server
from harness.vllm import Vllm


def pytest_configure(config: pytest.Config) -> None:
    """When all of tests/cluster ran, what the operator did in it is held against its rights."""
    config.pluginmanager.register(AuditedRun(config, Path(__file__).parent / "cluster", audit.FOLDER, judge))


settings.register_profile("untimed", deadline=None)  # an example that takes long on a loaded machine is no failure
settings.load_profile("untimed")

# What tests import stays to the end: scanning it for garbage was a third of the time that collecting takes.
gc.set_threshold(100_000, 20, 20)


def pytest_collection_finish() -> None:
    """From here on the collector scans what tests make, and not at a million objects that stay."""
    gc.freeze()


_ALL_SLOW = re.compile(r"^pytestmark = pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast tests do not import a file of which every test is slow: what such files import costs each worker ten
    seconds."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return True if _ALL_SLOW.search(collection_path.read_text()) else None


LONGEST = (
    *("cluster/test_chart_real.py", "images/test_environments.py", "cluster/test_operator_spec_changes.py"),
    *("e2e/test_engines.py", "cluster/test_operator_crash.py", "cluster/test_several_pods.py"),
    *("cluster/test_real_pods.py", "images/test_build.py"),
    *("e2e/test_run.py", "cluster/test_chart_install.py", "cluster/test_operator_ttl.py"),
    *(
        "contract/test_types.py",
        "trainer/test_vllm_policy.py",
        "trainer/test_vllm_served.py",
        "trainer/test_server_vllm.py",
        "trainer/test_sharding.py",
    ),
)
"""Files that take minutes each: they come first, so that no process is left alone with one at the end. Those that
train in pods or by vLLM want a core, and stand between those that mostly wait."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of ``LONGEST`` first, all else in the order in which it was found."""
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def judge(logs: Path) -> list[str]:
    """See harness/cluster/rights.py, which is imported when it is needed: most runs end without."""
    from harness.cluster import rights

    return rights.of_session(logs)


@pytest.fixture(scope="session")
def s3_server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One versitygw for the whole session. Tests take ``s3_server``, which also sets the credentials."""
    try:
        with versitygw.running(tmp_path_factory.mktemp("s3")) as server:
            yield server
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def s3_server(s3_server_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A real S3 server on loopback, with its credentials where boto3 reads them."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server_process.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server_process


@pytest.fixture(scope="session")
def vllm() -> Vllm:
    """A Python that has vLLM's CPU build, and selfevo from this checkout."""
    try:
        return vllm_environment.ensure()
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
