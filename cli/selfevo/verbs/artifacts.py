"""`selfevo artifacts`: what lies in the store, where a model is, whether every byte is as it was committed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfevo.local.workdir import RunFolder
from selfevo.opened import opened
from selfevo.stores import absent, open_run_store
from selfevo.tables import copy_table, tables_of
from selfevo.text import aligned, count, size
from selfevo.verbs.show import current_status
from selfevo_contract.artifacts import Manifest, chunk_places, chunks_prefix, step_prefix
from selfevo_contract.digests import file_digest, model_digest, model_files
from selfevo_contract.errors import ExitCode, InputError
from selfevo_contract.phases import FINETUNE, BaseModelRef, ModelRef, StepModelRef
from selfevo_contract.plan import Plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_core.summary import model_uri


def list_artifacts(manifest: Path, *, storage: str | None, workdir: Path, as_json: bool) -> None:
    """The committed outputs of the run's steps."""
    of = opened(manifest, storage=storage, workdir=workdir)
    rows: list[dict[str, Any]] = [
        {
            "step": step.name,
            "createdAt": there.created_at,
            "files": len(there.files),
            "bytes": sum(file.size for file in there.files),
            "uri": of.store.uri_of(prefix),
        }
        for step, prefix, there in of.committed
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = [["step", "committed", "files", "size", "uri"]]
    table += [[row["step"], row["createdAt"], str(row["files"]), size(row["bytes"]), row["uri"]] for row in rows]
    print(*aligned(table, right=(2, 3)), sep="\n")
    if remark := absent(of.run):
        print(f"store {of.run.spec.storage.uri} {remark}")
    print(f"{len(rows)} of {len(of.steps.steps)} steps are in the store")


def model_path(manifest: Path, *, iteration: str, role: str, storage: str | None, workdir: Path) -> str:
    """The URI of a role's model after an iteration.

    Raises:
        InputError: there is no such model yet, or never will be.
    """
    run, _, ref = _model_of(manifest, iteration, role, storage, workdir)
    return model_uri(run, ref)


def fetch_model(
    manifest: Path, *, iteration: str, role: str, to: Path, merge: bool, storage: str | None, workdir: Path
) -> tuple[str, int]:
    """Copies a model's files to the folder ``to``, each checked by its digest; returns its URI and their number.

    With ``merge`` an adapter is written as whole weights, base and adapter in one.

    Raises:
        InputError: there is no such model, it is the base, or ``to`` is not empty.
    """
    from selfevo_store import fetch, read_manifest

    run, _, ref = _model_of(manifest, iteration, role, storage, workdir)
    if not isinstance(ref, StepModelRef):
        raise InputError(f"iteration {iteration}'s {role} is the base model itself; take it from {ref.uri}")
    _check_free(to)
    store = open_run_store(run)
    prefix = step_prefix(run.metadata.namespace, ref.phase, ref.key)
    found = read_manifest(store, prefix)
    assert found is not None  # _model_of has seen it
    files = found.under("model")
    draft = to.with_name(f".{to.name}.part")
    made = fetch(store, prefix, found, draft, folder="model")
    if merge:
        made = _merged(run, made, RunFolder(workdir, run.metadata).cache)
    if to.is_dir():
        to.rmdir()
    made.rename(to)
    shutil.rmtree(draft)
    return model_uri(run, ref), len(list(to.iterdir())) if merge else len(files)


def _check_free(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to {to} is there already; name a new or empty folder")


def copy_rows(manifest: Path, *, to: Path, storage: str | None, workdir: Path) -> tuple[int, int]:
    """Copies the tables of all committed steps to ``to``/<step>/, each checked by its digest; JSON lines of an older
    version become Parquet, but for updates, which are JSON lines. Returns how many tables of how many steps.

    Raises:
        InputError: ``to`` is not empty.
    """
    _check_free(to)
    of = opened(manifest, storage=storage, workdir=workdir)
    copied = {
        step.name: sum(copy_table(of.store, prefix, there, file, to / step.name) for file in tables_of(step))
        for step, prefix, there in of.committed
    }
    return sum(copied.values()), sum(map(bool, copied.values()))


def _merged(run: SelfEvolutionRun, model: Path, cache: Path) -> Path:
    from selfevo_trainer.inputs.model_files import fetch_base
    from selfevo_trainer.models import adapters

    if not adapters.is_adapter(model):
        return model  # it is whole
    spec = run.spec
    ref = BaseModelRef(uri=spec.model.uri, digest=spec.model.digest)
    base = fetch_base(ref, model.parent / "base", spec.storage, cache)
    adapters.merge(base, model, model.parent / "merged")
    return model.parent / "merged"


def verify(manifest: Path, *, storage: str | None, workdir: Path) -> int:
    """Reads every file of every committed step; returns the exit code."""
    from selfevo_store import verify as verify_directory

    of = opened(manifest, storage=storage, workdir=workdir)
    damaged = files = 0
    for step, prefix, there in of.committed:
        places = [prefix, *chunk_places(prefix, (info.key for info in of.store.list(chunks_prefix(prefix))))]
        problems = [problem for place in places for problem in verify_directory(of.store, place)]
        files += len(there.files)
        damaged += bool(problems)
        print(f"{step.name}: {'damaged' if problems else count(len(there.files), 'file') + ' as committed'}")
        for problem in problems:
            print(f"  {problem}")
    steps = f"{len(of.there)} of {len(of.steps.steps)} steps"
    print(f"{steps} are in the store, {damaged} damaged, {count(files, 'file')} read")
    return int(ExitCode.DATA) if damaged else int(ExitCode.DONE)


def digest_of(path: Path) -> str:
    """The digest of a model's folder or of a file, as `spec.model.digest` and `data.digest` take it.

    Raises:
        InputError: there is neither.
    """
    try:
        if path.is_dir():
            if not model_files(path):
                raise InputError(f"{path} holds no file of a model; name the folder with config.json and *.safetensors")
            return model_digest(path)
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read: {error.strerror}; correct the path") from None


def _model_of(
    manifest: Path, iteration: str, role: str, storage: str | None, workdir: Path
) -> tuple[SelfEvolutionRun, Plan, ModelRef]:
    of = opened(manifest, storage=storage, workdir=workdir)
    run, steps, there = of.run, of.steps, of.there
    number = _iteration(run, steps, iteration, workdir)
    if role == "finetuned":
        return run, steps, _finetuned(steps, number, there)
    ref = (steps.solvers if role == "solver" else steps.challengers)[number]
    if (
        number != steps.start
        and isinstance(ref, StepModelRef)
        and not any(s.key == ref.key and s.name in there for s in steps.steps)
    ):
        name = next(step.name for step in steps.steps if step.key == ref.key)
        raise InputError(f"iteration {number}'s {role} is not there yet: {name} has not been done; run it first")
    return run, steps, ref


def _finetuned(steps: Plan, number: int, there: Mapping[str, Manifest]) -> ModelRef:
    name = f"{FINETUNE.name}-{number}"
    planned = [step for step in steps.steps if step.phase == FINETUNE.name]
    step = next((step for step in planned if step.name == name), None)
    if step is None:
        known = " or ".join(str(step.iteration) for step in planned)
        raise InputError(
            f"iteration {number}'s Solver is not fine-tuned in this run; "
            + (f"choose --iteration {known}" if known else "add spec.finetune")
        )
    if name not in there:
        raise InputError(
            f"iteration {number}'s fine-tuned model is not there yet: {name} has not been done; run it first"
        )
    return StepModelRef(phase=step.phase, key=step.key)


def _iteration(run: SelfEvolutionRun, steps: Plan, iteration: str, workdir: Path) -> int:
    if iteration == "best":
        status = current_status(run, steps, RunFolder(workdir, run.metadata))
        if status.best is None:
            raise InputError("no iteration can be called best yet: none is evaluated; run it first")
        return status.best.iteration
    if not iteration.isdigit() or int(iteration) > run.spec.iterations:
        raise InputError(
            f"--iteration is {iteration!r}; it must be best, or a whole number from 0 to {run.spec.iterations}"
        )
    if 0 < int(iteration) < steps.start and run.spec.fork_from is not None:
        raise InputError(
            f"--iteration is {iteration}, and this run goes on from iteration {steps.start} of run "
            f"{run.spec.fork_from.run}; ask that one, or name 0 or a later one"
        )
    return int(iteration)
