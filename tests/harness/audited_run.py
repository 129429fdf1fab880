"""A run of pytest whose end is a check: of the logs that its control planes kept, when all of their tests ran.

It stands in the summary as one more test. Under pytest-xdist the workers' control planes log into the controller's
folder, and the controller judges when the workers are gone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAME = "test_the_operator_used_all_its_rights_and_was_denied_none_in_the_whole_run"


class AuditedRun:
    """The plugin. ``judge`` gets the folder of the logs and returns what is wrong, a sentence each."""

    def __init__(self, config: pytest.Config, tests: Path, variable: str, judge: Callable[[Path], list[str]]) -> None:
        self._config, self._tests, self._judge = config, tests, judge
        self._place = tests.relative_to(config.rootpath).as_posix()
        self._worker = hasattr(config, "workerinput")
        if not self._worker:
            os.environ[variable] = tempfile.mkdtemp(prefix="selfevo-audit-")  # workers and servers inherit it
        self._folder = Path(os.environ[variable])
        self._collected: set[str] = set()
        self._ended: set[str] = set()
        self._failed = False
        self._unjudged = ""

    def _ours(self, nodeid: str) -> bool:
        return nodeid.startswith(f"{self._place}/")

    # -- what ran

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        if any(self._ours(item.nodeid) for item in items):
            (self._folder / "a part was left out").touch()  # a worker has no other way to say so

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected |= {item.nodeid for item in session.items if self._ours(item.nodeid)}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._collected |= set(filter(self._ours, ids))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._ours(report.nodeid):
            self._failed |= report.failed
            if report.when == "teardown":
                self._ended.add(report.nodeid)

    def _missing(self) -> str:
        """Why this was not the whole run; empty when it was."""
        files = {nodeid.partition("::")[0] for nodeid in self._collected}
        left = [
            file.name for file in sorted(self._tests.glob("test_*.py")) if f"{self._place}/{file.name}" not in files
        ]
        if self._failed:
            return "a test failed"
        if left:
            return f"{left[0]} was left out" if len(left) == 1 else f"{len(left)} files were left out"
        chosen = any("::" in str(argument) for argument in self._config.args)
        if chosen or (self._folder / "a part was left out").exists() or self._collected - self._ended:
            return "tests were left out"
        return ""

    # -- the end

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._worker or not any(entry.is_dir() for entry in self._folder.iterdir()):
            return  # no control plane was started
        self._unjudged = self._missing()
        if self._unjudged:
            return
        wrong = self._judge(self._folder)
        self._config.hook.pytest_runtest_logreport(report=self._report(wrong))
        if wrong and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _report(self, wrong: list[str]) -> pytest.TestReport:
        return pytest.TestReport(
            nodeid=f"{self._place}::{NAME}",
            location=(self._place, None, NAME),
            keywords={},
            outcome="failed" if wrong else "passed",
            longrepr="\n".join(wrong) or None,
            when="call",
        )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._unjudged:
            terminalreporter.write_line(f"{self._place}: the audit logs were not judged, {self._unjudged}")

    def pytest_unconfigure(self) -> None:
        if not self._worker:
            shutil.rmtree(self._folder, ignore_errors=True)
