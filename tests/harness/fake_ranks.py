"""Training processes that only end as they are set to, so that the launcher is tested without torch."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.runs import make_run
from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseConfig, PhaseResult, phase_config
from selfevo_trainer.distributed.launcher import launch
from selfevo_trainer.distributed.layout import Layout
from selfevo_trainer.process.signals import StopRequest

# Acts are done one after another; those of "sigterm" when SIGTERM comes. Who has the file of "name" can be outlived.
_PROCESS = r"""
import json, os, signal, sys, time
acts = json.loads(sys.argv[1]).get(os.environ["RANK"], [["say", {}], ["exit", 0]])
def alive(pid):
    try:
        return open("/proc/%s/stat" % pid).read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
def do(acts):
    for what, value in acts:
        if what == "say":
            result = {**json.loads(sys.argv[2]), **value}
            with open(os.environ["SELFEVO_TERMINATION_LOG"], "w") as file:
                json.dump(result, file)
        elif what == "env":
            with open(value, "w") as file:
                json.dump(dict(os.environ), file)
        elif what == "sleep":
            time.sleep(value)
        elif what == "die":
            os.kill(os.getpid(), value)
        elif what == "touch":
            open(os.path.join(os.environ["SELFEVO_WORKDIR"], value), "w").close()
        elif what == "until":
            while not os.path.exists(os.path.join(os.environ["SELFEVO_WORKDIR"], value)):
                time.sleep(0.01)
        elif what == "name":
            with open(value + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(value + ".new", value)
        elif what == "outlive":
            while not os.path.exists(value) or alive(open(value).read()):
                time.sleep(0.01)
        elif what == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif what == "sigterm":
            signal.signal(signal.SIGTERM, lambda *_, acts=value: do(acts))
        elif what == "exit":
            sys.stdout.flush()
            os._exit(value)
do(acts)
"""

Acts = list[list[Any]]

TERMINATED: dict[str, Any] = {
    "outcome": "terminated",
    "exitCode": 143,
    "reason": "Terminated",
    "message": "stopped on request after step 3 of 5",
}
HANG: Acts = [["sigterm", [["say", TERMINATED], ["exit", 143]]], ["sleep", 60]]
"""Waits for what never comes, and ends on SIGTERM."""


def fails(code: int, reason: str, message: str) -> Acts:
    """Ends with a result, as a phase does."""
    result = {"outcome": "failed", "exitCode": code, "reason": reason, "message": message}
    return [["say", result], ["exit", code]]


def config() -> PhaseConfig:
    """Of a phase that several processes can share."""
    spec = make_run().spec
    step = next(step for step in plan(spec).steps if step.phase == "solver-train")
    return phase_config(spec, "demo", "default", step, attempt="test")


def never_found() -> PhaseResult | None:
    """The output is not there."""
    return None


@dataclass
class Pod:
    """One launcher in a thread of its own, with processes that act as ``acts`` says by rank."""

    layout: Layout
    workdir: Path
    acts: dict[int, Acts] = field(default_factory=dict)
    stop: StopRequest = field(default_factory=StopRequest)
    found: Any = never_found
    grace_s: float = 0.5
    result: PhaseResult | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        configuration = config()
        result = {"phase": configuration.inputs.phase, "key": configuration.key, "outcome": "committed"}
        acts = json.dumps({str(rank): acts for rank, acts in self.acts.items()})
        command = (sys.executable, "-I", "-S", "-c", _PROCESS, acts, json.dumps(result))
        try:
            self.result = launch(
                configuration, self.layout, self.workdir, self.stop, self.found, command=command, grace_s=self.grace_s
            )
        except BaseException as error:
            self.error = error

    def ended(self, within_s: float = 120) -> PhaseResult:
        """Its result, in a time that no healthy launcher needs."""
        self.thread.join(within_s)
        assert not self.thread.is_alive(), "the launcher hangs"
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result
