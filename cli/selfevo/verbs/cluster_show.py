"""`selfevo status` in a cluster: one run, or a table of all of them."""

from __future__ import annotations

from datetime import UTC, datetime

from selfevo.cluster.client import Resource
from selfevo.cluster.connection import connect
from selfevo.target import Access, ClusterRun
from selfevo.text import aligned, count, percent
from selfevo.verbs.show import print_json, print_status
from selfevo.views import narrate


def show_run(target: ClusterRun, *, as_json: bool) -> None:
    """Where the run stands, as its operator recorded it."""
    resource = connect(target.access).run(target.name)
    status = resource.status
    if as_json:
        print_json(status.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    budget = resource.run.spec.budget if resource.run else None
    print_status(
        resource.full_name,
        status,
        resource.plan,
        remark(resource, target.access),
        narrate.standing(status),
        budget=budget,
    )


def remark(resource: Resource, access: Access) -> str:
    """What the status alone does not tell. Pure."""
    status = resource.status
    if resource.deleting:
        return "being deleted"
    if status.observed_generation == 0:
        return "the operator has not reconciled it yet"
    if not resource.seen:
        return "the operator has not reconciled its newest spec yet"
    if status.phase == "Suspended" and narrate.held_by_spec(status):
        return f"`{access.command('resume', resource.name)}` goes on"
    return ""


def show_runs(access: Access, *, all_namespaces: bool, as_json: bool) -> None:
    """The runs of the namespace, or of the whole cluster."""
    cluster = connect(access)
    runs = cluster.runs(all_namespaces)
    if as_json:
        print_json([_row(run) for run in runs])
        return
    where = "the cluster" if all_namespaces else f"namespace {cluster.namespace}"
    if not runs:
        print(f"no runs in {where}")
        return
    head = ["namespace"] if all_namespaces else []
    table = [[*head, "name", "phase", "iteration", "best", "score", "queue", "age", ""]]
    for run in runs:
        of = f" of {run.run.spec.iterations}" if run.run else ""
        best = run.status.best
        table.append(
            [
                *([run.namespace] if all_namespaces else []),
                run.name,
                run.status.phase,
                f"{run.status.iteration}{of}",
                "-" if best is None else str(best.iteration),
                percent(best.score if best else None),
                run.queue or "-",
                _age(run.created),
                narrate.standing(run.status),
            ]
        )
    print(*aligned(table), sep="\n")
    print(f"{count(len(runs), 'run')} in {where}")


def _row(run: Resource) -> dict[str, object]:
    best = run.status.best
    return {
        "namespace": run.namespace,
        "name": run.name,
        "phase": run.status.phase,
        "iteration": run.status.iteration,
        "best": best.iteration if best else None,
        "score": best.score if best else None,
        "modelUri": run.status.model_uri,
        "queue": run.queue or None,
        "created": run.created,
        "why": narrate.standing(run.status) or None,
    }


def _age(created: str) -> str:
    """``8 s``, ``12 min``, ``5 h``, ``3 d``."""
    if not created:
        return "-"
    spent = max(0, int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()))
    unit, size = next(((u, s) for u, s in (("d", 86400), ("h", 3600), ("min", 60)) if spent >= 2 * s), ("s", 1))
    return f"{spent // size} {unit}"
