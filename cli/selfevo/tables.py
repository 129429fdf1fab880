"""The tables of rows that a run's steps have, copied out of the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfevo_contract.artifacts import Manifest
from selfevo_contract.phases import HeldOutInputs, SolverRolloutInputs
from selfevo_contract.plan import Step
from selfevo_contract.rows import CURRICULUM, METRICS, ORACLE, QUESTIONS, TEXTS, RowFile, answers_of, texts_of

if TYPE_CHECKING:
    from selfevo_store import ObjectStore


def tables_of(step: Step) -> list[RowFile[Any]]:
    """The files of rows that a step of this kind may have and people query."""
    match step.inputs:
        case SolverRolloutInputs():
            return [QUESTIONS, CURRICULUM, ORACLE, TEXTS]
        case HeldOutInputs() as inputs:
            return [of(task.name) for task in inputs.tasks for of in (answers_of, texts_of)]
        case _:
            return [METRICS]  # of a training


def copy_table(store: ObjectStore, prefix: str, manifest: Manifest, file: RowFile[Any], folder: Path) -> bool:
    """Copy one to ``folder``, checked by its digest; JSON lines become Parquet. Returns whether the step has it."""
    from selfevo_store import fetch, fetch_rows

    there = file.as_in(manifest)
    if there is file:
        fetch(store, prefix, manifest, folder, [file.name])
    elif there is not None:
        file.write(folder, fetch_rows(store, prefix, manifest, file))
    return there is not None
