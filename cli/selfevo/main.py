"""The command `selfevo`. Options are here; what a verb does is in a module of its own, imported when it is used."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from selfevo_contract.errors import SelfevoError

app = typer.Typer(
    help="Self-evolution training of language models, from one manifest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A SelfEvolutionRun, in YAML or JSON.")]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URI", help="Use this object store in place of spec.storage.uri: s3://, file:///, or a path."),
]
Workdir = Annotated[Path, typer.Option(metavar="DIR", help="Where status, logs and caches are kept.")]
DEFAULT_WORKDIR = Path(".selfevo")


class Output(StrEnum):
    table = "table"
    json = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]


@app.command()
def run(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Rollout shards that are generated at once; one a CPU by default."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train: do every step of the run on this machine, or go on where it was left."""
    from selfevo.run import run_manifest

    code = run_manifest(manifest, storage=storage, workdir=workdir, workers=workers, quiet=quiet)
    raise typer.Exit(code)


@app.command()
def plan(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    output: OutputOption = Output.table,
) -> None:
    """Show the steps, their keys, and which of them the store has already."""
    from selfevo.show import show_plan

    show_plan(manifest, storage=storage, workdir=workdir, as_json=output is Output.json)


@app.command()
def status(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    output: OutputOption = Output.table,
) -> None:
    """Show where the run stands."""
    from selfevo.show import show_status

    show_status(manifest, storage=storage, workdir=workdir, as_json=output is Output.json)


@app.command()
def logs(
    manifest: Manifest,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="For example solver-train-1.")] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Which attempt; the newest by default.")
    ] = None,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Print what a step's newest attempt said."""
    from selfevo.show import show_logs

    show_logs(manifest, step, storage=storage, workdir=workdir, attempt=attempt)


@app.command()
def report(
    manifest: Manifest,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")],
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Write one HTML file that says what happened: scores, curricula, rewards, samples, lineage."""
    from selfevo.manifest import load
    from selfevo.report import write_report
    from selfevo.stores import open_run_store
    from selfevo_contract.plan import plan

    run = load(manifest, storage=storage, cache=workdir)
    write_report(run, plan(run.spec), open_run_store(run), output)
    typer.echo(f"wrote {output}")


artifacts = typer.Typer(help="Look into the object store.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(artifacts, name="artifacts")

Iteration = Annotated[str, typer.Option(metavar="best|N", help="Of which iteration; 0 is the base.")]


class Role(StrEnum):
    solver = "solver"
    challenger = "challenger"


RoleOption = Annotated[Role, typer.Option(help="Whose model.")]


@artifacts.command("ls")
def artifacts_ls(
    manifest: Manifest,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    output: OutputOption = Output.table,
) -> None:
    """List the outputs that are committed."""
    from selfevo.artifacts import list_artifacts

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
    from selfevo.artifacts import model_path

    typer.echo(model_path(manifest, iteration=iteration, role=role.value, storage=storage, workdir=workdir))


@artifacts.command("fetch")
def artifacts_fetch(
    manifest: Manifest,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the model's files.")],
    iteration: Iteration = "best",
    role: RoleOption = Role.solver,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Copy a model's files to a folder that transformers can load, checking every digest."""
    from selfevo.artifacts import fetch_model

    uri, count = fetch_model(manifest, iteration=iteration, role=role.value, to=to, storage=storage, workdir=workdir)
    typer.echo(f"{to} holds the {count} files of {uri}")


@artifacts.command("verify")
def artifacts_verify(manifest: Manifest, storage: Storage = None, workdir: Workdir = DEFAULT_WORKDIR) -> None:
    """Read every file of every committed step and check its digest; exit code 4 when one is damaged."""
    from selfevo.artifacts import verify

    raise typer.Exit(verify(manifest, storage=storage, workdir=workdir))


@artifacts.command("digest")
def artifacts_digest(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with a model, or a data file.")],
) -> None:
    """Print the digest that spec.model.digest or a data digest takes."""
    from selfevo.artifacts import digest_of

    typer.echo(digest_of(path))


def main() -> None:
    """Run a verb. An error is one sentence on standard error and an exit code; SELFEVO_DEBUG=1 adds the traceback."""
    try:
        app()
    except SelfevoError as error:
        _tell(error)
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


def _tell(error: SelfevoError) -> None:
    if os.environ.get("SELFEVO_DEBUG"):
        import traceback

        traceback.print_exc()
    from selfevo.text import printable

    for line in str(error).splitlines():
        print(f"selfevo: {printable(line)}", file=sys.stderr)


if __name__ == "__main__":
    main()
