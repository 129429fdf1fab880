"""`selfevo approve`: a person lets an iteration begin that waits for it (spec.review)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Context, InCluster, Kubeconfig, Namespace, Storage, Target, Workdir
from selfevo.target import ClusterRun, access_of, find
from selfevo_contract.errors import InputError

if TYPE_CHECKING:
    from selfevo.local.workdir import RunFolder
    from selfevo_contract.run import SelfEvolutionRun
    from selfevo_contract.spec.run import RunSpec


def approve(
    target: Target,
    iteration: Annotated[
        int | None, typer.Option(metavar="N", help="The last iteration that may begin; the one that waits by default.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    cluster: InCluster = False,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Let an iteration begin that waits for a person."""
    found = find(target, access_of(cluster, namespace, context, kubeconfig), storage)
    if isinstance(found, Path):
        from selfevo.local.workdir import RunFolder
        from selfevo.manifest import load

        run = load(found, storage=storage, cache=workdir)
        typer.echo(approve_here(RunFolder(workdir, run.metadata), run, iteration, shlex.quote(str(found))))
        return
    typer.echo(approve_in_cluster(found, iteration))


def approve_here(folder: RunFolder, run: SelfEvolutionRun, iteration: int | None, manifest: str = "") -> str:
    """Record an approval of a run on this machine, as the process that drives it knows the run, or as ``run`` says;
    returns what follows from it.

    Raises:
        InputError: there is nothing to approve, it is not in the plan, or it cannot be written.
    """
    from selfevo.local.approvals import Approvals

    driver, approvals = folder.driver(), Approvals(folder)
    if driver is not None:
        run = folder.read() or run
    name = f"run {folder.name}"
    number = approvable(approvals.obeyed(run).spec, iteration, name)
    approvals.approve(run, number)
    if driver is not None:
        return f"{name} may go on with iteration {number}; process {driver or 'of another user'} does"
    return f"{name} may go on with iteration {number}; `{f'selfevo run {manifest}'.rstrip()}` does"


def approve_in_cluster(target: ClusterRun, iteration: int | None) -> str:
    """Set ``spec.approvedIteration``; returns what follows from it.

    Raises:
        InputError: there is nothing to approve, or it is not in the plan.
    """
    from selfevo.cluster.connection import connect

    cluster = connect(target.access)
    before = cluster.run(target.name)
    name = f"run {before.full_name}"
    if before.run is None:
        raise InputError(f"{name} has a spec that this selfevo does not understand; use the one that it is written for")
    number = approvable(before.run.spec, iteration, name)
    cluster.approve(target.name, number)
    return f"{name} may go on with iteration {number}; `{target.access.command('watch', before.name)}` follows it"


def approvable(spec: RunSpec, iteration: int | None, name: str) -> int:
    """The iteration to approve. Pure.

    Raises:
        InputError: there is nothing to approve, or it is not in the plan.
    """
    from selfevo_core.policies.review import awaited, reviewed

    if spec.review is None:
        raise InputError(f"{name} waits for nobody: it has no spec.review; add it to have iterations wait")
    waits = awaited(spec)
    if iteration is not None and iteration > spec.iterations:
        raise InputError(
            f"--iteration is {iteration}, and {name} has {spec.iterations} iterations; name one of them, or raise "
            "spec.iterations first"
        )
    if waits is None:
        why = "all that spec.review names is approved" if reviewed(spec) else "spec.review names none of its iterations"
        raise InputError(f"{name} waits for no approval: {why}; add to spec.review")
    if iteration is not None and iteration < waits:
        raise InputError(f"--iteration is {iteration}, and {name} waits at iteration {waits}; name that or a later one")
    return waits if iteration is None else iteration
