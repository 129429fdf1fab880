"""A run with its plan and what its store has: what every verb that reads begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.stores import committed_steps, open_run_store, prefix_of
from selfevo_contract.artifacts import Manifest
from selfevo_contract.plan import Plan, Step, plan_of
from selfevo_contract.run import SelfEvolutionRun

if TYPE_CHECKING:
    from selfevo_store import ObjectStore


@dataclass(frozen=True)
class Opened:
    """A run as its manifest, its record on this machine and its store have it."""

    run: SelfEvolutionRun
    folder: RunFolder
    steps: Plan
    store: ObjectStore
    there: dict[str, Manifest]
    """Step name -> manifest, of every step that is committed."""

    @property
    def committed(self) -> list[tuple[Step, str, Manifest]]:
        """The committed steps in the order of the plan: each with its place in the store and its manifest."""
        return [
            (step, prefix_of(self.run, step), self.there[step.name])
            for step in self.steps.steps
            if step.name in self.there
        ]


def opened(manifest: Path, *, name: str | None = None, storage: str | None = None, workdir: Path) -> Opened:
    """Read all of it.

    Args:
        manifest: Of the run.
        name: Which one, where the manifest holds several.
        storage: In place of spec.storage.uri.
        workdir: Where the record is, if there is one.

    Raises:
        SelfevoError: the manifest is wrong, or the store cannot be used.
    """
    return opened_run(load(manifest, name=name, storage=storage, cache=workdir), workdir)


def opened_run(run: SelfEvolutionRun, workdir: Path) -> Opened:
    """The same of a run whose manifest is read.

    Raises:
        SelfevoError: the store cannot be used.
    """
    folder = RunFolder(workdir, run.metadata)
    record, store = folder.record(run), open_run_store(run)
    steps = plan_of(run.spec, record)
    there = committed_steps(run, steps, store, record)
    return Opened(run, folder, steps.keeping(there), store, there)
