"""The runs of a cluster's namespace, as its API server has them; what the pages say besides is in their stores."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from selfevo.cluster.client import Cluster, Resource
from selfevo.stores import committed_steps, open_run_store
from selfevo.ui.runs import Runs, Shown, Unread
from selfevo_contract.plan import plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus

LISTED_S = 2.0
"""For so long a list of runs is taken as it is."""


class ClusterRuns(Runs):
    """Asks for lists of runs and for nothing else."""

    def __init__(self, cluster: Cluster, workdir: Path) -> None:
        super().__init__(workdir)
        self.cluster = cluster
        self._listed: list[Resource] = []
        self._until = 0.0
        self._listing = threading.Lock()

    @property
    def nothing(self) -> str:
        return f"There is no SelfEvolutionRun in namespace {self.cluster.namespace}."

    def _known(self) -> dict[tuple[str, str], SelfEvolutionRun | Unread]:
        with self._listing:
            if time.monotonic() >= self._until:
                self._listed = self.cluster.runs()
                self._until = time.monotonic() + LISTED_S
            return {(each.namespace, each.name): _read(each) for each in self._listed}

    def _shown(self, run: SelfEvolutionRun) -> Shown:
        status = run.status or RunStatus()
        plan, store = plan_of(run.spec, status), open_run_store(run)
        committed = committed_steps(run, plan, store, status, self._manifests)
        return Shown(run, plan.keeping(committed), store, status, committed, driven=True, counts_gpus=True)


def _read(found: Resource) -> SelfEvolutionRun | Unread:
    if found.run is None:
        why = "this version of selfevo cannot read its spec; install the version that the cluster's operator has"
        return Unread(found.namespace, found.name, why)
    return found.run.model_copy(update={"status": found.status})
