"""`selfevo watch` in a terminal: the screen, and after it the words and the exit code that it has without one."""

from __future__ import annotations

from pathlib import Path

from selfevo.documents import INTERRUPTED
from selfevo.local.going_on import command_for, command_of
from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.target import ClusterRun
from selfevo.verbs.watch import ended_in_cluster, ended_local, expect_driver
from selfevo.watching.cluster import ClusterSource
from selfevo.watching.keys import INTERRUPT
from selfevo.watching.local import LocalSource
from selfevo.watching.screen import show
from selfevo_contract.run import SelfEvolutionRun


def screen_cluster(target: ClusterRun) -> int:
    """Show the run to its end; returns the exit code."""
    source = ClusterSource(target)
    left = show(source)
    if source.error is not None:
        raise source.error
    if left is not None:
        return _left(left)
    assert source.resource is not None  # a run is followed until it ends or an error does
    return ended_in_cluster(target, source.resource)


def screen_local(manifest: Path, *, storage: str | None, workdir: Path) -> int:
    """Show what a `selfevo run` elsewhere on this machine does; returns the exit code."""
    command = command_for(manifest, storage, workdir)
    return screen_record(load(manifest, storage=storage, cache=workdir), workdir, command)


def screen_record(run: SelfEvolutionRun, workdir: Path, command: str = "") -> int:
    """The same for a run that is known; returns the exit code.

    Args:
        command: What makes it go on; the one that drives it now, when not given.
    """
    folder = RunFolder(workdir, run.metadata)
    command = command or command_of(folder.driver())
    expect_driver(folder, command)
    source = LocalSource(run, workdir, command)
    left = show(source)
    if source.error is not None:
        raise source.error
    if left is not None:
        return _left(left)
    return ended_local(run, folder, source.scene.status, source.scene.plan, command)


def _left(by: str | int) -> int:
    """The exit code of whoever did not stay to the end."""
    if isinstance(by, int):
        return 128 + by
    return INTERRUPTED if by == INTERRUPT else 0
