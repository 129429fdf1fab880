"""The verbs that only read, for a run on this machine: plan, status, logs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfevo.local.approvals import Approvals
from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.stores import absent, committed_steps, open_run_store, recorded, recorded_plan
from selfevo.text import count, fitted, flowed, printable, seconds, width
from selfevo.views import narrate
from selfevo.views.hours import estimate_line, expected
from selfevo.views.judge import judge_json, judge_lines
from selfevo_contract.artifacts import Manifest, step_uri
from selfevo_contract.errors import InputError
from selfevo_contract.guard_signals import blind_guards, warning_guards
from selfevo_contract.plan import Plan, is_outdated, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.sizing.architecture import known
from selfevo_contract.sizing.engines import engines_of
from selfevo_contract.sizing.grace import grace_lines
from selfevo_contract.sizing.layout import layout_lines, layout_of
from selfevo_contract.spec.budget import Budget
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import AttemptStatus, RunStatus, StepStatus
from selfevo_core.policies.guarding import watching
from selfevo_core.policies.review import reviewed
from selfevo_core.reconcile import reconcile
from selfevo_core.usage import amounts

FOLLOW_S = 0.3
"""Between two reads of a log that is being written."""


def show_plan(manifest: Path, *, name: str | None = None, storage: str | None, workdir: Path, as_json: bool) -> None:
    """The steps of the run, their keys, and which of them the store has."""
    run = load(manifest, name=name, storage=storage, cache=workdir)
    folder = RunFolder(workdir, run.metadata)
    run, record = Approvals(folder).obeyed(run), folder.record(run)
    steps = plan_of(run.spec, record)
    there = committed_steps(run, steps, open_run_store(run), record)
    steps = steps.keeping(there)
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
        watched: dict[str, Any] = {
            "guards": [guard.name for guard in watching(run.spec)],
            "blindGuards": blind_guards(run.spec),
            "warningGuards": warning_guards(run.spec),
        }
        found, card = expected(run.spec, there)
        hours = found and {"hours": found.hours, "gpuHours": found.gpu_hours, "tokens": found.tokens, "card": card}
        watched["estimate"] = hours
        watched["shortGraces"] = _short_graces(run.spec)
        if (judge := judge_json(run.spec, there)) is not None:
            watched["judge"] = judge
        if record.fork is not None:
            watched["fork"] = record.fork.model_dump(mode="json", by_alias=True, exclude_none=True)
        if (layout := layout_of(run.spec)) is not None:
            watched["layout"] = layout.model_dump(mode="json", by_alias=True, exclude_none=True)
        if (engines := engines_of(run.spec)) is not None:
            watched["engines"] = engines.model_dump(mode="json", by_alias=True, exclude_none=True)
        print_json({"run": _name(run), "storage": run.spec.storage.uri, "steps": rows, **watched})
        return
    table = [["step", "key", "in store", "waits for"]]
    for step in steps.steps:
        table.append([step.name, step.key[:12], "yes" if step.name in there else "no", ", ".join(step.parents) or "-"])
    remark = absent(run)
    columns = width()
    print(flowed(f"run {_name(run)}, store {run.spec.storage.uri}" + (f" ({remark})" if remark else ""), columns))
    print(*fitted(table, (), columns), sep="\n")
    print(f"{len(there)} of {len(steps.steps)} steps are in the store")
    for line in (
        *narrate.fork_lines(record),
        *layout_lines(run.spec),
        *_guards(run),
        *_budget_lines(run.spec.budget),
        *_estimate(run.spec, there),
        *judge_lines(run.spec, there),
        *_short_graces(run.spec),
        *review_lines(run.spec),
    ):
        print(flowed(line, columns))


def _short_graces(spec: RunSpec) -> list[str]:
    """Trainings whose pods have no time to upload a checkpoint after SIGTERM; none where the model's sizes are not
    known."""
    model = known(spec.model.uri)
    return [] if model is None else list(grace_lines(spec, model))


def _guards(run: SelfEvolutionRun) -> list[str]:
    """Which guards watch the run, which of them never see anything, and which never act."""
    if run.spec.guards is None:
        return []
    blind = blind_guards(run.spec)
    seeing = [guard.name for guard in watching(run.spec) if guard.name not in blind]
    return [
        f"guards: {', '.join(seeing) or 'none'}",
        *(f"guard {name} will be blind: {why}" for name, why in blind.items()),
        *(f"guard {name} may warn and will never act: {why}" for name, why in warning_guards(run.spec).items()),
    ]


def review_lines(spec: RunSpec) -> list[str]:
    """Before which iterations the run waits for a person, and which of those that review names it does not have."""
    if spec.review is None:
        return []
    waiting, named = reviewed(spec), sorted(spec.review.before)
    approved = "none is"
    if waiting and (spec.approved_iteration or 0) >= waiting[0]:
        approved = f"up to {spec.approved_iteration} they are"
    lines = [f"waits before iteration {_listed(waiting)}; {approved} approved"] if waiting else ["waits for nobody"]
    begins = spec.fork_from.iteration if spec.fork_from is not None else 0
    if beyond := [number for number in named if number > spec.iterations]:
        lines.append(f"before names {_listed(beyond)}, beyond the {count(spec.iterations, 'iteration')} of the run")
    if before := [number for number in named if number <= begins]:
        lines.append(f"before names {_listed(before)}, not after iteration {begins}, which the run goes on from")
    return [f"review: {line}" for line in lines]


def _listed(iterations: Sequence[int]) -> str:
    return ", ".join(map(str, iterations))


def _budget_lines(budget: Budget | None) -> list[str]:
    """What the run may use; and what nobody counts on this machine."""
    if budget is None:
        return []
    limits = [f"{amount.field} {amount.as_written}" for amount in amounts(budget, None)]
    blind = [amount.field for amount in amounts(budget, None) if amount.by_gpus]
    lines = [f"budget: {', '.join(limits) or 'nothing is limited'}"]
    if blind:
        which = " and ".join(f"budget.{field}" for field in blind)
        what = "is blind" if len(blind) == 1 else "are blind"
        lines.append(
            f"{which} {what} with `selfevo run`: processes on this machine hold no GPUs that anybody counts; in a "
            "cluster, GPUs of pods are counted"
        )
    return lines


def _estimate(spec: RunSpec, there: Collection[str]) -> list[str]:
    """What the steps that are not ``there`` are expected to take; where that is unknown, a budget brings a line."""
    found, card = expected(spec, there)
    if found is None:
        return [f"estimate: none, {card}"] if spec.budget is not None else []
    return [estimate_line(found, card, spec.budget)] if found.took else []


def show_status(manifest: Path, *, storage: str | None, workdir: Path, as_json: bool) -> None:
    """Where the run stands: as it was recorded, or as the store tells when there is no record."""
    run = load(manifest, storage=storage, cache=workdir)
    folder = RunFolder(workdir, run.metadata)
    steps = folder.plan(run)
    driver = folder.driver()
    status = current_status(run, steps, folder, driver)
    steps = plan_of(run.spec, status)
    budget = run.spec.budget
    if as_json:
        print_json(status.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    if driver is not None:
        by = f"driven by process {driver}"
    elif status.phase in ("Pending", "Running", "Suspended"):
        by = "not being driven; `selfevo run` goes on"
    else:
        by = ""
    why = "" if status.phase in ("Pending", "Running") else narrate.standing(status)
    if remark := absent(run):
        why = f"{why}\n" * bool(why) + f"store {run.spec.storage.uri} {remark}"
    print_status(_name(run), status, steps, by, why, stopped=driver is None, budget=budget)


def print_status(
    name: str,
    status: RunStatus,
    steps: Plan | None,
    by: str = "",
    why: str = "",
    stopped: bool = False,
    budget: Budget | None = None,
) -> None:
    """Where a run stands: a line, the steps, the iterations, the best model.

    Args:
        steps: What is planned; when it is not known, what is recorded is shown.
        by: A remark on the first line.
        why: A line below it.
        stopped: Nobody is at work on it.
        budget: What it may use.
    """
    # Driven by nobody, it does not run, though it may go on.
    phase = "Stopped" if stopped and status.phase == "Running" else status.phase
    head = f"run {name}: {phase}, {narrate.counts(status, steps)}"
    columns = width()
    print(flowed(head + (f" ({by})" if by else ""), columns))
    for line in (*why.splitlines(), *narrate.fork_lines(status)):
        print(flowed(line, columns))
    records = {step.name: step for step in status.steps}
    names = list(records) if steps is None else [step.name for step in steps.keeping(records).steps]
    rows = [_status_row(name, records.get(name), status) for name in names]
    if rows:
        print("", *fitted([("step", "state", "took", "attempts", ""), *rows], (2, 3), columns), sep="\n")
    print(*(narrate.table_lines(status, columns) or [""]), sep="\n")
    for line in (*narrate.guard_lines(status), *narrate.used(status, budget)):
        print(flowed(line, columns))
    for line in (*narrate.finetune_lines(status), *narrate.publish_lines(status)):
        print(line)
    if status.model_uri:
        print(f"best model: {status.model_uri}")


def current_status(
    run: SelfEvolutionRun,
    steps: Plan,
    folder: RunFolder,
    driver: int | None = None,
    committed: Mapping[str, Manifest] | None = None,
) -> RunStatus:
    """What is recorded, brought into agreement with the store unless somebody is at work on it.

    Args:
        committed: What the store has, where that is known.
    """
    before = folder.read()
    if before is not None and before.status is not None and driver is not None:
        return before.status
    run, record = Approvals(folder).obeyed(run), folder.record(run)
    if committed is None:
        committed = committed_steps(run, steps, open_run_store(run), record)
    status = as_committed(run, record, steps, committed)
    if before is None and is_outdated(steps, status):  # the store alone knows what was fine-tuned
        steps = plan_of(run.spec, status)
        return as_committed(run, status, steps, committed_steps(run, steps, open_run_store(run), record))
    return status


def as_committed(run: SelfEvolutionRun, record: RunStatus, steps: Plan, committed: Mapping[str, Manifest]) -> RunStatus:
    """``record``, brought into agreement with what the store has, as the core sees it."""
    status = recorded(record, steps, committed)
    # As if nothing had changed: reading the status is no answer to a failure.
    metadata = run.metadata.model_copy(update={"generation": status.observed_generation})
    run = run.model_copy(update={"metadata": metadata, "status": status})
    return reconcile(run, steps, [], datetime.now(UTC)).status


def show_logs(
    manifest: Path,
    step: str | None,
    *,
    storage: str | None,
    workdir: Path,
    attempt: int | None,
    follow: bool = False,
) -> None:
    """Print the log of the newest attempt at ``step`` (of the run, when not given), and follow it with ``follow``."""
    run = load(manifest, storage=storage, cache=workdir)
    folder = RunFolder(workdir, run.metadata)
    steps = recorded_plan(run.spec, folder.record(run))
    if step is not None and step not in steps.by_name:
        raise InputError(f"{step!r} is no step of the run; choose one of {', '.join(steps.by_name)}")
    before = folder.read()
    attempts = [
        known
        for known in (before.status.attempts if before and before.status else [])
        if step in (None, known.step) and attempt in (None, known.attempt)
    ]
    files = log_files(folder, attempts[-1]) if attempts else []
    if not files:
        what = f"{step or 'the run'}" + (f", attempt {attempt}" if attempt is not None else "")
        raise InputError(f"there is no log of {what} in {folder.logs}; name another step or another --workdir")
    if follow:
        _follow(folder, attempts[-1].name)
        return
    for file in files:
        if len(files) > 1:
            print(f"==> {file} <==")
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _print_line(line.rstrip("\n"))


def _print_line(text: str) -> None:
    # A terminal obeys escape sequences, and a log may quote what a model wrote.
    print(printable(text) if sys.stdout.isatty() else text, flush=True)


def _follow(folder: RunFolder, name: str) -> None:
    """Print the lines of an attempt as they are written, until it has ended or nobody drives the run."""
    read: dict[Path, int] = {}
    while True:
        record = folder.read()
        known = record.status.attempts if record and record.status else []
        live = any(a.name == name and a.state in ("Pending", "Running") for a in known) and folder.driver() is not None
        for file in log_files(folder, next(a for a in known if a.name == name)):
            shard = file.suffixes[-2][1:] if file.name != f"{name}.log" else ""
            with file.open("rb") as stream:
                stream.seek(read.get(file, 0))
                new = stream.read()
            whole = new if not live else new[: new.rfind(b"\n") + 1]
            read[file] = read.get(file, 0) + len(whole)
            for line in whole.splitlines():
                _print_line((f"shard {shard} | " if shard else "") + line.decode(errors="replace"))
        if not live:
            return
        time.sleep(FOLLOW_S)


def log_files(folder: RunFolder, attempt: AttemptStatus) -> list[Path]:
    """The log of an attempt, or one for each of its shards."""
    single = folder.logs / f"{attempt.name}.log"
    if single.is_file():
        return [single]
    shards = [path for path in folder.logs.glob(f"{attempt.name}.*.log") if path.suffixes[-2][1:].isdigit()]
    return sorted(shards, key=lambda path: int(path.suffixes[-2][1:]))


def _status_row(name: str, step: StepStatus | None, status: RunStatus) -> tuple[str, ...]:
    if step is None:
        return name, "-", "-", "-", ""
    spent = narrate.duration(step, status.attempts)
    took = "stored" if step.reused else "-" if spent is None else seconds(spent)
    return name, step.state, took, str(step.attempts or "-"), narrate.remark(step)


def _name(run: SelfEvolutionRun) -> str:
    return f"{run.metadata.namespace}/{run.metadata.name}"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
