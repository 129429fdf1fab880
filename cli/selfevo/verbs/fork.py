"""`selfevo fork`: a manifest of a new run that goes on from an iteration of one that is there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfevo.options import DEFAULT_WORKDIR, Context, InCluster, Kubeconfig, Namespace, Storage, Target, Workdir
from selfevo.target import access_of, find
from selfevo_contract.errors import InputError

if TYPE_CHECKING:
    from selfevo_contract.run import SelfEvolutionRun
    from selfevo_contract.spec.run import RunSpec

_NOT_TAKEN_OVER = ("approvedIteration", "suspend", "forkFrom", "publish")
"""Fields about the run's state, not about what it computes; and where it publishes, where another run's Solver of the
same iteration would be refused."""


def fork(
    target: Target,
    at: Annotated[int, typer.Option("--at", metavar="N", min=0, help="The iteration to go on from; 0 is the base.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the manifest goes; - prints it.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The new run's name; the old one's with -fork-N by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where there is one.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Write a manifest of a run that goes on from an iteration of this one, to be edited."""
    import yaml

    found = find(target, access_of(cluster, namespace, context, kubeconfig), storage)
    if isinstance(found, Path):
        run, begin = _recorded(found, storage, workdir), f"selfevo run {shlex.quote(str(output))}"
    else:
        from selfevo.cluster.connection import connect

        resource = connect(found.access).run(found.name)
        if resource.run is None:
            raise InputError(
                f"run {resource.full_name} has a spec that this selfevo does not understand; use the one that it is "
                "written for"
            )
        run = resource.run.model_copy(update={"status": resource.status})
        begin = f"kubectl apply -f {shlex.quote(str(output))}"
    made = forked(run, at, name)
    notes = _notes(run, made)
    text = yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100)
    if output == Path("-"):
        typer.echo(text, nl=False)
    else:
        _write(output, text, force)
        typer.echo(f"{output} goes on from iteration {at} of run {run.metadata.name}; edit it, then `{begin}`")
    for note in notes:
        typer.echo(f"selfevo: {made['metadata']['name']}: {note}", err=True)


def _notes(run: SelfEvolutionRun, made: dict[str, Any]) -> list[str]:
    """What to know of ``made``, a fork's manifest, by the record of ``run``, which it goes on from: why it does not
    begin yet, which is no reason to write none, and what it did not take over."""
    from selfevo_contract.run import SelfEvolutionRun
    from selfevo_core.policies import NotFound
    from selfevo_core.policies.forking import beginning_of

    found, publish = beginning_of(SelfEvolutionRun.model_validate(made), run), run.spec.publish
    notes = [found.message] if isinstance(found, NotFound) else []
    if publish is not None:
        notes.append(
            "spec.publish is not taken over; to publish this run's Solvers, too, add it again, with another place than "
            f"{publish.to} where run {run.metadata.name} publishes the same iterations"
        )
    return notes


def _recorded(manifest: Path, storage: str | None, workdir: Path) -> SelfEvolutionRun:
    """The run as it was driven on this machine: its record has every path in full, and every digest."""
    from selfevo.local.workdir import RunFolder
    from selfevo.manifest import load

    run = load(manifest, storage=storage, cache=workdir)
    folder = RunFolder(workdir, run.metadata)
    known = folder.read()
    if known is None:
        raise InputError(
            f"{folder.root} has no record of run {folder.name}; `selfevo run` it first, or name its --workdir"
        )
    return known


def forked(run: SelfEvolutionRun, at: int, name: str | None = None) -> dict[str, Any]:
    """The manifest: the same spec without the fields about the run's state, and without publish. Pure.

    Raises:
        InputError: the run has no such iteration, none may follow it, or the name is none.
    """
    from pydantic import TypeAdapter, ValidationError

    from selfevo_contract.run import API_VERSION, KIND
    from selfevo_contract.spec.fork import MOST_ITERATIONS
    from selfevo_contract.spec.names import DnsLabel

    old, spec = run.metadata.name, run.spec
    if at > spec.iterations:
        raise InputError(
            f"--at is {at}, and run {old} has {spec.iterations} iterations; name one of them, or raise its "
            "spec.iterations first"
        )
    if at >= MOST_ITERATIONS:
        raise InputError(
            f"--at is {at}, and a run has at most {MOST_ITERATIONS} iterations, those before a fork counted; name an "
            "earlier one"
        )
    if spec.fork_from is not None and at < spec.fork_from.iteration:
        raise InputError(
            f"--at is {at}, and run {old} goes on from iteration {spec.fork_from.iteration} of run "
            f"{spec.fork_from.run}; fork that one, or name a later iteration"
        )
    new = name or f"{old[: 63 - len(f'-fork-{at}')]}-fork-{at}"
    try:
        TypeAdapter(DnsLabel).validate_python(new)
    except ValidationError:
        raise InputError(f"--name is {new!r}; write at most 63 of a-z, 0-9 and '-'") from None
    if new == old:
        raise InputError(f"--name is {new!r}, the run that is forked; choose another")
    written = _as_written(spec)
    kept = {field: value for field, value in written.items() if field not in _NOT_TAKEN_OVER}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": new, "namespace": run.metadata.namespace},
        "spec": {
            "forkFrom": {"run": old, "iteration": at},
            **kept,
            "iterations": max(spec.iterations, at + 1),
        },
    }


def _as_written(spec: RunSpec) -> dict[str, Any]:
    """The spec without what it would say anyway."""
    everything = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    brief: dict[str, Any] = _with_kinds(
        spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True), everything
    )
    return brief if type(spec).model_validate(brief) == spec else everything


def _with_kinds(brief: Any, everything: Any) -> Any:
    """``brief`` with each ``kind``, which tells what the other fields are, also where it is the usual one."""
    if isinstance(brief, list):
        return [_with_kinds(*pair) for pair in zip(brief, everything, strict=True)]
    if not isinstance(brief, dict):
        return brief
    kind = {"kind": everything["kind"]} if "kind" in everything else {}
    return {**kind, **{name: _with_kinds(value, everything[name]) for name, value in brief.items()}}


def _write(path: Path, text: str, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"-o {path} is there already; name another file, or add --force to replace it") from None
    except OSError as error:
        raise InputError(f"-o {path} cannot be written ({error.strerror}); name another file") from None
