"""Whole lives of runs on a real control plane; the operator has its own ServiceAccount and the rights that ship."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import tools
from harness.cluster.cluster_runs import (
    RUNS,
    STEPS,
    cluster_run,
    conditions,
    events,
    eventually,
    jobs,
    keys_of,
    kstatus,
    phase_of,
    status_of,
    wait_event,
    wait_phase,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet, playing
from harness.cluster.manifests import job
from harness.cluster.operator_process import OperatorProcess, operating
from harness.gotools import ToolUnavailable

pytestmark = pytest.mark.slow
Object = dict[str, Any]


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    with operating(control_plane, tmp_path, [namespace], flags=["--resync-seconds", "1"]) as operator:
        yield operator


class _History:
    """Every version of every object of a kind in a namespace, as one watch saw them."""

    def __init__(self, plane: ControlPlane, resource: str, namespace: str) -> None:
        self.seen: list[tuple[str, Object]] = []
        self._watch = plane.admin.watch(resource, namespace)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for event in self._watch:
            self.seen.append(event)

    def close(self) -> list[Object]:
        self._watch.close()
        self._thread.join(60)
        return [each for kind, each in self.seen if kind != "DELETED"]


def test_a_run_lives_from_its_creation_to_its_model(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
):
    api = control_plane.admin
    runs, all_jobs = _History(control_plane, RUNS, namespace), _History(control_plane, "jobs", namespace)
    run = api.create(cluster_run(), namespace)
    done = wait_phase(api, namespace, "demo", "Succeeded")
    wait_event(api, namespace, "run Succeeded")
    time.sleep(0.5)  # the last reply is counted
    writes = _writes(operator)
    time.sleep(2.5)  # two lists more
    assert _writes(operator) == writes, "it writes although nothing happens"
    assert api.get(RUNS, "demo", namespace) == done
    versions, job_versions = runs.close(), all_jobs.close()

    # What was done: each step once, by a Job of its own, in the order of the plan.
    assert [each["metadata"]["labels"]["selfevo.dev/step"] for each in jobs(api, namespace)] == list(STEPS)
    assert sorted(kubelet.trained) == keys_of(run)
    assert kubelet.overlaps == []

    # Its Events.
    status = status_of(done)
    assert [(s["name"], s["state"], s["attempts"], s["ended"]) for s in status["steps"]] == [
        (name, "Succeeded", 1, 1) for name in STEPS
    ]
    assert [(a["step"], a["state"], a["exitCode"]) for a in status["attempts"]] == [
        (name, "Succeeded", 0) for name in STEPS
    ]
    assert all(a["log"].startswith(f"kubectl logs -n {namespace} job/{a['name']}") for a in status["attempts"])
    key = next(s["key"] for s in status["steps"] if s["name"] == "solver-train-1")
    assert status["modelUri"] == f"s3://bucket/selfevo/{namespace}/solver-train/{key}"
    assert (status["best"]["iteration"], status["best"]["score"], status["score"]) == (1, 0.6, 0.6)
    assert [iteration["iteration"] for iteration in status["iterations"]] == [0, 1]

    # As tools read it, at every moment.
    phases = [phase for phase, _ in itertools.groupby(filter(None, map(phase_of, versions)))]
    assert phases in (["Pending", "Running", "Succeeded"], ["Running", "Succeeded"])
    readings = [kstatus(version) for version in versions if status_of(version)]
    assert [reading for reading, _ in itertools.groupby(readings)] == ["InProgress", "Current"]
    assert conditions(done) == {"Ready": "AllStepsSucceeded", "Complete": "AllStepsSucceeded"}
    for before, after in itertools.pairwise(v for v in versions if phase_of(v)):
        _conditions_move_only_where_they_flip(before, after)
    recorded = events(api, namespace)
    # Several of them where the operator was slow: one Event tells all that is new.
    facts = [fact for _, text in recorded for fact in text.split("; ")]
    for words in ("started", "is done"):
        assert sorted(fact.split(" ")[0] for fact in facts if fact.endswith(f" {words}")) == sorted(STEPS)
    reason, last = recorded[-1]
    assert reason == "Succeeded" and last.endswith(f"{STEPS[-1]} is done; run Succeeded: 5 of 5 steps done")
    assert len({text for _, text in recorded}) == len(recorded)

    # kopf writes nothing, and the operator only what is its own.
    for version in versions:
        assert not {"annotations", "finalizers"} & set(version["metadata"])
        assert {(f["manager"], f.get("subresource")) for f in version["metadata"]["managedFields"]} <= {
            ("python-urllib3", None),
            ("selfevo-operator", "status"),
        }
    for version in job_versions:
        assert set(version["metadata"]["annotations"]) == {"selfevo.dev/key", "selfevo.dev/template"}
        assert "finalizers" not in version["metadata"]
        assert {(f["manager"], f.get("subresource")) for f in version["metadata"]["managedFields"]} <= {
            ("selfevo-operator", None),
            ("kube-controller-manager", "status"),
        }
    # A transition is what the status then says; deciding nothing, a pod that runs is reported at most once a step.
    transitions = len({_decided(version) for version in versions})
    assert writes <= 3 * transitions, f"{writes} writes in {transitions} transitions"


def _writes(operator: OperatorProcess) -> float:
    return sum(operator.metric("selfevo_api_calls_total", verb=verb) for verb in ("create", "patch", "delete"))


def _decided(run: Object) -> tuple[Any, ...]:
    return tuple((s["name"], s["state"], s["attempts"]) for s in status_of(run).get("steps", []))


def _conditions_move_only_where_they_flip(before: Object, after: Object) -> None:
    old, new = ({c["type"]: c for c in status_of(run)["conditions"]} for run in (before, after))
    assert set(new) == {"Ready", "Reconciling", "Stalled", "Suspended", "Complete", "Failed"}
    for kind, condition in new.items():
        assert condition["observedGeneration"] == after["status"]["observedGeneration"]
        flipped = condition["status"] != old[kind]["status"]
        assert flipped or condition["lastTransitionTime"] == old[kind]["lastTransitionTime"]


def test_one_operator_serves_the_whole_cluster(control_plane: ControlPlane, tmp_path: Path):
    api = control_plane.admin
    here, there = (control_plane.make_namespace() for _ in range(2))
    with (
        playing(api, here) as first,
        playing(api, there) as second,
        operating(control_plane, tmp_path) as operator,
    ):
        made = [api.create(cluster_run(spec__rollout__shards=1), namespace) for namespace in (here, there)]
        for namespace in (here, there):
            wait_phase(api, namespace, "demo", "Succeeded")
        assert [sorted(kubelet.trained) for kubelet in (first, second)] == [keys_of(run) for run in made]

        # Its own write may be sent to another watch before the answer has reached it. Runs of earlier tests may yet go
        # away; one that outlives its namespace cannot be written to, and is dropped where that is tried.
        def counted_and_true() -> tuple[float, list[str], list[str]]:
            ended = [run["metadata"]["namespace"] for run in api.list(RUNS) if phase_of(run) == "Succeeded"]
            there_is = {each["metadata"]["name"] for each in api.list("namespaces")}
            return (
                operator.metric("selfevo_runs", phase="Succeeded"),
                [each for each in ended if each in there_is],
                ended,
            )

        def right() -> bool:
            counted, reachable, ended = counted_and_true()
            return {here, there} <= set(reachable) and len(reachable) <= counted <= len(ended)

        eventually(right, why=counted_and_true)
    for namespace in (here, there):
        control_plane.remove_namespace(namespace)


def test_a_person_sees_at_a_glance_where_runs_stand(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess, tmp_path: Path
):
    try:
        kubectl = tools.program(tools.KUBECTL)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    api = control_plane.admin
    api.create(cluster_run("done", spec__queue="team-a"), namespace)
    api.create(cluster_run("held", spec__suspend=True), namespace)
    wait_phase(api, namespace, "done", "Succeeded")
    wait_phase(api, namespace, "held", "Suspended")
    config = control_plane.kubeconfig(control_plane.admin_token, tmp_path / "kubeconfig", namespace=namespace)

    def get(*arguments: str) -> list[list[str]]:
        command = [str(kubectl), "--kubeconfig", str(config), "get", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)})
        return [line.split() for line in answer.stdout.splitlines()]

    head, done, held = get("ser")
    assert head == ["NAME", "PHASE", "ITERATION", "BEST", "SCORE", "QUEUE", "AGE"]
    assert done[:-1] == ["done", "Succeeded", "1", "1", "0.6", "team-a"]
    assert held[:3] == ["held", "Suspended", "0"]
    wide = get("ser", "-o", "wide")
    assert wide[0][7:] == ["REASON", "MESSAGE", "PROGRESS", "GUARDS", "VERIFIER", "BASE", "MODEL"]
    assert "AllStepsSucceeded" in wide[1] and wide[1][-1].startswith("s3://bucket/selfevo/")
    assert any("selfevolutionrun.selfevo.dev/done" in row for row in get("all", "-o", "name"))


def test_jobs_of_others_cost_nothing(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
):
    api = control_plane.admin
    api.create(cluster_run(), namespace)
    wait_phase(api, namespace, "demo", "Succeeded")
    seen = operator.metric("selfevo_watch_events_total", resource="jobs")
    assert seen > len(STEPS)
    for number in range(200):
        api.create(job(f"foreign-{number}", suspend=True), namespace)
    api.create(cluster_run("later", spec__evaluation=None), namespace)
    wait_phase(api, namespace, "later", "Succeeded")  # by then it would have heard of the others too
    of_later = operator.metric("selfevo_watch_events_total", resource="jobs") - seen
    assert 0 < of_later < 60, "a Job has 5 to 10 versions, and these are 3"
    assert operator.metric("selfevo_jobs") == len(STEPS) + 3


def test_metrics_are_clean_and_tell_of_a_life(
    control_plane: ControlPlane, namespace: str, kubelet: FakeKubelet, operator: OperatorProcess
):
    try:
        promtool = tools.program(tools.PROMTOOL)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    control_plane.admin.create(cluster_run(spec__evaluation=None), namespace)
    wait_phase(control_plane.admin, namespace, "demo", "Succeeded")
    eventually(lambda: operator.metric("selfevo_runs", phase="Succeeded") == 1)
    _, text = operator.ask("/metrics")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert operator.metric("selfevo_api_calls_total", verb="create", resource="jobs", code="201") == 3
    assert operator.metric("selfevo_step_gap_seconds_count") == 2
    counted = len(wait_event(control_plane.admin, namespace, "run Succeeded"))
    eventually(lambda: operator.metric("selfevo_transitions_total") == counted)
    assert operator.metric("selfevo_queue_depth") == operator.metric("selfevo_queue_oldest_seconds") == 0
    assert operator.metric("selfevo_reconcile_errors_total") == 0
