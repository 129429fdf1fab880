"""Every leaf of the CRD is edited in runs that live, in every state that a run can be in.

Whatever the edit, the API server takes it or refuses it at once, the operator follows and lives, and the way back to
the spec that was before is open, or refused at once by the CRD's own rules. In the end every run comes to its end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    Object,
    cluster_run,
    keys_of,
    kstatus,
    phase_of,
    status_of,
    step,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.edits import Leaf, edited, leaves, spec_schema, values
from harness.cluster.kubelet_standin import FakeKubelet, playing
from harness.cluster.lives import Life
from harness.cluster.operator_process import OperatorProcess, operating

pytestmark = pytest.mark.slow

(CRD,) = (Path(__file__).parents[2] / "crds").glob("*.yaml")
LEAVES = dict(leaves(spec_schema(CRD)))
VALUES = 1
"""Of each leaf; other ones in each of the five places that have, for example, pods."""
CHAINS = 4
LONG_S = 3600


@dataclass
class Edited:
    """A run, and the spec to which it goes back."""

    api: Api
    namespace: str
    name: str
    spec: Object
    settled: Any
    """Whether it is where it was before an edit."""
    taken: dict[Leaf, int] = field(default_factory=dict)
    refused: int = 0
    kept: int = 0
    """Edits of which the way back is refused."""

    def put(self, spec: Object) -> Object:
        patch = [{"op": "replace", "path": "/spec", "value": spec}]
        return self.api.patch(RUNS, self.name, patch, self.namespace, kind="json")

    def edit(self, leaf: Leaf, value: Any) -> bool:
        """Whether the API server takes it."""
        now = self.api.get(RUNS, self.name, self.namespace)["spec"]
        try:
            self.put(edited(now, leaf, value))
        except ApiError as error:
            assert error.status in (400, 422), f"{leaf} = {value!r}: {error}"
            self.refused += 1
            return False
        self.taken[leaf] = self.taken.get(leaf, 0) + 1
        return True

    def follow(self) -> Object:
        """The run, when the operator has seen its spec."""

        def seen(run: Object) -> bool:
            return status_of(run)["observedGeneration"] == run["metadata"]["generation"]

        return wait_run(self.api, self.namespace, self.name, seen)

    def go_back(self) -> None:
        """To the spec before, and to where the run was."""
        try:
            self.put(self.spec)
        except ApiError as error:
            assert error.status == 422, error
            (cause,) = error.body["causes"]
            assert cause["field"] == "spec.iterations" and "can be raised, not lowered" in cause["message"]
            self.kept += 1
            now = self.api.get(RUNS, self.name, self.namespace)["spec"]
            self.spec = {**self.spec, "iterations": now["iterations"]}
            self.put(self.spec)
        wait_run(self.api, self.namespace, self.name, self.settled)


def choices(leaf: Leaf, now: Object) -> list[Any]:
    if leaf == ("iterations",):  # a thousand would be taken, and trained
        return [now["iterations"] + 1, 0, -1, 1001, "3", None]
    if leaf[-1] == "activeDeadlineSeconds":  # a slow machine reaches a short one, and a failed run has no way back
        return [max(value, LONG_S) if type(value) is int and value > 0 else value for value in values(LEAVES[leaf])]
    return values(LEAVES[leaf])


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    name = control_plane.make_namespace()
    yield name
    control_plane.remove_namespace(name)


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, namespace: str) -> Iterator[FakeKubelet]:
    with playing(control_plane.admin, namespace, hurry=True) as kubelet:
        yield kubelet


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    with operating(control_plane, tmp_path_factory.mktemp("operator"), [namespace]) as operator:
        yield operator


@pytest.fixture(scope="module")
def runs(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
) -> dict[str, Edited]:
    """One that is done, one that runs, one that finds no node, and one that has failed."""
    api = control_plane.admin
    untrained = {"spec__rollout__shards": 1, "spec__challenger__grpo__maxSteps": 0}
    short = {"spec__rollout__shards": 1, "spec__evaluation": None}

    def make(name: str, settled: Any, **changes: Any) -> Edited:
        made = api.create(cluster_run(name, **changes), namespace)
        run = Edited(api, namespace, name, made["spec"], lambda run: _seen(run) and settled(run))
        wait_run(api, namespace, name, run.settled)
        return run

    def works(run: Object) -> bool:
        return phase_of(run) == "Running" and step(run, "evaluate-0")["state"] == "Running"

    # With more parallelSteps, the one that runs will have a rollout that finds no node.
    done = make("done", lambda run: phase_of(run) == "Succeeded", **short | untrained)
    kubelet.script["evaluate-0"] = [Life(hangs=True) for _ in range(500)]
    kubelet.script["solver-rollout-1"] = [Life(unschedulable="no node is free") for _ in range(500)]
    kubelet.script["challenger-train-1"] = [Life(exit_code=2) for _ in range(500)]
    return {
        "done": done,
        "runs": make("runs", works, **untrained),
        "waits": make("waits", lambda run: kstatus(run) == "InProgress", **short | untrained),
        "failed": make("failed", lambda run: phase_of(run) == "Failed", **short),
    }


def _seen(run: Object) -> bool:
    return bool(phase_of(run)) and status_of(run)["observedGeneration"] == run["metadata"]["generation"]


def test_every_leaf_is_taken_or_refused_at_once_and_the_way_back_is_open(
    runs: dict[str, Edited], operator: OperatorProcess, kubelet: FakeKubelet
):
    run, pid = runs["runs"], operator.pid
    for leaf in LEAVES:
        candidates = choices(leaf, run.spec)
        for value in random.Random(str(leaf)).sample(candidates, min(VALUES, len(candidates))):
            if run.edit(leaf, value):
                run.follow()
                run.go_back()
            assert operator.alive and operator.pid == pid, operator.output
    assert len(LEAVES) > 150
    assert len(run.taken) > 60 and run.refused > 250, (len(run.taken), run.refused)
    assert "a defect" not in operator.output, operator.output


@pytest.mark.parametrize("seed", range(2))
def test_five_edits_in_a_row_and_back(runs: dict[str, Edited], operator: OperatorProcess, seed: int):
    pid = operator.pid

    def chains(name: str) -> None:
        run, dice = runs[name], random.Random(f"{seed} {name}")
        for _ in range(CHAINS):
            edits = 0
            while edits < 5:
                leaf = dice.choice(sorted(runs["runs"].taken, key=str) if dice.random() < 0.7 else list(LEAVES))
                if leaf == ("iterations",) and dice.random() < 0.8:
                    continue
                edits += run.edit(leaf, dice.choice(choices(leaf, run.spec)))
            run.go_back()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(chains, runs))
    assert operator.alive and operator.pid == pid, operator.output
    assert "a defect" not in operator.output, operator.output


def test_in_the_end_every_run_comes_to_its_end(
    control_plane: ControlPlane, namespace: str, runs: dict[str, Edited], kubelet: FakeKubelet
):
    kubelet.script.clear()
    kubelet.release("evaluate-0")
    wanted = []
    for name, run in runs.items():
        run.put(edited(run.spec, ("pods", "env"), [{"name": "ANSWER", "value": "go"}]))
        wait_phase(control_plane.admin, namespace, name, "Succeeded")
        wanted += keys_of(control_plane.admin.get(RUNS, name, namespace))
    assert sorted(kubelet.trained) == sorted(wanted), "something was not trained, or twice"
    assert kubelet.overlaps == []
