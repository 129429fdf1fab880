"""`selfevo watch`: a line for everything that happens to a run, until it ends. Pure but for the two loops."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from selfevo.cluster.client import Cluster, Resource
from selfevo.cluster.connection import connect
from selfevo.cluster.errors import Expired, Forbidden, NotFound, Unauthorized, brief
from selfevo.documents import INTERRUPTED
from selfevo.local.going_on import PLAIN, command_for, command_of
from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.target import ClusterRun
from selfevo.text import printable, width
from selfevo.views import narrate
from selfevo.views.base import clock
from selfevo.views.lines import PROGRESS_S
from selfevo.views.narrate import Change
from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode, InputError, ServiceError
from selfevo_contract.plan import Plan, decided, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

POLL_S = 0.5
RELIST_S = 2.0
"""Between two reads where a watch is not allowed."""
REWATCH_S = 1.0
"""From one watch to the next at least: a server that ends every watch at once must not be asked in a hot loop."""
REFUSED_S = 30.0
"""For so long a right or a token that was good before may be refused."""
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between tries while the API server does not answer; the last one again and again."""


class ChangePrinter:
    """Prints what has changed since the last update.

    Args:
        pause: Seconds between two lines about how far a step is.
    """

    def __init__(self, name: str, pause: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._name, self._pause, self._now = name, pause, now
        self._reported: dict[str, float] = {}
        self._before: RunStatus | None = None

    def update(self, status: RunStatus, steps: Plan | None) -> None:
        if self._before is None:
            self.say(f"run {self._name}: {status.phase}, {narrate.counts(status, steps)}")
        for change in changes(self._before, status, steps):
            if not change.progress or self._due(change.progress):
                self.say(change.text)
        self._before = status

    def _due(self, step: str) -> bool:
        due = self._now() - self._reported.get(step, -self._pause) >= self._pause
        if due:
            self._reported[step] = self._now()
        return due

    def say(self, line: str) -> None:
        print(f"{clock()} {printable(line)}", flush=True)


def changes(before: RunStatus | None, after: RunStatus, steps: Plan | None) -> Iterator[Change]:
    """What has happened since ``before``; at first, what is going on. Pure."""
    if before is None:
        done = [step for step in after.steps if step.state == "Succeeded"]
        before = RunStatus(phase=after.phase, steps=done, attempts=after.attempts)
    yield from narrate.transitions(before, after)
    if after.phase != before.phase and "Suspended" in (before.phase, after.phase):
        how = "suspended" if after.phase == "Suspended" else "goes on"
        yield Change(f"{how}, {narrate.counts(after, steps)}")
    why = narrate.standing(after)
    # A step that is tried again has had its line, and an end gets its own.
    printed = after.phase not in ("Pending", "Running") or why.startswith("BackingOff: ")
    if why and why != narrate.standing(before) and not printed:
        yield Change(why)


def conclude(status: RunStatus, steps: Plan | None, hint: str) -> int:
    """Say how it ended; returns the exit code, as `selfevo run` does."""
    for line in narrate.table_lines(status, width()):
        print(line)
    if status.phase == "Failed":
        why = narrate.standing(status) or "it failed"
        raise RunFailed(f"{why}\n{hint}" if hint else why, narrate.failure_code(status))
    for line in narrate.best_model(status):
        print(line)
    return int(ExitCode.DONE)


class Deleted(NotFound):
    """The run that was watched is there no more."""

    reason = reasons.DELETED


class RunFailed(ServiceError):
    """The run that was watched has failed."""

    reason = reasons.RUN_FAILED

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = ExitCode(code)


# --- in a cluster -----------------------------------------------------------------------------------------------------


def watch_cluster(target: ClusterRun) -> int:
    """Follow the run to its end; returns the exit code."""
    # Nothing is written here, so nothing has to be ended well. An exception that the signal raises may come up where
    # nobody hears it, in a library's callback, and the watch would go on.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    cluster = connect(target.access)
    printer: ChangePrinter | None = None

    def say(line: str) -> None:
        print(f"{clock()} {line}", flush=True)

    awaited = -1
    for resource in follow(cluster, target.name, say, lambda: connect(target.access)):
        steps = resource.plan
        printer = printer or ChangePrinter(resource.full_name)
        printer.update(resource.status, steps)
        if not resource.seen and resource.generation != awaited:
            awaited = resource.generation  # printed once for each
            first = resource.status.observed_generation == 0
            say("waiting for the operator to reconcile " + ("it" if first else "its newest spec"))
        if resource.ended:
            return ended_in_cluster(target, resource)
    raise AssertionError("a run is followed until it ends or an error does")


def ended_in_cluster(target: ClusterRun, resource: Resource) -> int:
    """Say how the run ended; returns the exit code."""
    failed = next((step.name for step in resource.status.steps if step.state == "Failed"), None)
    hint = f"its log: `{target.access.command('logs', target.name, failed)}`" if failed else ""
    return conclude(resource.status, resource.plan, hint)


def follow(
    cluster: Cluster, name: str, say: Callable[[str], None], reconnect: Callable[[], Cluster]
) -> Iterator[Resource]:
    """The run as it is, and again whenever it may have changed; through lost connections and expired versions.

    Raises:
        InputError: it was deleted, or a right is missing: nothing that waiting heals.
    """
    uid, tries = "", 0
    may_watch, watched = True, False
    refused_since: float | None = None
    deleted = Deleted(f"run {cluster.namespace}/{name} was deleted")
    while True:
        begun, fetched = time.monotonic(), False
        try:
            resource = cluster.run(name)
            if uid not in ("", resource.uid):
                raise Deleted(f"{deleted}, and another one has its name now")
            if tries:
                say("connected again")
            uid, tries, refused_since, fetched = resource.uid, 0, None, True
            yield resource
            if may_watch:
                changes = cluster.changes(name, resource.version)
                watched = True
                for change in changes:
                    if change is None:
                        raise deleted
                    yield change
        except Expired:
            pass  # too old to watch from: read it again
        except Deleted:
            raise
        except NotFound:
            if uid:
                raise deleted from None
            raise
        except (Forbidden, Unauthorized) as error:
            if fetched and not watched:
                may_watch = False
                say(f"{brief(error)}; polling every {RELIST_S:.0f} s instead")
            elif uid and (refused_since is None or begun - refused_since < REFUSED_S):
                # An API server that has just started knows nobody's rights for a moment, and a token may have run out.
                refused_since = refused_since or begun
                cluster = reconnect()
            else:
                raise
        except ServiceError as error:
            if not uid:
                raise
            if not tries:
                say(f"{brief(error)}; going on when it answers")
            time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1
            continue
        pause = RELIST_S if not may_watch else REWATCH_S
        time.sleep(max(0.0, pause - (time.monotonic() - begun)))


# --- on this machine --------------------------------------------------------------------------------------------------


def watch_local(manifest: Path, *, storage: str | None, workdir: Path) -> int:
    """Follow what a `selfevo run` elsewhere on this machine records; returns the exit code."""
    command = command_for(manifest, storage, workdir)
    return watch_record(load(manifest, storage=storage, cache=workdir), workdir, command)


def watch_record(run: SelfEvolutionRun, workdir: Path, command: str = "") -> int:
    """The same for a run that is known; returns the exit code.

    Args:
        command: What makes it go on; the one that drives it now, when not given.
    """
    folder = RunFolder(workdir, run.metadata)
    planned: tuple[object, Plan] | None = None
    printer = ChangePrinter(folder.name, PROGRESS_S)
    command = command or command_of(folder.driver())
    expect_driver(folder, command)
    while True:
        driver = folder.driver()
        record = folder.read()  # after the driver: whoever is gone has written its last
        status = record.status if record else None
        if driver is None and status is None:
            expect_driver(folder, command)
        if status is not None:
            if planned is None or planned[0] != decided(status):
                planned = decided(status), plan_of(run.spec, status)
            printer.update(status, planned[1])
        if driver is None and status is not None:
            break
        time.sleep(POLL_S)
    return ended_local(run, folder, status, planned[1] if planned else None, command)


def expect_driver(folder: RunFolder, command: str) -> None:
    """Raises InputError when there is nothing to follow: nobody drives the run, and it has not ended."""
    driver = folder.driver()
    record = folder.read()  # after the driver: whoever is gone has written its last
    status = record.status if record else None
    if driver is None and (status is None or status.phase not in ("Succeeded", "Failed")):
        raise InputError(f"run {folder.name} is not being driven; `{command}` starts it or goes on")


def ended_local(
    run: SelfEvolutionRun, folder: RunFolder, status: RunStatus, steps: Plan | None, command: str = PLAIN
) -> int:
    """Say how it ended, or that nobody drives it any more; returns the exit code."""
    if status.phase in ("Succeeded", "Failed"):
        failed = next((step.name for step in status.steps if step.state == "Failed"), None)
        logs = [attempt.log for attempt in status.attempts if attempt.step == failed and attempt.log]
        return conclude(status, steps, f"its log is {logs[-1]}" if logs else "")
    first = "`selfevo approve` lets it go on, and " if narrate.awaits_review(status) else ""
    line = f"not being driven any more, {narrate.counts(status, steps)}; {first}`{command}` goes on"
    ChangePrinter(folder.name).say(line)
    if status.phase != "Suspended":
        return int(ExitCode.SERVICE)  # killed
    return int(ExitCode.DONE) if run.spec.suspend or not narrate.held_by_spec(status) else INTERRUPTED
