"""`selfevo watch`: its options, and whether a screen or lines suit where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Context, InCluster, Kubeconfig, Namespace, Storage, Workdir
from selfevo.target import access_of, find, program
from selfevo_contract.errors import InputError


def watch(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A manifest, for the run on this machine, or a run's name in a cluster; without it, the one that is "
            "being driven here.",
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    lines: Annotated[
        bool, typer.Option("--lines", help="Print a line for everything that happens, in a terminal too.")
    ] = False,
) -> None:
    """Show the run on one screen until it ends, with keys to suspend, resume and approve it; without a terminal, or
    with --lines, print a line for everything that happens. Ends with the exit code of `selfevo run`."""
    from selfevo.watching.keys import is_terminal

    on_screen = not lines and is_terminal()
    if on_screen:
        from selfevo.watching.session import screen_cluster as in_cluster
        from selfevo.watching.session import screen_local as of_manifest
        from selfevo.watching.session import screen_record as of_record
    else:
        from selfevo.verbs.watch import watch_cluster as in_cluster
        from selfevo.verbs.watch import watch_local as of_manifest
        from selfevo.verbs.watch import watch_record as of_record

    access = access_of(cluster, namespace, context, kubeconfig)
    if target is None:
        if access.cluster or access.given():
            raise InputError(f"name the run of the cluster; `{program()} status` lists them")
        from selfevo.verbs.local_runs import only_driven

        raise typer.Exit(of_record(only_driven(workdir), workdir))
    found = find(target, access, storage)
    if isinstance(found, Path):
        raise typer.Exit(of_manifest(found, storage=storage, workdir=workdir))
    raise typer.Exit(in_cluster(found))
