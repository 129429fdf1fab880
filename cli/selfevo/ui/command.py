"""`selfevo ui`: pages on the runs of this machine, until Ctrl-C."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Context, Kubeconfig, Namespace, Storage, Workdir
from selfevo.target import access_of, program
from selfevo_contract.errors import InputError

_PARTS = ("starlette", "uvicorn", "duckdb", "plotly", "jinja2", "markupsafe")
ADDRESS = "127.0.0.1"


def ui(
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MANIFEST]...", help="Runs that --workdir has no record of, or not as they are here."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="At 127.0.0.1; 0 takes any that is free.")
    ] = 8321,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the runs in a browser: curves, settings, every question with its votes. Read-only, on this machine alone.

    With -n NAMESPACE (or --context, --kubeconfig) the runs are those of a cluster's namespace.
    """
    access = access_of(False, namespace, context, kubeconfig)
    if (access.cluster or access.given()) and (manifests or storage):
        what = f"--storage {storage}" if storage else str(manifests[0]) if manifests else ""
        raise InputError(f"{what} and {access.given() or program()} name runs of two places; leave out one of them")
    try:
        from selfevo.ui.app import app_of
        from selfevo.ui.runs import Runs
        from selfevo.ui.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PARTS:
            raise
        raise InputError(
            f"the pages need the package {error.name}, which is not installed; pip install 'selfevo[ui]'"
        ) from None
    if access.cluster or access.given():
        from selfevo.cluster.connection import connect
        from selfevo.ui.cluster_runs import ClusterRuns

        runs: Runs = ClusterRuns(connect(access), workdir)
    else:
        from selfevo.manifest import load, runs_in

        named = [
            load(path, name=name, storage=storage, cache=workdir) for path in manifests or () for name in runs_in(path)
        ]
        runs = Runs(workdir, named)
    app = app_of(runs)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(f"--port {port} cannot be opened ({error.strerror}); name another one, or 0") from None
        typer.echo(f"http://{ADDRESS}:{listening.getsockname()[1]} shows the runs; Ctrl-C ends it")
        serve(app, listening)
