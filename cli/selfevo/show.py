"""The verbs that look and change nothing: plan, status, logs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfevo import narrate
from selfevo.manifest import load
from selfevo.stores import committed_steps, open_run_store, recorded
from selfevo.text import aligned, printable, seconds
from selfevo.workdir import RunFolder
from selfevo_contract.artifacts import step_uri
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import AttemptStatus, RunStatus, StepStatus
from selfevo_operator.reconcile import reconcile


def show_plan(manifest: Path, *, storage: str | None, workdir: Path, as_json: bool) -> None:
    """The steps of the run, their keys, and which of them the store has."""
    run = load(manifest, storage=storage, cache=workdir)
    steps = plan(run.spec)
    there = committed_steps(run, steps, open_run_store(run))
    if as_json:
        rows = [
            {
                "name": step.name,
                "phase": step.phase,
                "iteration": step.iteration,
                "key": step.key,
                "parents": list(step.parents),
                "shards": step.shards,
                "exists": step.name in there,
                "uri": step_uri(run.spec.storage.uri, run.metadata.namespace, step.phase, step.key),
            }
            for step in steps.steps
        ]
        _json({"run": _name(run), "storage": run.spec.storage.uri, "steps": rows})
        return
    table = [["step", "key", "in store", "waits for"]]
    for step in steps.steps:
        table.append([step.name, step.key[:12], "yes" if step.name in there else "no", ", ".join(step.parents) or "-"])
    print(f"run {_name(run)}, store {run.spec.storage.uri}", *aligned(table), sep="\n")
    print(f"{len(there)} of {len(steps.steps)} steps are in the store")


def show_status(manifest: Path, *, storage: str | None, workdir: Path, as_json: bool) -> None:
    """Where the run stands: as it was recorded, or as the store tells when there is no record."""
    run = load(manifest, storage=storage, cache=workdir)
    steps = plan(run.spec)
    folder = RunFolder(workdir, run.metadata)
    driver = folder.driver()
    status = current_status(run, steps, folder, driver)
    if as_json:
        _json(status.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    if driver is not None:
        by = f"driven by process {driver}"
    elif status.phase in ("Pending", "Running", "Suspended"):
        by = "not being driven; `selfevo run` goes on"
    else:
        by = ""
    head = f"run {_name(run)}: {status.phase}, {narrate.counts(status, steps)}"
    print(head + (f" ({by})" if by else ""))
    failed = next((c for c in status.conditions if c.type == "Failed" and c.status == "True"), None)
    if failed is not None:
        print(f"{failed.reason}: {printable(failed.message)}")
    records = {step.name: step for step in status.steps}
    rows = [_status_row(step.name, records.get(step.name)) for step in steps.steps]
    print("", *aligned([("step", "state", "took", "attempts", ""), *rows], right=(2, 3)), sep="\n")
    print(*(narrate.table_lines(status) or [""]), sep="\n")
    if status.model_uri:
        print(f"best model: {status.model_uri}")


def current_status(run: SelfEvolutionRun, steps: Plan, folder: RunFolder, driver: int | None = None) -> RunStatus:
    """What is recorded, brought into agreement with the store unless somebody is at work on it."""
    before = folder.read()
    if before is not None and before.status is not None and driver is not None:
        return before.status
    status = recorded(before.status if before else None, steps, committed_steps(run, steps, open_run_store(run)))
    # As if nothing had changed: a look is no answer to a failure.
    metadata = run.metadata.model_copy(update={"generation": status.observed_generation})
    run = run.model_copy(update={"metadata": metadata, "status": status})
    return reconcile(run, steps, [], datetime.now(UTC)).status


def show_logs(manifest: Path, step: str | None, *, storage: str | None, workdir: Path, attempt: int | None) -> None:
    """What the newest attempt at ``step`` (of the run, when not given) said."""
    run = load(manifest, storage=storage, cache=workdir)
    steps = plan(run.spec)
    if step is not None and step not in steps.by_name:
        raise InputError(f"{step!r} is no step of the run; choose one of {', '.join(steps.by_name)}")
    folder = RunFolder(workdir, run.metadata)
    before = folder.read()
    attempts = [
        known
        for known in (before.status.attempts if before and before.status else [])
        if step in (None, known.step) and attempt in (None, known.attempt)
    ]
    files = _log_files(folder, attempts[-1]) if attempts else []
    if not files:
        what = f"{step or 'the run'}" + (f", attempt {attempt}" if attempt is not None else "")
        raise InputError(f"there is no log of {what} in {folder.logs}; name another step or another --workdir")
    for file in files:
        if len(files) > 1:
            print(f"==> {file} <==")
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                text = line.rstrip("\n")
                # A terminal obeys escape sequences, and a log may quote what a model wrote.
                print(printable(text) if sys.stdout.isatty() else text)


def _log_files(folder: RunFolder, attempt: AttemptStatus) -> list[Path]:
    """The log of an attempt, or one for each of its shards."""
    single = folder.logs / f"{attempt.name}.log"
    if single.is_file():
        return [single]
    shards = [path for path in folder.logs.glob(f"{attempt.name}.*.log") if path.suffixes[-2][1:].isdigit()]
    return sorted(shards, key=lambda path: int(path.suffixes[-2][1:]))


def _status_row(name: str, step: StepStatus | None) -> tuple[str, ...]:
    if step is None:
        return name, "-", "-", "-", ""
    spent = narrate.duration(step)
    took = "stored" if step.reused else "-" if spent is None else seconds(spent)
    said = narrate.highlights(step) if step.state == "Succeeded" else printable(step.message)
    return name, step.state, took, str(step.attempts or "-"), said


def _name(run: SelfEvolutionRun) -> str:
    return f"{run.metadata.namespace}/{run.metadata.name}"


def _json(value: Any) -> None:
    print(json.dumps(value, indent=2))
