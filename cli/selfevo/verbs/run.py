"""`selfevo run`: the core's reconcile, driven with processes on this machine in place of Jobs."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

from selfevo.documents import INTERRUPTED
from selfevo.local import processes as local
from selfevo.local.approvals import Approvals
from selfevo.local.process import Event, Exited, Reported, Signalled, Warned
from selfevo.local.processes import Processes
from selfevo.local.store_record import StoreRecord
from selfevo.local.workdir import RunFolder
from selfevo.publishing import refuse_without_token
from selfevo.stores import committed_steps, open_run_store, recorded
from selfevo.text import printable
from selfevo.views import narrate
from selfevo.views.base import View
from selfevo.views.opening import open_view
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.plan import Plan, is_outdated, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus
from selfevo_core.policies.review import awaited
from selfevo_core.reconcile import Backoff, Outcome, reconcile
from selfevo_core.spans import Traced, ended_spans
from selfevo_core.usage import newly_low
from selfevo_traces import open_sender
from selfevo_traces.base import CLOSING_S, Sender

BACKOFF = Backoff(base=timedelta(seconds=1), cap=timedelta(minutes=1))
PROGRESS = timedelta(seconds=5)
"""How old what a process reports may be before it is recorded."""
APPROVAL = timedelta(seconds=1)
"""Between two checks whether a person has approved the iteration that waits."""


def run_here(
    run: SelfEvolutionRun,
    manifest: Path,
    *,
    storage: str | None = None,
    workdir: Path,
    workers: int | None = None,
    quiet: bool = False,
    cold: bool = False,
    wait: bool = False,
) -> int:
    """Drive the run to its end; returns the exit code.

    Args:
        manifest: What it was read from; sentences name it, and ``storage``.
        cold: Every process imports torch by itself.
        wait: Where an iteration waits for a person, wait with it.

    Raises:
        SelfevoError: it cannot start.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("training needs packages that are not installed here; pip install 'selfevo[trainer]'")
    folder = RunFolder(workdir, run.metadata)
    folder.make()
    with folder.locked(), _signals() as events:
        store = open_run_store(run)
        record = folder.record(run)
        steps = plan_of(run.spec, record)
        committed = committed_steps(run, steps, store, record)
        refuse_without_token(run.spec, {step.name for step in steps.steps if step.name not in committed}, steps)
        status = recorded(record, steps, committed)
        # Every `selfevo run` is a new word of a person: what had failed is tried again.
        sender = open_sender("selfevo", lambda line: events.put(Warned(line)))
        identity = {"generation": status.observed_generation + 1, "uid": folder.uid(run, wanted=sender.on)}
        metadata = run.metadata.model_copy(update=identity)
        run = run.model_copy(update={"metadata": metadata, "status": status})
        workers = workers or os.cpu_count() or 1
        processes = Processes(
            run,
            folder,
            events,
            workers=workers,
            command=local.TRAINER,
            environment=_environment(run, steps, workers),
            keep_warm=not cold and sum(step.shards for step in steps.steps if step.name not in committed) > 1,
            traced=sender.on,
        )
        view = open_view(run, steps, quiet)
        try:
            recorder = _Recorder(folder, view, _Spans(run, sender), StoreRecord(store, view.say))
            status, interrupted = drive(run, steps, folder, processes, events, view, recorder, wait)
        finally:
            processes.close()  # no process is left, unless we fail ourselves
            view.close()
            sender.close(CLOSING_S)
    view.summary(status)
    options = "" if storage is None else f" --storage {shlex.quote(storage)}"
    return _conclude(run, steps, status, interrupted, str(manifest), options, quiet)


def drive(
    run: SelfEvolutionRun,
    steps: Plan,
    folder: RunFolder,
    processes: Processes,
    events: SimpleQueue[Event],
    view: View,
    record: _Recorder,
    wait: bool = False,
) -> tuple[RunStatus, bool]:
    """Reconcile whenever something happens, until nothing is left to happen.

    Returns:
        the status, and whether a signal ended it early.
    """
    interrupted, standing = False, ""
    approvals = Approvals(folder)
    while True:
        run = approvals.obeyed(run)
        outcome = reconcile(run, steps, processes.observe(), datetime.now(UTC), BACKOFF)
        for line in newly_low(run.spec.budget, run.status.usage if run.status else None, outcome.status.usage):
            view.say(line)
        run = run.model_copy(update={"status": outcome.status})
        record(run)
        if is_outdated(steps, outcome.status):  # from here on another plan holds
            view.show(outcome.status, processes.reports())
            steps = plan_of(run.spec, outcome.status)
            continue
        if processes.apply(outcome.actions):
            continue  # what has just been started is observed at once
        view.show(outcome.status, processes.reports())
        if outcome.status.phase in ("Succeeded", "Failed", "Suspended") and not processes.live:
            if not wait or interrupted or not narrate.awaits_review(outcome.status):
                return outcome.status, interrupted
            if standing != (standing := narrate.standing(outcome.status)):
                view.say(f"waiting. {standing}")
        asked = functools.partial(approvals.raised, run) if awaited(run.spec) is not None else None
        event = _hear(events, processes, view, outcome, asked)
        if isinstance(event, Exited):
            processes.take(event)
        elif isinstance(event, Signalled) and interrupted:
            processes.kill()
        elif isinstance(event, Signalled):
            # A person's wish to stop is what spec.suspend is: processes end at a checkpoint, and nothing new starts.
            interrupted = True
            run = run.model_copy(update={"spec": run.spec.model_copy(update={"suspend": True})})
            if processes.live:
                view.say("stopping at the next checkpoint (Ctrl-C again: at once, from the last checkpoint)")


def _hear(
    events: SimpleQueue[Event],
    processes: Processes,
    view: View,
    outcome: Outcome,
    approved: Callable[[], bool] | None,
) -> Event | None:
    """Show how far the processes are, which changes nothing that is to be done, until something else happens or the
    time has come to reconcile again: also when what they report is to be recorded.

    Args:
        approved: Whether a person has approved what waits, where something does.
    """
    until = outcome.wake_at
    while True:
        check_at = None if approved is None else datetime.now(UTC) + APPROVAL
        event = _next(events, min(filter(None, (until, check_at)), default=None))
        if isinstance(event, Exited | Signalled) or (event is None and approved is not None and approved()):
            return event
        if isinstance(event, Warned):
            view.say(event.message)
        elif isinstance(event, Reported):
            until = min(filter(None, (until, datetime.now(UTC) + PROGRESS)))
        if event is not None:
            processes.take(event)
            view.show(outcome.status, processes.reports())
        if until is not None and datetime.now(UTC) >= until:
            return None


def _next(events: SimpleQueue[Event], wake_at: datetime | None) -> Event | None:
    """The next thing that happens, or None when it is time to reconcile again."""
    timeout = None if wake_at is None else max(0.0, (wake_at - datetime.now(UTC)).total_seconds())
    try:
        return events.get(timeout=timeout)
    except Empty:
        return None


class _Spans:
    """Sends what has ended since the last status. No trace is worth a run."""

    def __init__(self, run: SelfEvolutionRun, sender: Sender) -> None:
        self._traced = Traced(run.metadata.uid, run.metadata.namespace, run.metadata.name)
        self._before, self._sender = run.status or RunStatus(), sender

    def __call__(self, status: RunStatus) -> None:
        before, self._before = self._before, status
        if self._sender.on:
            with contextlib.suppress(Exception):
                for span in ended_spans(self._traced, before, status, datetime.now(UTC)):
                    self._sender.send(span)


class _Recorder:
    """Writes the status down when it has changed. A lost status costs process starts, so a full disk is no reason to
    stop: it is printed once."""

    def __init__(self, folder: RunFolder, view: View, spans: _Spans, in_store: StoreRecord) -> None:
        self._folder, self._view, self._spans, self._in_store = folder, view, spans, in_store
        self._written: RunStatus | None = None
        self._warned = False

    def __call__(self, run: SelfEvolutionRun) -> None:
        if run.status == self._written:
            return
        self._spans(run.status or RunStatus())
        self._in_store(run)
        try:
            self._folder.write(run)
            self._written = run.status
        except OSError as error:
            if not self._warned:
                self._view.say(f"the status cannot be written to {self._folder.root}: {error.strerror}; going on")
            self._warned = True


@contextlib.contextmanager
def _signals() -> Iterator[SimpleQueue[Event]]:
    """A queue that also receives SIGINT, SIGTERM and SIGHUP."""
    events: SimpleQueue[Event] = SimpleQueue()  # its put may be called in a signal handler, unlike Queue's

    def handle(number: int, _frame: FrameType | None) -> None:
        events.put(Signalled(number))

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it: the terminal may go
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield events
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(run: SelfEvolutionRun, steps: Plan, workers: int) -> dict[str, str]:
    """Ours, with the machine's threads shared among the processes that may run at once, unless that is decided."""
    shards = min(workers, max(step.shards for step in steps.steps))
    threads = max(1, (os.cpu_count() or 1) // max(run.spec.parallel_steps, shards))
    return {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", **os.environ}


def _conclude(
    run: SelfEvolutionRun, steps: Plan, status: RunStatus, interrupted: bool, manifest: str, options: str, quiet: bool
) -> int:
    """Say how it ended; returns the exit code."""
    manifest = shlex.quote(manifest)
    if status.phase == "Failed":
        print(f"selfevo: {_why(status)}", file=sys.stderr)
        return narrate.failure_code(status)
    if interrupted and status.phase != "Succeeded":
        if not quiet:
            print(f"Stopped, {narrate.counts(status, steps)}. Go on with:\n  {_command()}")
        return INTERRUPTED
    if status.phase == "Suspended" and not narrate.held_by_spec(status):
        if not quiet:
            print(f"Stopped. {narrate.standing(status)}")
        return int(ExitCode.DONE)
    if status.phase == "Suspended":
        if not quiet:
            print(f"spec.suspend is true, {narrate.counts(status, steps)}; set it to false in {manifest} to go on")
        return int(ExitCode.DONE)
    if not quiet:
        for line in narrate.end(run, status, manifest, options):
            print(line)
    return int(ExitCode.DONE)


def _why(status: RunStatus) -> str:
    failed = next(condition for condition in status.conditions if condition.type == "Failed")
    steps = [step.name for step in status.steps if step.state == "Failed"][:1]  # none where a policy has ended the run
    logs = [attempt.log for attempt in status.attempts if attempt.step in steps and attempt.log]
    return printable(failed.message) + (f"\nselfevo: its log is {logs[-1]}" if logs else "")


def _command() -> str:
    """The command that started us, as one would type it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
