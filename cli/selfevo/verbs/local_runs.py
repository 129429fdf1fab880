"""`selfevo status` and `selfevo watch` without a name: the runs that this machine has a record of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfevo.local.workdir import RunFolder
from selfevo.text import count, fitted, flowed, percent, width
from selfevo.verbs.show import print_json
from selfevo.views import narrate
from selfevo_contract.errors import InputError
from selfevo_contract.run import Metadata, SelfEvolutionRun
from selfevo_contract.status import RunStatus


@dataclass(frozen=True)
class LocalRun:
    """A run as it was recorded, and who is at work on it."""

    run: SelfEvolutionRun
    driver: int | None
    """The process; None when nobody is."""

    @property
    def status(self) -> RunStatus:
        return self.run.status or RunStatus()

    @property
    def phase(self) -> str:
        resting = self.driver is None and self.status.phase == "Running"
        return "Stopped" if resting else self.status.phase


def local_runs(workdir: Path) -> list[LocalRun]:
    """The runs below ``workdir``, by namespace and name; records that cannot be read are left out."""
    found = []
    for place in sorted(workdir.glob("runs/*/*/status.json")):
        metadata = Metadata.model_construct(name=place.parent.name, namespace=place.parent.parent.name)
        folder = RunFolder(workdir, metadata)
        driver = folder.driver()  # before the record: whoever is gone has written its last
        run = folder.read()
        if run is not None:
            found.append(LocalRun(run, driver))
    return found


def show_local_runs(workdir: Path, *, as_json: bool) -> None:
    """A table of the runs below ``workdir``."""
    runs = local_runs(workdir)
    if as_json:
        print_json([_row(one) for one in runs])
        return
    for line in listed(runs, workdir, width()):
        print(line)


def listed(runs: list[LocalRun], workdir: Path, columns: int | None) -> list[str]:
    """The table as lines."""
    if not runs:
        none = f"no runs in {workdir}; `selfevo run MANIFEST` starts one, and -n NAMESPACE lists those of a cluster"
        return [flowed(none, columns)]
    table = [["run", "phase", "iteration", "best", "score", "driven by", ""]]
    for one in runs:
        best = one.status.best
        table.append(
            [
                _name(one),
                one.phase,
                f"{one.status.iteration} of {one.run.spec.iterations}",
                "-" if best is None else str(best.iteration),
                percent(best.score if best else None),
                "-" if one.driver is None else str(one.driver),
                narrate.standing(one.status) if one.phase in ("Failed", "Running") else "",
            ]
        )
    return [*fitted(table, (), columns), f"{count(len(runs), 'run')} in {workdir}"]


def only_driven(workdir: Path) -> SelfEvolutionRun:
    """The one run that somebody is at work on.

    Raises:
        InputError: there is none, or more than one.
    """
    driven = [one for one in local_runs(workdir) if one.driver is not None]
    if len(driven) == 1:
        return driven[0].run
    if not driven:
        raise InputError(
            f"no run in {workdir} is being driven; name a manifest or a cluster's run, `selfevo status` lists the runs"
        )
    names = ", ".join(_name(one) for one in driven)
    raise InputError(f"{count(len(driven), 'run')} in {workdir} are being driven: {names}; name the manifest of one")


def _name(one: LocalRun) -> str:
    metadata = one.run.metadata
    return metadata.name if metadata.namespace == "default" else f"{metadata.namespace}/{metadata.name}"


def _row(one: LocalRun) -> dict[str, object]:
    best = one.status.best
    return {
        "namespace": one.run.metadata.namespace,
        "name": one.run.metadata.name,
        "phase": one.phase,
        "iteration": one.status.iteration,
        "best": best.iteration if best else None,
        "score": best.score if best else None,
        "modelUri": one.status.model_uri,
        "driver": one.driver,
        "why": narrate.standing(one.status) or None,
    }
