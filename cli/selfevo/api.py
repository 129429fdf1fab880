"""Runs and their tables, for notebooks and scripts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.opened import Opened, opened, opened_run
from selfevo.options import DEFAULT_WORKDIR
from selfevo.stored import stored_run
from selfevo.tables import copy_table
from selfevo.target import is_store
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.phases import EvaluateInputs
from selfevo_contract.rows import CURRICULUM, METRICS, ORACLE, QUESTIONS, TEXTS, RowFile, answers_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

_PLACE = ("iteration", "step")
"""Columns that every table begins with: what its rows are of."""


class RunFailed(SelfevoError):
    """A run did not come to its end. ``code`` is the exit code that the command has."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class OpenRun:
    """What a run's store has of it, read when it is asked for and kept.

    A table has the columns of docs/data.md behind ``iteration`` and ``step``; a table of which nothing is there yet is
    empty. Every byte is checked against its digest.
    """

    def __init__(self, of: Callable[[], Opened], status: RunStatus | None = None) -> None:
        self._read, self._status = of, status

    @cached_property
    def _of(self) -> Opened:
        return self._read()

    @property
    def manifest(self) -> SelfEvolutionRun:
        """The run as its manifest, or its record in the store, has it, paths and digests filled in."""
        return self._of.run

    @cached_property
    def status(self) -> RunStatus:
        """Where it stands, by the record on this machine and by the store, or by the store alone."""
        if self._status is not None:
            return self._status
        from selfevo.verbs.show import current_status

        return current_status(self._of.run, self._of.steps, self._of.folder)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """A row a committed step: name, phase, iteration, key, when, where, and each of its metrics as a column."""
        return _pandas().DataFrame(
            [
                {
                    "iteration": step.iteration,
                    "step": step.name,
                    "phase": step.phase,
                    "key": step.key,
                    "created_at": there.created_at,
                    "uri": self._of.store.uri_of(prefix),
                    **there.metrics,
                }
                for step, prefix, there in self._of.committed
            ]
        )

    @cached_property
    def questions(self) -> pd.DataFrame:
        """Every question that was written, with its votes, and why it was dropped."""
        return self._table(QUESTIONS)

    @cached_property
    def curriculum(self) -> pd.DataFrame:
        """What the Solver was trained on."""
        return self._table(CURRICULUM)

    @cached_property
    def oracle(self) -> pd.DataFrame:
        """An oracle's verdicts on the labels."""
        return self._table(ORACLE)

    @cached_property
    def texts(self) -> pd.DataFrame:
        """The Solver's answers in full, as far as spec.keepAnswers keeps them."""
        return self._table(TEXTS)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """A row an optimizer update: TRL's metrics by TRL's names."""
        from selfevo_store import fetch_rows

        rows: list[dict[str, Any]] = []
        for step, prefix, there in self._of.committed:
            if METRICS.as_in(there) is not None:
                found = fetch_rows(self._of.store, prefix, there, METRICS)
                rows += [{"iteration": step.iteration, "training": step.name, **row.model_dump()} for row in found]
        return _pandas().DataFrame(rows)

    def scores(self, task: str) -> pd.DataFrame:
        """A row a held-out question of ``task`` and iteration.

        Raises:
            InputError: the run has no such task.
        """
        tasks = [task.name for step in self._of.steps.steps for task in _tasks(step.inputs)]
        if task not in tasks:
            names = ", ".join(sorted(set(tasks))) or "none at all"
            raise InputError(f"there is no task {task!r} in spec.evaluation; the run has {names}")
        return self._table(answers_of(task))

    def _table(self, file: RowFile[Any]) -> pd.DataFrame:
        pandas = _pandas()
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for step, prefix, there in self._of.committed:
                place = Path(folder, step.name)
                if copy_table(self._of.store, prefix, there, file, place):
                    table = pandas.read_parquet(place / file.name)
                    for column, value in zip(reversed(_PLACE), (step.name, step.iteration), strict=True):
                        table.insert(0, column, value)
                    found.append(table)
        return pandas.concat(found, ignore_index=True) if found else pandas.DataFrame(columns=list(_PLACE))


def open(
    manifest: str | Path,
    *,
    name: str | None = None,
    storage: str | None = None,
    workdir: str | Path = DEFAULT_WORKDIR,
) -> OpenRun:
    """A run's tables.

    Args:
        manifest: The file that describes it; or the store that it left its record in: a URI, or a folder.
        name: Which run, where the file or the store has several; of a store also as ``namespace/name``.
        storage: In place of spec.storage.uri: a URI, or a path.
        workdir: Where its record is, if it was run on this machine. Of a run by its store nothing is read there.

    Raises:
        SelfevoError: the manifest is wrong, or the store cannot be used; one sentence.
    """
    if is_store(str(manifest)):
        if storage is not None:
            raise InputError(f"{manifest} is a store, and storage={storage!r} names another one; leave out one of them")
        found = stored_run(str(manifest), name)
        folder = RunFolder(Path(workdir), found.run.metadata)
        return _at_once(Opened(found.run, folder, found.plan, found.store, found.committed), found.status)
    return _at_once(opened(Path(manifest), name=name, storage=storage, workdir=Path(workdir)))


def _at_once(of: Opened, status: RunStatus | None = None) -> OpenRun:
    return OpenRun(lambda: of, status)


def run(
    manifest: str | Path,
    *,
    name: str | None = None,
    storage: str | None = None,
    workdir: str | Path = DEFAULT_WORKDIR,
    workers: int | None = None,
    quiet: bool = False,
    cold: bool = False,
    wait: bool = False,
) -> OpenRun:
    """Do every step of the run on this machine, or go on where it was left; `selfevo run` is this. In the main thread
    only.

    Args:
        manifest: The file that describes it.
        name: Which run, where the file holds several.
        storage: In place of spec.storage.uri: a URI, or a path.
        workdir: Where status, logs and caches are kept.
        workers: Shards of a step that are made at once; one a CPU when None.
        quiet: Print errors only.
        cold: Start each process anew, not forked from one that has torch loaded: slower.
        wait: Where spec.review lets an iteration wait, stay and go on when it is approved.

    Returns:
        its tables, which are read when they are asked for.

    Raises:
        RunFailed: it did not come to its end; `code` says how, and standard error why.
        SelfevoError: it cannot begin.
    """
    from selfevo.verbs.run import run_here

    path, place = Path(manifest), Path(workdir)
    read = load(path, name=name, storage=storage, cache=place)
    code = run_here(read, path, storage=storage, workdir=place, workers=workers, quiet=quiet, cold=cold, wait=wait)
    if code:
        raise RunFailed(f"run {name or manifest} did not come to its end (exit code {code}); its log says why", code)
    return OpenRun(partial(opened_run, read, place))


def _tasks(inputs: object) -> list[Any]:
    return list(inputs.tasks) if isinstance(inputs, EvaluateInputs) else []


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError:
        raise InputError("tables as DataFrames need pandas, which is not installed here; pip install pandas") from None
    return pandas
