"""`selfevo suspend` and `selfevo resume`: one field of the spec, and what follows from it."""

from __future__ import annotations

import shlex
from pathlib import Path

from selfevo.cluster.client import Resource
from selfevo.cluster.connection import connect
from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.target import Access, ClusterRun
from selfevo.views import narrate
from selfevo_contract.errors import InputError


def switch(target: ClusterRun, suspend: bool) -> None:
    """Set ``spec.suspend``, unless it is so already or the run has ended, and say what happens next."""
    cluster = connect(target.access)
    before = cluster.run(target.name)
    change = before.suspend != suspend and not has_no_effect(before, suspend)
    if change:
        cluster.set_suspend(target.name, suspend)
    print(outcome(before, suspend, target.access))


def has_no_effect(run: Resource, suspend: bool) -> bool:
    """Whether nothing can come of it. A run that failed while it was suspended is another matter: a changed spec has
    what failed tried again."""
    return run.deleting or (run.ended and (suspend or run.status.phase == "Succeeded"))


def outcome(run: Resource, suspend: bool, access: Access) -> str:
    """The sentence about ``run`` as it was before. Pure."""
    status, name = run.status, f"run {run.full_name}"
    done = narrate.counts(status, run.plan)
    if run.deleting:
        return f"{name} is being deleted; nothing was changed"
    if run.ended and status.phase == "Succeeded":
        return f"{name} has ended, {done}; there is nothing to {'suspend' if suspend else 'resume'}"
    if run.ended and (suspend or not run.suspend):
        again = "there is nothing to suspend" if suspend else "a change of its spec has what failed tried again"
        why = narrate.standing(status)
        return f"{name} has failed{f' ({why})' if why else ''}; {again}"
    if suspend:
        back = f"`{access.command('resume', run.name)}` goes on"
        running = [step.name for step in status.steps if step.state == "Running"]
        if run.suspend:
            return f"{name} is suspended already, {done}; {back}"
        if running:
            return f"{name} is suspended: {', '.join(running)} stops now and resumes from its last checkpoint; {back}"
        return f"{name} is suspended, {done}; nothing new starts, {back}"
    follow = f"`{access.command('watch', run.name)}` follows it"
    if not run.suspend and status.phase == "Suspended":
        return f"{name} is not held by spec.suspend; {narrate.standing(status)}"
    if not run.suspend:
        return f"{name} is not suspended, {done}; {follow}"
    if run.ended:
        return f"{name} had failed; what failed is tried again, {follow}"
    return f"{name} goes on where it was stopped, {done}; {follow}"


def explain_local(manifest: Path, suspend: bool, *, storage: str | None, workdir: Path) -> InputError:
    """How a run on this machine is stopped and goes on: there is nobody who would read a switch."""
    run = load(manifest, storage=storage, cache=workdir)
    driver = RunFolder(workdir, run.metadata).driver()
    again = f"`selfevo run {shlex.quote(str(manifest))}` goes on"
    what = f"{manifest} is the run on this machine"
    if suspend and driver is None:
        return InputError(f"{what}, and nothing drives it now; {again}")
    if suspend:
        stop = f"kill -INT {driver}" if driver else "Ctrl-C"
        return InputError(f"{what}: Ctrl-C in its terminal, or `{stop}`, stops it at the next checkpoint, and {again}")
    if driver is not None:
        return InputError(f"{what}, and process {driver} drives it already; nothing is to be resumed")
    first = "set spec.suspend to false in it, then " if run.spec.suspend else ""
    return InputError(f"{what}: {first}{again}")
