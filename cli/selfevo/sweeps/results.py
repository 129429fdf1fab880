"""What a sweep comes to: the steps that are to be done, and the table of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfevo.local.workdir import RunFolder
from selfevo.manifest import load
from selfevo.report.spread import spread_of
from selfevo.stores import committed_steps, open_run_store
from selfevo.sweeps.grid import SEED, Cell
from selfevo.text import count, fitted, percent
from selfevo.views.narrate import gain
from selfevo_contract.plan import plan_of
from selfevo_contract.run import Metadata


@dataclass(frozen=True)
class Steps:
    """How many steps there are, and how many processes of them are saved."""

    all: int
    distinct: int
    committed: int

    @property
    def sentence(self) -> str:
        """``14 steps, of which 4 are shared and 3 are in the store already: 7 are done now``."""
        shared = self.all - self.distinct
        parts = [f"{shared} {'is' if shared == 1 else 'are'} shared"] if shared else []
        there = self.committed
        parts += [f"{there} {'is' if there == 1 else 'are'} in the store already"] if there else []
        left = self.distinct - there
        which = f", of which {' and '.join(parts)}: {left} {'is' if left == 1 else 'are'} done now" if parts else ""
        return f"{count(self.all, 'step')}{which}"


def to_do(places: Sequence[Path], storage: str | None, workdir: Path) -> Steps:
    """The steps of the runs whose manifests lie at ``places``. Steps with one key are one step.

    Raises:
        SelfevoError: a manifest is wrong, or a store cannot be used.
    """
    number, keys, committed = 0, set(), set()
    for place in places:
        run = load(place, storage=storage, cache=workdir)
        record = RunFolder(workdir, run.metadata).record(run)
        plan = plan_of(run.spec, record)
        number += len(plan.steps)
        keys |= {step.key for step in plan.steps}
        there = committed_steps(run, plan, open_run_store(run), record)
        committed |= {step.key for step in plan.steps if step.name in there}
    return Steps(number, len(keys), len(committed))


@dataclass(frozen=True)
class Result:
    """How a run of a sweep stands."""

    cell: Cell
    phase: str
    iteration: int | None = None
    """Of its best model."""
    score: float | None = None
    """Of that, from 0 to 1."""
    gained: str = ""
    """Points over the base, with their standard error."""


def result_of(cell: Cell, workdir: Path) -> Result:
    """By the record of the run on this machine."""
    run = RunFolder(workdir, Metadata.model_validate(cell.document["metadata"])).read()
    if run is None or run.status is None:
        return Result(cell, "Failed")
    status = run.status
    best = status.best
    if best is None or run.spec.evaluation is None:
        return Result(cell, status.phase)
    scored = [s for s in status.steps if s.type is not None and s.type.scores and s.iteration == best.iteration]
    gained = gain(scored[-1].metrics, run.spec.evaluation.metric).strip(" ()") if scored else ""
    return Result(cell, status.phase, best.iteration, best.score, gained)


def table(results: Sequence[Result], columns: int | None) -> list[str]:
    """A line a run; then, where seeds repeat the same settings, a line for each of those: mean and spread."""
    rows = [["run", "phase", "best", "score", "over the base", "settings"]]
    for each in results:
        best = "-" if each.iteration is None else str(each.iteration)
        row = [each.cell.name, each.phase, best, percent(each.score), each.gained or "-", each.cell.label]
        rows.append(row)
    lines = fitted(rows, (2, 3), columns)
    repeated = [group for group in _by_settings(results) if len(group) > 1]
    if repeated:
        rows = [["settings", "seeds", "mean score", "standard deviation"]]
        for group in repeated:
            scores = [each.score for each in group if each.score is not None]
            found = spread_of(scores) if scores else None
            mean = percent(found.mean) if found else "-"
            deviation = f"{100 * found.deviation:.1f}" if found and found.deviation is not None else "-"
            rows.append([group[0].cell.without_seed or "as in the manifest", str(len(scores)), mean, deviation])
        lines += ["", *fitted(rows, (1, 2, 3), columns)]
    return lines


def _by_settings(results: Sequence[Result]) -> list[list[Result]]:
    groups: dict[str, list[Result]] = {}
    for each in results:
        if SEED in each.cell.settings:
            groups.setdefault(each.cell.without_seed, []).append(each)
    return list(groups.values())
