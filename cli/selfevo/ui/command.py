"""`selfevo ui`: pages on the runs of this machine, of a store or of a cluster, until Ctrl-C."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Context, Kubeconfig, Namespace, Storage, Workdir
from selfevo.target import Access, access_of, is_store, program
from selfevo_contract.errors import InputError

if TYPE_CHECKING:
    from selfevo.ui.runs import Runs

_PARTS = ("starlette", "uvicorn", "duckdb", "plotly", "jinja2", "markupsafe")
ADDRESS = "127.0.0.1"


def ui(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STORE|MANIFEST]...",
            help="Stores (s3://, file:///, or a folder), whose runs are shown; or manifests of runs that --workdir has "
            "no record of, or not as they are here.",
        ),
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

    With a STORE the runs are those that have left a record in it. With -n NAMESPACE (or --context, --kubeconfig) they
    are those of a cluster's namespace.
    """
    access = access_of(False, namespace, context, kubeconfig)
    stores = _one_place(access, places or [], storage)
    try:
        from selfevo.ui.app import app_of
        from selfevo.ui.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PARTS:
            raise
        raise InputError(
            f"the pages need the package {error.name}, which is not installed; pip install 'selfevo[ui]'"
        ) from None
    app = app_of(_runs(access, stores, places or [], storage, workdir))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(f"--port {port} cannot be opened ({error.strerror}); name another one, or 0") from None
        typer.echo(f"http://{ADDRESS}:{listening.getsockname()[1]} shows the runs; Ctrl-C ends it")
        serve(app, listening)


def _one_place(access: Access, places: list[str], storage: str | None) -> list[str]:
    """Those of ``places`` that are stores.

    Raises:
        InputError: runs of two places are named.
    """
    if (access.cluster or access.given()) and (places or storage):
        what = f"--storage {storage}" if storage else places[0]
        raise InputError(f"{what} and {access.given() or program()} name runs of two places; leave out one of them")
    stores = [place for place in places if is_store(place)]
    others = [f"--storage {storage}"] if storage else [place for place in places if place not in stores]
    if stores and others:
        raise InputError(
            f"{stores[0]} is a store, whose runs are all shown, and {others[0]} names others; leave out one"
        )
    return stores


def _runs(access: Access, stores: list[str], manifests: list[str], storage: str | None, workdir: Path) -> Runs:
    """Those of the one place that is meant."""
    if access.cluster or access.given():
        from selfevo.cluster.connection import connect
        from selfevo.ui.cluster_runs import ClusterRuns

        return ClusterRuns(connect(access), workdir)
    if stores:
        return _of_stores(stores, workdir)
    from selfevo.manifest import load, runs_in
    from selfevo.ui.runs import Runs

    named = [
        load(path, name=name, storage=storage, cache=workdir) for path in map(Path, manifests) for name in runs_in(path)
    ]
    return Runs(workdir, named)


def _of_stores(places: list[str], workdir: Path) -> Runs:
    """Those of ``places``, which are listed at once: a wrong address is refused before anything is served."""
    from selfevo.manifest import store_of
    from selfevo.ui.store_runs import StoreRuns

    runs = StoreRuns([store_of(place) for place in places], workdir)
    runs.refresh()
    return runs
