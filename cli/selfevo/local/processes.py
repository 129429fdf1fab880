"""Processes on this machine in place of Jobs: what reconcile sees as attempts, and how its actions are carried out.

A child, one attempt, is one trainer process, or one for each shard of a rollout, at most ``workers`` of them at once.
Each leads a session of its own, so that a Ctrl-C in the terminal reaches us alone and we decide what it means for them.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue

from selfevo.local import warm
from selfevo.local.process import Event, Exited, Process, Reported, Warned, attend, launch_process, send
from selfevo.local.workdir import RunFolder
from selfevo_contract.errors import ExitCode
from selfevo_contract.phases import Phase
from selfevo_contract.plan import plan
from selfevo_contract.process import (
    CACHE_ENV,
    CONFIG_ENV,
    CONFIG_FILE_ENV,
    PARENT_ENV,
    PREFLIGHT_FILE_ENV,
    SHARD_ENV,
    TERMINATION_LOG_ENV,
    WORKDIR_ENV,
    Progress,
    phase_config,
)
from selfevo_contract.run import SelfEvolutionRun
from selfevo_core.pods import pods_of
from selfevo_core.reconcile import Action, ObservedAttempt, Start

TRAINER: tuple[str, ...] = (sys.executable, "-m", "selfevo_trainer")


@dataclass(eq=False)
class _Local:
    start: Start
    waiting: list[Process]
    started_at: datetime
    running: list[Process] = field(default_factory=list)
    ended: list[Process] = field(default_factory=list)
    finished_at: datetime | None = None
    stopping: bool = False
    progress: dict[int | None, Progress] = field(default_factory=dict)


class Processes:
    """The children of one run on this machine. Used from one thread."""

    def __init__(
        self,
        run: SelfEvolutionRun,
        folder: RunFolder,
        events: SimpleQueue[Event],
        *,
        workers: int,
        command: Sequence[str] = TRAINER,
        environment: Mapping[str, str] | None = None,
        keep_warm: bool = False,
    ) -> None:
        self._run = run
        self._folder = folder
        self._events = events
        self._workers = workers
        self._command = tuple(command)
        self._environment = dict(os.environ if environment is None else environment)
        self._children: dict[str, _Local] = {}
        self._keep_warm = keep_warm
        self._warm: warm.WarmParent | None = None
        # What the phases will ask of the model: the first step finds what one of them would fail at after hours.
        first = plan(run.spec.model_copy(update={"iterations": 1}))
        self._asked = [inputs.wire() for inputs in {step.phase: step.inputs for step in first.steps}.values()]

    # --- what reconcile sees

    def observe(self) -> list[ObservedAttempt]:
        """Every child that this process has started, those that have ended included."""
        return [_seen(name, local) for name, local in self._children.items()]

    def reports(self) -> dict[str, list[Progress]]:
        """Step name -> the newest report of each of its processes, of the steps that run."""
        live = [local for local in self._children.values() if local.finished_at is None]
        return {local.start.step.name: list(local.progress.values()) for local in live}

    @property
    def live(self) -> bool:
        return any(local.finished_at is None for local in self._children.values())

    # --- what reconcile asks for

    def apply(self, actions: Iterable[Action]) -> bool:
        """Start and stop; both are harmless when done already. Returns whether there is a new child."""
        begun = False
        for action in actions:
            if isinstance(action, Start):
                if action.name not in self._children:
                    self._start(action)
                    begun = True
            elif action.name in self._children:
                self._stop(self._children[action.name])
        return begun

    def kill(self) -> None:
        """End every process at once. What is committed is committed; the rest is done again."""
        for local in self._children.values():
            local.waiting.clear()
            for process in local.running:
                send(process, signal.SIGKILL, os.killpg)
        self._wake()

    def close(self) -> None:
        """End every process, and what forks them."""
        self.kill()
        if self._warm is not None:
            self._warm.close()

    def take(self, event: Event) -> None:
        """Account for what a process did."""
        if isinstance(event, Reported):
            self._children[event.child].progress[event.progress.shard] = event.progress
        if not isinstance(event, Exited):
            return
        local = self._children[event.process.child]
        local.running.remove(event.process)
        local.ended.append(event.process)
        if event.process.verdict() in (ExitCode.INPUT, ExitCode.DATA):
            self._stop(local)  # the other shards cannot make this good
        self._fill(local)
        if local.finished_at is not None:
            shutil.rmtree(self._folder.scratch / event.process.child, ignore_errors=True)

    def _start(self, action: Start) -> None:
        step, name = action.step, action.name
        place = self._folder.children / name
        sharded = step.type.sharded
        processes = []
        for index in range(step.shards):
            mark = f".{index}" if step.shards > 1 else ""
            # With our number: a ghost of a killed command must not overwrite what its successor's process says.
            result = place / f"result{mark}.{os.getpid()}.json"
            processes.append(Process(name, index if sharded else None, self._folder.logs / f"{name}{mark}.log", result))
        config = phase_config(self._run.spec, self._run.metadata.name, self._run.metadata.namespace, step, name)
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.json").write_text(json.dumps(config.wire(), indent=1))
            (place / "preflight.json").write_text(json.dumps(self._asked, indent=1))
            for process in processes:
                process.termination.unlink(missing_ok=True)
        except OSError as error:
            for process in processes:
                process.start_error = f"the process could not be started: {error}"
        local = self._children[name] = _Local(action, processes, datetime.now(UTC))
        self._fill(local)

    def _fill(self, local: _Local) -> None:
        """Start as many of the waiting processes as may run; note when all have ended."""
        while local.waiting and len(local.running) < self._workers:
            process = local.waiting.pop(0)
            local.running.append(process)
            if process.start_error or not self._spawn(process, local.start.step.phase):
                self._events.put(Exited(process))
        if not local.running and not local.waiting and local.finished_at is None:
            local.finished_at = datetime.now(UTC)

    def _spawn(self, process: Process, phase: Phase) -> bool:
        place = self._folder.children / process.child
        scratch = self._folder.scratch / process.child / str(process.shard or 0)
        environment = {
            **self._environment,
            **{variable.name: variable.value for variable in pods_of(self._run.spec, phase).env},
            CONFIG_FILE_ENV: str(place / "config.json"),
            PREFLIGHT_FILE_ENV: str(place / "preflight.json"),
            TERMINATION_LOG_ENV: str(process.termination),
            WORKDIR_ENV: str(scratch),
            CACHE_ENV: str(self._folder.cache),
            PARENT_ENV: str(os.getpid()),
        }
        environment.pop(CONFIG_ENV, None)  # it would go before the file
        environment.pop(SHARD_ENV, None)
        if process.shard is not None:
            environment[SHARD_ENV] = str(process.shard)
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            log = process.log.open("ab", buffering=0)
        except OSError as error:
            process.start_error = f"the process could not be started: {error}"
            return False
        launch = functools.partial(
            launch_process, process, self._command, environment, log, self._warm_parent(environment)
        )
        threading.Thread(target=attend, args=(process, launch, log, self._events), daemon=True).start()
        return True

    def _warm_parent(self, environment: Mapping[str, str]) -> warm.WarmParent | None:
        """What forks a process with this environment, if it may be forked."""
        if not self._keep_warm or not warm.wanted(environment):
            return None
        if self._warm is None:
            log = self._folder.root / "warm.log"
            self._warm = warm.WarmParent(environment, log, lambda message: self._events.put(Warned(message)))
        return self._warm if self._warm.fits(environment) else None

    def _wake(self) -> None:
        """A process that waits for the warm parent has been cancelled."""
        if self._warm is not None:
            self._warm.wake()

    def _stop(self, local: _Local) -> None:
        if local.stopping or local.finished_at is not None:
            return
        local.stopping = True
        local.waiting.clear()
        for process in local.running:
            # The trainer alone, not its helpers: it needs them to reach its checkpoint. And not by send_signal, which
            # would reap a process that has just ended under the hands of the thread that waits for it.
            send(process, signal.SIGTERM, os.kill)
        self._wake()


def _seen(name: str, local: _Local) -> ObservedAttempt:
    step = local.start.step
    decisive = _decisive(local)
    state = "Running" if local.finished_at is None else _outcome(local)
    return ObservedAttempt(
        name=name,
        step=step.name,
        key=step.key,
        number=local.start.number,
        state=state,  # type: ignore[arg-type]
        exit_code=None if local.finished_at is None else decisive.verdict() if decisive else int(ExitCode.TERMINATED),
        result=decisive.result() if local.finished_at is not None and decisive else None,
        started_at=local.started_at,
        finished_at=local.finished_at,
        message=decisive.end() if state == "Failed" and decisive else "",
        log=str(decisive.log) if decisive else None,
        tokens=0 if local.finished_at is None else sum(_tokens(process) for process in local.ended),
    )


def _tokens(process: Process) -> int:
    result = process.result()
    return (result.tokens or 0) if result is not None else 0


def _outcome(local: _Local) -> str:
    complete = len(local.ended) == local.start.step.shards and all(process.code == 0 for process in local.ended)
    return "Succeeded" if complete else "Failed"


def _decisive(local: _Local) -> Process | None:
    """The process that tells how the child ended: the worst one, or the one that committed the step."""
    severity = {int(ExitCode.INPUT): 4, int(ExitCode.DATA): 3, int(ExitCode.TERMINATED): 1, 0: 0}

    def weight(process: Process) -> int:
        code = process.verdict()
        return severity.get(code, 2) if code is not None else 2

    if local.finished_at is None:
        return (local.running or local.ended or [None])[0]  # type: ignore[list-item]
    if _outcome(local) == "Succeeded":
        rank = {"committed": 0, "found": 1}
        outcomes = [(process, process.result()) for process in local.ended]
        return min(outcomes, key=lambda pair: rank.get(pair[1].outcome, 2) if pair[1] else 3)[0]
    # Ended well, but stopped before all shards were begun: that is a termination.
    failed = [process for process in local.ended if process.code != 0]
    return max(failed, key=weight, default=None)
