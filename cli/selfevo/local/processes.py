"""Processes on this machine in place of Jobs: what reconcile sees as children, and how its actions are carried out.

A child is one trainer process, or one for each shard of a rollout, at most ``workers`` of them at once. Each leads a
session of its own, so that a Ctrl-C in the terminal reaches us alone and we decide what it means for them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Protocol

from pydantic import ValidationError

from selfevo.local import warm
from selfevo.local.workdir import RunFolder
from selfevo.text import printable
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
    PhaseResult,
    Progress,
    phase_config,
)
from selfevo_contract.run import SelfEvolutionRun
from selfevo_core.attempts import TAKEN_DOWN, verdict_of
from selfevo_core.pods import pods_of
from selfevo_core.reconcile import Action, ObservedAttempt, Start

TRAINER: tuple[str, ...] = (sys.executable, "-m", "selfevo_trainer")


@dataclass(frozen=True)
class Exited:
    """A process has ended."""

    process: Process


@dataclass(frozen=True)
class Reported:
    """A process reported its progress."""

    child: str
    progress: Progress


@dataclass(frozen=True)
class Signalled:
    """A signal asks us to stop."""

    number: int


@dataclass(frozen=True)
class Warned:
    """Something that a person may want to know, and that changes nothing."""

    message: str


Event = Exited | Reported | Signalled | Warned
"""What whoever drives a run waits for."""


class Handle(Protocol):
    """What is used of a subprocess.Popen."""

    pid: int
    returncode: int | None

    def wait(self) -> int: ...


@dataclass(eq=False)
class Process:
    """One trainer process: the whole of a child, or one of its shards."""

    child: str
    shard: int | None
    log: Path
    termination: Path
    handle: Handle | None = None
    cancelled: signal.Signals | None = None
    """The signal that came before there was a process to send it to."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while ``handle`` is set and while a signal is sent, so that none is lost in between."""
    code: int | None = None
    """As a shell reports it: 128 + n after signal n."""
    start_error: str = ""
    """Why it could not be started."""

    def result(self) -> PhaseResult | None:
        """Its termination message, if it left a whole one."""
        try:
            return PhaseResult.model_validate_json(self.termination.read_bytes())
        except (OSError, ValidationError):
            return None

    def verdict(self) -> int | None:
        """Its exit code, or the one that it had announced when it was taken down before it had left."""
        return verdict_of(self.code, self.result() if self.code in TAKEN_DOWN else None)

    def end(self) -> str:
        """What is known of its end without a termination message."""
        parts = [self.start_error] if self.start_error else []
        if self.code == 128 + signal.SIGKILL:
            parts.append("killed, perhaps because memory ran out")
        elif self.code is not None and self.code > 128 and self.code != ExitCode.TERMINATED:
            with contextlib.suppress(ValueError):
                parts.append(f"killed by {signal.Signals(self.code - 128).name}")
        parts.append(_last_line(self.log))
        return "; ".join(filter(None, parts))


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
                _send(process, signal.SIGKILL, os.killpg)
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
        launch = functools.partial(_launch, process, self._command, environment, log, self._warm_parent(environment))
        threading.Thread(target=_attend, args=(process, launch, log, self._events), daemon=True).start()
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
            _send(process, signal.SIGTERM, os.kill)
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
    )


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


def _launch(
    process: Process,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes],
    parent: warm.WarmParent | None,
) -> IO[bytes] | None:
    """Start the process, forked by ``parent`` if there is one. In the thread that will wait for its end, since it dies
    with that thread (die_with_parent).

    Returns:
        its standard output; None when it was cancelled before it had begun.

    Raises:
        OSError: it cannot be started.
    """
    if parent is not None and parent.wait(lambda: process.cancelled is not None):
        forked = parent.fork(environment, log.fileno())
        if forked is not None:
            with process.lock:
                if process.cancelled is not None:
                    forked.abandon()
                    return None
                process.handle = forked
                forked.begin()
                return forked.stdout
    with process.lock:
        if process.cancelled is not None:
            return None
        popen = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        process.handle = popen
        return popen.stdout


def _attend(
    process: Process, launch: Callable[[], IO[bytes] | None], log: IO[bytes], events: SimpleQueue[Event]
) -> None:
    """Thread: starts the process, passes on what it says, then waits for its end and clears away what it left
    running."""
    stdout = None
    try:
        stdout = launch()
    except OSError as error:
        process.start_error = f"the process could not be started: {error}"
    handle = process.handle
    if stdout is None or handle is None:
        log.close()
        process.code = None if process.cancelled is None else 128 + process.cancelled
        events.put(Exited(process))
        return
    reader = threading.Thread(target=_listen, args=(process, stdout, log, events), daemon=True)
    reader.start()
    # Without reaping it: as long as it is a zombie, no other process group can have its number.
    os.waitid(os.P_PID, handle.pid, os.WEXITED | os.WNOWAIT)
    _send(process, signal.SIGKILL, os.killpg)
    code = handle.wait()
    reader.join(timeout=5)  # a helper in yet another session might hold the pipe open
    process.code = code if code >= 0 else 128 - code
    events.put(Exited(process))
    with contextlib.suppress(ChildProcessError):  # beside a warm parent, what it left running is our child by now
        while True:
            os.waitpid(-handle.pid, 0)


def _listen(process: Process, stdout: IO[bytes], log: IO[bytes], events: SimpleQueue[Event]) -> None:
    with contextlib.suppress(OSError, ValueError), log, stdout:
        for line in stdout:
            log.write(line)
            with contextlib.suppress(ValidationError):
                events.put(Reported(process.child, Progress.model_validate_json(line)))


def _send(process: Process, number: signal.Signals, by: Callable[[int, int], None]) -> None:
    """Signal it ``by`` os.kill or os.killpg; one that has not been started never will be."""
    with process.lock, contextlib.suppress(ProcessLookupError, PermissionError):
        if process.handle is None:
            process.cancelled = number
        elif process.handle.returncode is None:
            by(process.handle.pid, number)


def _last_line(log: Path) -> str:
    """The last line that a process printed for people."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    spoken = [line.strip() for line in lines if line.strip() and not line.startswith('{"event":')]
    return printable(spoken[-1])[:300] if spoken else ""
