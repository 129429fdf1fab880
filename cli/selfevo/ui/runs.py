"""The runs that the pages show: named by the record folder or a manifest, their states read from their stores."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from selfevo.local.workdir import RunFolder
from selfevo.report.collect import collect
from selfevo.report.data import Report
from selfevo.report.timings import GpuHours, gpu_hours
from selfevo.stores import committed_steps, open_run_store, recorded
from selfevo.ui.live import digest_of
from selfevo.ui.models import place_of
from selfevo.verbs.local_runs import local_runs
from selfevo.verbs.show import current_status
from selfevo.views import narrate
from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.phases import HeldOutInputs, SolverRolloutInputs
from selfevo_contract.plan import Plan, Step, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import IterationStatus, RunStatus, StepStatus
from selfevo_core.summary import best_of, iterations_of
from selfevo_store import ObjectStore

UNKNOWN = "Unknown"
"""The phase of a run whose outputs are not all there, where nothing but the store is asked."""


@dataclass(frozen=True)
class Shown:
    """A run as it stands at one moment."""

    run: SelfEvolutionRun
    plan: Plan
    store: ObjectStore
    status: RunStatus
    committed: dict[str, Manifest]
    """By the step's name."""
    driven: bool | None
    """Whether somebody is at work on it: a process of this machine, or a cluster's operator; None where the store alone
    is asked, which cannot say."""
    counts_gpus: bool = False
    """Whether the status's usage knows of its GPUs: a cluster's does."""

    @property
    def namespace(self) -> str:
        return self.run.metadata.namespace

    @property
    def name(self) -> str:
        return self.run.metadata.name

    @property
    def path(self) -> str:
        return f"/runs/{self.namespace}/{self.name}"

    @property
    def phase(self) -> str:
        if self.driven is None and self.status.phase not in ("Succeeded", "Failed"):
            return UNKNOWN
        resting = not self.driven and self.status.phase in ("Pending", "Running") and bool(self.committed)
        return "Stopped" if resting else self.status.phase

    @property
    def why(self) -> str:
        return narrate.standing(self.status).rstrip(".") if self.status.phase == "Failed" else ""

    @property
    def state(self) -> str:
        """Another one when the pages have something new to say: a step, a score, a light."""
        steps = [(step.name, step.state) for step in self.status.steps]
        return digest_of(self.phase, self.why, self.status.iteration, self.status.watch, sorted(self.committed), steps)

    @cached_property
    def iterations(self) -> list[IterationStatus]:
        return iterations_of(self.run, self.plan, self._steps)

    @cached_property
    def best(self) -> IterationStatus | None:
        return best_of(self.run, self.plan, self._steps, self.iterations)

    @cached_property
    def _steps(self) -> dict[str, StepStatus]:
        return {step.name: step for step in recorded(None, self.plan, self.committed).steps}

    @property
    def metric(self) -> str:
        return self.run.spec.evaluation.metric if self.run.spec.evaluation else "mean"

    def figure(self, iteration: IterationStatus | None, name: str) -> float | None:
        """``_stderr`` and ``_gain`` behind the metric's name, of an evaluation."""
        return None if iteration is None else iteration.metrics.get(f"evaluation/{self.metric}{name}")

    @cached_property
    def gpu_hours(self) -> GpuHours | None:
        return gpu_hours(self.status, self.committed.values(), counts=self.counts_gpus)

    @property
    def newest(self) -> str:
        stamp = max((manifest.created_at for manifest in self.committed.values()), default="")
        return stamp[:19].replace("T", " ")

    @property
    def rollouts(self) -> list[tuple[Step, Manifest]]:
        """The committed rollouts, in order."""
        steps = [step for step in self.plan.steps if isinstance(step.inputs, SolverRolloutInputs)]
        return [(step, self.committed[step.name]) for step in steps if step.name in self.committed]

    @property
    def evaluations(self) -> list[tuple[Step, Manifest]]:
        """The committed evaluations in the order of their places: of the base and of Solvers, then of what was made of
        them by fine-tuning."""
        steps = sorted((step for step in self.plan.steps if isinstance(step.inputs, HeldOutInputs)), key=place_of)
        return [(step, self.committed[step.name]) for step in steps if step.name in self.committed]


@dataclass(frozen=True)
class Unread:
    """A run of which its store, or its record, can say nothing."""

    namespace: str
    name: str
    why: str

    @property
    def path(self) -> str:
        return f"/runs/{self.namespace}/{self.name}"

    @property
    def state(self) -> str:
        return digest_of(self.why)


class Runs:
    """Reads what is new at each request; a manifest that was read once is final, and kept."""

    unknown = ""
    """What to know of a run in the phase Unknown."""

    def __init__(self, workdir: Path, named: Sequence[SelfEvolutionRun] = ()) -> None:
        self.workdir, self.named = workdir, named
        self._manifests: dict[str, Manifest] = {}
        self._reports: dict[tuple[str, str], tuple[object, Report]] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Shown | Unread]:
        """Each run once, by namespace and name; a manifest goes before the record of the same run."""
        found: list[Shown | Unread] = []
        for (namespace, name), run in sorted(self._known().items()):
            try:
                found.append(run if isinstance(run, Unread) else self._shown(run))
            except SelfevoError as error:
                found.append(Unread(namespace, name, str(error)))
        return found

    def one(self, namespace: str, name: str) -> Shown | None:
        """The run of that name; None without one.

        Raises:
            SelfevoError: its store failed, or what it has is another's.
        """
        run = self._known().get((namespace, name))
        if isinstance(run, Unread):
            raise InputError(f"run {namespace}/{name} cannot be shown: {run.why}")
        return None if run is None else self._shown(run)

    @property
    def nothing(self) -> str:
        """What there is to say without a run."""
        return (
            f"No run is recorded in {self.workdir}; `selfevo run MANIFEST` starts one, and `selfevo ui MANIFEST` shows "
            "one that ran elsewhere."
        )

    @property
    def failing(self) -> list[str]:
        """A sentence on each place that cannot be read now, where there are others to show."""
        return []

    def _known(self) -> Mapping[tuple[str, str], SelfEvolutionRun | Unread]:
        found = {_key(one.run): one.run for one in local_runs(self.workdir)}
        return found | {_key(run): run for run in self.named}

    def report(self, shown: Shown) -> Report:
        """What the run's page says, made again when there is more to say."""
        state = (frozenset(shown.committed), shown.status.model_dump_json())
        key = _key(shown.run)
        with self._lock:
            kept = self._reports.get(key)
            if kept is not None and kept[0] == state:
                return kept[1]
            run = shown.run.model_copy(update={"status": shown.status})
            report = collect(run, shown.plan, shown.store, shown.why, questions=False)
            report = replace(report, counts_gpus=shown.counts_gpus)
            self._reports[key] = (state, report)
            return report

    def _shown(self, run: SelfEvolutionRun) -> Shown:
        folder = RunFolder(self.workdir, run.metadata)
        driver, record = folder.driver(), folder.record(run)
        plan, store = plan_of(run.spec, record), open_run_store(run)
        committed = committed_steps(run, plan, store, record, self._manifests)
        status = current_status(run, plan, folder, driver, committed)
        return Shown(run, plan.keeping(committed), store, status, committed, driven=driver is not None)


def _key(run: SelfEvolutionRun) -> tuple[str, str]:
    return run.metadata.namespace, run.metadata.name
