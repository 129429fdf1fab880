"""A run that a `selfevo run` elsewhere on this machine drives."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from selfevo.local.approvals import Approvals
from selfevo.local.going_on import PLAIN
from selfevo.local.workdir import RunFolder
from selfevo.verbs.approve import approvable, approve_here
from selfevo.verbs.show import log_files
from selfevo.verbs.watch import POLL_S
from selfevo.watching import questions
from selfevo.watching.scene import Scene
from selfevo.watching.source import Source
from selfevo.watching.trail import Trail, trail_of
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan, decided, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import AttemptStatus, RunStatus

_LOG = 1 << 20
"""Bytes at a log's end that are read."""


class LocalSource(Source):
    """Reads the record and the logs.

    It starts no process: one that outlived the screen would have nobody who stops it, in surroundings (a virtual
    environment, GPUs, credentials) that nobody chose for it. The person has the command.
    """

    def __init__(self, run: SelfEvolutionRun, workdir: Path, command: str = PLAIN) -> None:
        self._run, self._goes_on = run, f"`{command}` goes on"
        self._folder = RunFolder(workdir, run.metadata)
        self._planned: tuple[object, Plan] | None = None
        self._read: tuple[object, Trail] | None = None
        self._stopped = False
        self._asked: int | None = None
        """The iteration that a person was asked about: no other one is approved."""
        super().__init__(Scene(self._folder.name, spec=run.spec))

    def start(self) -> None:
        self.spawn(self._poll, decides=True)
        self.spawn(lambda: questions.poll(self, self._run))

    def _poll(self) -> None:
        while not self.closed.is_set():
            driver = self._folder.driver()
            record = self._folder.read()  # after the driver: whoever is gone has written its last
            if record is not None and record.status is not None:
                self._run = record  # as the process that drives it knows it
                self._saw(record.status, driver)
            if driver is None:
                return
            self.closed.wait(POLL_S)

    def _saw(self, status: RunStatus, driver: int | None) -> None:
        spec = self._run.spec
        if self._planned is None or self._planned[0] != (spec, decided(status)):
            self._planned = (spec, decided(status)), plan_of(spec, status)
        remark = f"driven by process {driver}" if driver else ""
        plan = self._planned[1].keeping({step.name for step in status.steps})
        self.update(status=status, plan=plan, spec=spec, remark=remark, trail=self._trail(status))

    def _trail(self, status: RunStatus) -> Trail:
        attempt = newest(status)
        if attempt is None:
            return Trail()
        files = log_files(self._folder, attempt)
        state = attempt.name, [(file, file.stat().st_size) for file in files if file.exists()]
        if self._read is None or self._read[0] != state:
            lines = [line for file in files for line in _end_of(file)]
            self._read = state, trail_of(lines, attempt.step, attempt.attempt)
        return self._read[1]

    def request(self, verb: str) -> str:
        driver = self._folder.driver()
        if verb == "suspend" and driver and not self._stopped:
            return f"stop process {driver}, which drives the run, at the next checkpoint?"
        if verb == "approve":
            spec = Approvals(self._folder).obeyed(self._run).spec
            self._asked = approvable(spec, None, f"run {self._folder.name}")
            return f"let iteration {self._asked} of run {self._folder.name} begin?"
        return self._refuse(verb, driver)

    def do(self, verb: str) -> str:
        if verb == "approve":
            return approve_here(self._folder, self._run, self._asked)
        driver = self._folder.driver()
        if verb != "suspend" or not driver or self._stopped:
            return self._refuse(verb, driver)
        self._stopped = True  # a second signal would end it at once
        os.kill(driver, signal.SIGINT)
        return f"it stops at the next checkpoint; {self._goes_on}"

    def _refuse(self, verb: str, driver: int | None) -> str:
        if self._stopped and driver is not None:
            raise InputError(f"it was asked to stop, and does at the next checkpoint; {self._goes_on} then")
        if driver is None:
            raise InputError(f"nothing drives the run now; {self._goes_on}")
        if verb == "resume":
            by = f"process {driver or 'of another user'}"
            raise InputError(f"{by} drives the run; nothing is to be resumed, and once it has stopped, {self._goes_on}")
        raise InputError("the process that drives the run is not known; Ctrl-C in its terminal stops it")


def newest(status: RunStatus) -> AttemptStatus | None:
    """The attempt whose log is shown: the newest that runs, else the newest."""
    running = [attempt for attempt in status.attempts if attempt.state == "Running"]
    known = running or status.attempts
    return known[-1] if known else None


def _end_of(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _LOG))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines if size <= _LOG else lines[1:]
