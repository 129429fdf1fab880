"""What a run's object store says: which steps are done, and where models lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from selfevo_contract.artifacts import SCHEMA_VERSION, Manifest, step_prefix
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan, Step, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.storage import Storage
from selfevo_contract.status import RunStatus, StepStatus

if TYPE_CHECKING:
    from selfevo_store import ObjectStore


def open_run_store(run: SelfEvolutionRun, cache: Path | None = None) -> ObjectStore:
    """The store that ``spec.storage`` names."""
    return open_at(run.spec.storage, cache)


def open_at(storage: Storage, cache: Path | None = None) -> ObjectStore:
    """The store at ``storage``."""
    from selfevo_store import open_storage

    try:
        return open_storage(storage, cache_dir=cache)
    except ModuleNotFoundError as error:
        raise InputError(
            f"storage.uri is {storage.uri!r}, which needs the package {error.name}; pip install 'selfevo[trainer]'"
        ) from None


def absent(run: SelfEvolutionRun) -> str:
    """A remark where the store is a folder that is not there: not begun yet, or mistyped. A bucket is asked for."""
    return "" if is_there(run.spec.storage) else "does not exist yet, `selfevo run` makes it"


def is_there(storage: Storage) -> bool:
    """Whether the store's folder exists; of a bucket nobody is asked."""
    uri = storage.uri
    return not uri.startswith("file://") or Path(unquote(uri.removeprefix("file://"))).exists()


def prefix_of(run: SelfEvolutionRun, step: Step) -> str:
    """Where the step's output lies in the store."""
    return step_prefix(run.metadata.namespace, step.phase, step.key)


def recorded_plan(spec: RunSpec, record: RunStatus) -> Plan:
    """The plan, with those steps of the record that are asked for no more: for whoever shows what the record says."""
    return plan_of(spec, record).keeping({step.name for step in record.steps})


def committed_steps(
    run: SelfEvolutionRun,
    plan: Plan,
    store: ObjectStore,
    record: RunStatus | None,
    known: MutableMapping[str, Manifest] | None = None,
) -> dict[str, Manifest]:
    """Step name -> manifest, of every step whose output is committed. A step without its parents is not searched for.

    Args:
        record: What is recorded of the run, as far as it is. Of the evaluations that ``plan`` asks for no more, those
            that are done in it are searched for; where no step is recorded, each of them.
        known: Manifests by the address of their step's output, which are not read again; those that are read are put
            into it. A manifest is final.

    Raises:
        InputError: something else lies under a step's key, or the store cannot be used.
        ServiceError: the store does not answer.
    """
    from selfevo_store import read_own_manifest

    found: dict[str, Manifest] = {}
    for step in plan.keeping(_evaluated_before(plan, record)).steps:
        if not all(parent in found for parent in step.parents):
            continue
        prefix = prefix_of(run, step)
        place = store.uri_of(prefix)
        manifest = known.get(place) if known is not None else None
        manifest = manifest or read_own_manifest(store, prefix, step.phase, step.key, step.name)
        if manifest is not None:
            found[step.name] = manifest
            if known is not None:
                known[place] = manifest
    return found


def _evaluated_before(plan: Plan, record: RunStatus | None) -> set[str]:
    """Names of the evaluations that are asked for no more and may have been made."""
    if record is None or not record.steps:
        return {step.name for step in plan.unscheduled}
    done = {(step.name, step.key) for step in record.steps if step.state == "Succeeded"}
    return {step.name for step in plan.unscheduled if (step.name, step.key) in done}


def recorded(status: RunStatus | None, plan: Plan, committed: Mapping[str, Manifest]) -> RunStatus:
    """``status`` in agreement with the store: what is committed is done, and nothing else is.

    So a lost status is rebuilt, a step that another run committed is taken over, and after a change of storage.uri or
    a cleaned store no step counts as done whose output is elsewhere.
    """
    before = status or RunStatus()
    known = {(record.name, record.key): record for record in before.steps}
    steps = []
    for step in plan.keeping(committed).steps:
        record = known.get((step.name, step.key))
        manifest = committed.get(step.name)
        if manifest is not None:
            done = record is not None and record.state == "Succeeded"
            steps.append(record if record is not None and done else _found(step, record, manifest))
        elif record is not None and record.state != "Succeeded":
            steps.append(record)
    # Steps have the keys of this version here, whatever the record was begun by.
    return before.model_copy(update={"steps": steps, "schema_version": SCHEMA_VERSION})


def _found(step: Step, record: StepStatus | None, manifest: Manifest) -> StepStatus:
    # A NaN, which JSON cannot say, would make the status unreadable.
    metrics = {name: value for name, value in manifest.metrics.items() if math.isfinite(value)}
    return StepStatus(
        name=step.name,
        phase=step.phase,
        iteration=step.iteration,
        key=step.key,
        state="Succeeded",
        attempts=record.attempts if record else 0,
        ended=record.ended if record else 0,
        reused=True,
        finished_at=manifest.created_at,
        metrics=metrics,
        timings=dict(manifest.timings),
    )
