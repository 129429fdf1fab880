"""The command `selfevo`. Options are here; what a verb does is in a module of its own, imported when it is used."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from selfevo.options import (
    DEFAULT_WORKDIR,
    Context,
    InCluster,
    Kubeconfig,
    Manifest,
    Namespace,
    Output,
    OutputOption,
    Role,
    RoleOption,
    Storage,
    Target,
    Workdir,
)
from selfevo.target import ClusterRun, access_of, find, is_plugin, program
from selfevo.ui.command import ui
from selfevo.verbs.approve import approve
from selfevo.verbs.data import data
from selfevo.verbs.explain import explain
from selfevo.verbs.fork import fork
from selfevo.verbs.grade import grade, vote
from selfevo.verbs.init import init
from selfevo.verbs.report_command import report
from selfevo.verbs.rows import rows
from selfevo.verbs.size import size
from selfevo.verbs.sweep import sweep
from selfevo.watching.command import watch
from selfevo_contract.errors import InputError, SelfevoError

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from selfevo_contract.version import selfevo_version

        typer.echo(f"selfevo {selfevo_version()}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Self-evolution training of language models, from one manifest."""


@app.command()
def run(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Shards of a step that are made at once; one a CPU by default."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    cold: Annotated[
        bool,
        typer.Option("--cold", help="Start each process anew, not forked from one that has torch loaded: slower."),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Where spec.review lets an iteration wait, stay and go on when it is approved."),
    ] = False,
) -> None:
    """Train: do every step of the run on this machine, or go on where it was left."""
    from selfevo import api
    from selfevo.documents import each_run

    def do(name: str | None) -> int:
        try:
            api.run(
                manifest,
                name=name,
                storage=storage,
                workdir=workdir,
                workers=workers,
                quiet=quiet,
                cold=cold,
                wait=wait,
            )
        except api.RunFailed as failed:  # standard error has why
            return failed.code
        return 0

    raise typer.Exit(each_run(manifest, do, quiet))


@app.command()
def plan(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    output: OutputOption = Output.table,
) -> None:
    """Show the steps, their keys, and which of them the store has already."""
    from selfevo.documents import each_run
    from selfevo.verbs.show import show_plan

    as_json = output is Output.json

    def do(name: str | None) -> None:
        show_plan(manifest, name=name, storage=storage, workdir=workdir, as_json=as_json)

    raise typer.Exit(each_run(manifest, do, quiet=as_json))


@app.command()
def status(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A manifest, for the run on this machine, or a run's name in a cluster; without it, the runs here, or "
            "with -n or -A those of a cluster.",
        ),
    ] = None,
    namespace: Namespace = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="List the runs of the whole cluster.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    output: OutputOption = Output.table,
) -> None:
    """Show where the run stands."""
    access = access_of(cluster, namespace, context, kubeconfig)
    as_json = output is Output.json
    if target is None or all_namespaces:
        if target is not None:
            raise InputError(f"-A lists all runs, and {target} names one; leave one of them out")
        if not (all_namespaces or access.cluster or access.given()):
            from selfevo.verbs.local_runs import show_local_runs

            show_local_runs(workdir, as_json=as_json)
            return
        from selfevo.verbs.cluster_show import show_runs

        show_runs(access, all_namespaces=all_namespaces, as_json=as_json)
        return
    found = find(target, access, storage)
    if isinstance(found, Path):
        from selfevo.verbs.show import show_status

        show_status(found, storage=storage, workdir=workdir, as_json=as_json)
        return
    from selfevo.verbs.cluster_show import show_run

    show_run(found, as_json=as_json)


app.command()(watch)


@app.command()
def logs(
    target: Target,
    step: Annotated[str | None, typer.Argument(metavar="STEP", help="For example solver-train-1.")] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Which attempt; the newest by default.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt has ended.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Print the log of a step's newest attempt."""
    found = find(target, access_of(cluster, namespace, context, kubeconfig), storage)
    if isinstance(found, Path):
        from selfevo.verbs.show import show_logs

        show_logs(found, step, storage=storage, workdir=workdir, attempt=attempt, follow=follow)
        return
    from selfevo.verbs.cluster_logs import show_logs as show_cluster_logs

    show_cluster_logs(found, step, attempt=attempt, follow=follow)


@app.command()
def suspend(
    target: Target,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Let the run rest: what runs stops and keeps its last checkpoint, nothing new starts."""
    _switch(find(target, access_of(cluster, namespace, context, kubeconfig), storage), True, storage, workdir)


@app.command()
def resume(
    target: Target,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Let a suspended run go on from where it was."""
    _switch(find(target, access_of(cluster, namespace, context, kubeconfig), storage), False, storage, workdir)


app.command()(approve)
app.command()(fork)
app.command()(sweep)


def _switch(found: Path | ClusterRun, suspend: bool, storage: str | None, workdir: Path) -> None:
    from selfevo.verbs.cluster_switch import explain_local, switch

    if isinstance(found, Path):
        raise explain_local(found, suspend, storage=storage, workdir=workdir)
    switch(found, suspend)


app.command()(report)
app.command()(ui)
app.command()(explain)
app.command()(size)
app.command()(init)
app.command(context_settings={"ignore_unknown_options": True})(grade)  # "-3" is an answer
app.command()(vote)
app.add_typer(data, name="data")

artifacts = typer.Typer(help="Inspect the object store.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(artifacts, name="artifacts")
artifacts.command("rows")(rows)

Iteration = Annotated[str, typer.Option(metavar="best|N", help="Of which iteration; 0 is the base.")]


@artifacts.command("ls")
def artifacts_ls(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    output: OutputOption = Output.table,
) -> None:
    """List the outputs that are committed."""
    from selfevo.verbs.artifacts import list_artifacts

    list_artifacts(manifest, storage=storage, workdir=workdir, as_json=output is Output.json)


@artifacts.command("path")
def artifacts_path(
    manifest: Manifest,
    iteration: Iteration = "best",
    role: RoleOption = Role.solver,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Print a model's URI, and nothing else."""
    from selfevo.verbs.artifacts import model_path

    typer.echo(model_path(manifest, iteration=iteration, role=role.value, storage=storage, workdir=workdir))


@artifacts.command("fetch")
def artifacts_fetch(
    manifest: Manifest,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the model's files.")],
    iteration: Iteration = "best",
    role: RoleOption = Role.solver,
    merge: Annotated[bool, typer.Option("--merge", help="Write an adapter as whole weights, with its base.")] = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Copy a model's files to a folder that transformers can load, checking every digest."""
    from selfevo.verbs.artifacts import fetch_model

    uri, count = fetch_model(
        manifest, iteration=iteration, role=role.value, to=to, merge=merge, storage=storage, workdir=workdir
    )
    typer.echo(f"{to} holds the {count} files of {uri}")


@artifacts.command("verify")
def artifacts_verify(manifest: Manifest, storage: Storage = None, workdir: Workdir = DEFAULT_WORKDIR) -> None:
    """Read every file of every committed step and check its digest; exit code 4 when one is damaged."""
    from selfevo.verbs.artifacts import verify

    raise typer.Exit(verify(manifest, storage=storage, workdir=workdir))


@artifacts.command("digest")
def artifacts_digest(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with a model, or a data file.")],
) -> None:
    """Print the digest that spec.model.digest or a data digest takes."""
    from selfevo.verbs.artifacts import digest_of

    typer.echo(digest_of(path))


def main() -> None:
    """Run a verb. An error is one sentence on standard error and an exit code; SELFEVO_DEBUG=1 adds the traceback."""
    try:
        app(prog_name=program() if is_plugin() else None)
    except SelfevoError as error:
        _print_error(error)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `selfevo plan ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("SELFEVO_DEBUG"):
            raise
        print(
            f"selfevo: unexpected {type(error).__name__}: {error}; this is a defect, SELFEVO_DEBUG=1 shows where",
            file=sys.stderr,
        )
        sys.exit(1)


def _print_error(error: SelfevoError) -> None:
    if os.environ.get("SELFEVO_DEBUG"):
        import traceback

        traceback.print_exc()
    from selfevo.text import flowed, printable, width

    for line in str(error).splitlines():
        print(flowed(f"selfevo: {printable(line)}", width(sys.stderr)), file=sys.stderr)


if __name__ == "__main__":
    main()
