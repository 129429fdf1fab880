"""An API server and a network that do wrong: the operator goes on, or ends with a sentence and comes back whole."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import controlplane
from harness.cluster.client import Api
from harness.cluster.cluster_runs import (
    RUNS,
    cluster_run,
    eventually,
    jobs,
    keys_of,
    status_of,
    step,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.faults import Answer, BlackHole, Delay, DropAfter, DropBefore, Fault, Request, Truncate, WatchEnds
from harness.cluster.kubelet_standin import FakeKubelet
from harness.cluster.lives import Life
from harness.cluster.operator_process import ACCOUNT, OperatorProcess, operating
from harness.cluster.proxy import FaultProxy, proxied

pytestmark = pytest.mark.slow

SHORT = {"spec__evaluation": None, "spec__rollout__shards": 1}
"""Three steps: challenger-train-1, solver-rollout-1, solver-train-1."""
Start = Callable[..., OperatorProcess]


def impatient(**seconds: float) -> dict[str, str]:
    return {"SELFEVO_OPERATOR_PATIENCE": json.dumps(seconds)}


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[FaultProxy]:
    with proxied(control_plane) as proxy:
        yield proxy


@pytest.fixture
def start(control_plane: ControlPlane, namespace: str, proxy: FaultProxy, tmp_path: Path) -> Iterator[Start]:
    """Makes operators of the namespace behind the proxy, which are not started yet."""
    made: list[OperatorProcess] = []

    def start(**more: Any) -> OperatorProcess:
        made.append(OperatorProcess(control_plane, tmp_path, [namespace], server=proxy.server, **more))
        return made[-1]

    yield start
    for operator in made:
        operator.kill()
        assert "a defect" not in operator.output, operator.output


def ended(operator: OperatorProcess, limit_s: float = 180.0) -> str:
    """The sentence with which it ended by itself; it is the last line, and no traceback stands before it."""
    assert operator.wait_end(limit_s) == 1, operator.output
    lines = operator.output.splitlines()
    assert "Traceback" not in operator.output, operator.output
    assert " ERROR selfevo " in lines[-1], operator.output
    return lines[-1].split(" ERROR selfevo ", 1)[1]


def end_watches_until_it_ends(operator: OperatorProcess, proxy: FaultProxy, how: str, code: int = 410) -> None:
    """A watch that begins just now, or ends by itself just now, is met the next time."""

    def over() -> bool:
        proxy.end_watches(how, code=code)
        return not operator.alive

    eventually(over, why=operator.tail)


def lives_on(api: Api, namespace: str, kubelet: FakeKubelet, run: dict[str, Any], limit_s: float = 300.0) -> None:
    """It comes to its end before the next regular list, and nothing was done twice."""
    wait_phase(api, namespace, run["metadata"]["name"], "Succeeded", limit_s)
    assert sorted(kubelet.trained) == keys_of(run)
    assert kubelet.overlaps == []


# --- answers that say no, and none at all


@pytest.mark.parametrize("code", [409, 429, 500, 503])
def test_an_api_server_that_says_no_for_a_while(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start, code: int
):
    operator = start().run()
    eventually(lambda: proxy.watching() == 2)
    for verb in ("create", "patch", "get"):
        proxy.inject(Answer(code), verb=verb, times=3)
    run = api.create(cluster_run(**SHORT), namespace)
    lives_on(api, namespace, kubelet, run)
    assert operator.metric("selfevo_api_calls_total", code=str(code)) >= 6
    assert len(jobs(api, namespace)) == 3


def test_retry_after_is_waited_for(api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start):
    arrivals: list[float] = []

    def decide(request: Request) -> Fault | None:
        if (request.verb, request.path.split("/")[-1]) != ("create", "jobs"):
            return None
        arrivals.append(time.monotonic())
        return Answer(429, retry_after=4) if len(arrivals) == 1 else None

    start().run()
    proxy.decide = decide
    run = api.create(cluster_run(**SHORT), namespace)
    eventually(lambda: arrivals)
    api.patch(RUNS, "demo", {"spec": {"backoffLimit": 7}}, namespace)  # what happens meanwhile does not shorten it
    lives_on(api, namespace, kubelet, run)
    assert arrivals[1] - arrivals[0] >= 4


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_goes_wrong_for_a_while_a_run_comes_to_its_end(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start, seed: int
):
    dice = random.Random(seed)
    faults = [Answer(409), Answer(429, 1), Answer(500), DropBefore(), DropAfter(), Truncate(20), Delay(0.3)]
    watches = [WatchEnds("drop", after=2), WatchEnds("error", after=1, code=410), Answer(410), Answer(500)]
    operator = start(env=impatient(request=5, watch=5)).run()
    until = time.monotonic() + 12

    def decide(request: Request) -> Fault | None:
        if time.monotonic() > until or dice.random() > 0.4:
            return None
        return dice.choice(watches if request.is_watch else faults)

    proxy.decide = decide
    run = api.create(cluster_run(spec__rollout__shards=1), namespace)
    deadline = time.monotonic() + 300
    while (
        time.monotonic() < deadline and api.get(RUNS, "demo", namespace).get("status", {}).get("phase") != "Succeeded"
    ):
        if not operator.alive:  # as the kubelet does it; but not without a sentence
            ended(operator)
            operator.start()  # it may end again before it is ready
        time.sleep(0.2)
    lives_on(api, namespace, kubelet, run)
    assert len(jobs(api, namespace)) == 5


def test_a_black_hole_is_an_error_after_a_while(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start
):
    operator = start(env=impatient(request=2)).run()
    proxy.inject(BlackHole(), verb="create", path="/jobs$")
    proxy.inject(BlackHole(), verb="patch", path="/status$", skip=1)
    run = api.create(cluster_run(**SHORT), namespace)
    lives_on(api, namespace, kubelet, run)
    assert operator.metric("selfevo_api_calls_total", code="0") == 2
    assert "no answer from http://127.0.0.1" in operator.output


def test_an_api_server_that_is_started_anew(
    control_plane: ControlPlane, api: Api, namespace: str, kubelet: FakeKubelet, start: Start
):
    operator = start().run()
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    run = api.create(cluster_run(**SHORT), namespace)
    kubelet.wait_running("challenger-train-1")
    pid = operator.pid
    control_plane.stop_apiserver()
    time.sleep(2)
    control_plane.start_apiserver()
    kubelet.release("challenger-train-1")
    lives_on(api, namespace, kubelet, run)
    assert operator.alive and operator.pid == pid
    assert operator.ask("/healthz") == (200, "ok\n")


# --- watches


@pytest.mark.parametrize("how", ["drop", "error"])
def test_watches_that_break_or_expire_all_the_time(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start, how: str
):
    operator = start().run()
    run = api.create(cluster_run(**SHORT), namespace)
    broken = 0
    while api.get(RUNS, "demo", namespace).get("status", {}).get("phase") != "Succeeded":
        broken += proxy.end_watches(how)
        time.sleep(0.4)
    assert broken > 4
    lives_on(api, namespace, kubelet, run)
    assert operator.alive


def test_what_is_deleted_while_a_watch_is_broken_is_noticed(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start
):
    start().run()
    kubelet.script["solver-train-1"] = [Life(hangs=True)]
    run = api.create(cluster_run(**SHORT), namespace)
    kubelet.wait_running("solver-train-1")
    wait_run(api, namespace, "demo", lambda run: step(run, "solver-train-1"))
    name = jobs(api, namespace)[-1]["metadata"]["name"]
    # Expired, it begins with a list, and before that list the Job goes: nobody will tell of it.
    listing, gone = threading.Event(), threading.Event()

    def decide(request: Request) -> Fault | None:
        if request.verb == "list" and request.path.endswith("/jobs"):
            listing.set()
            gone.wait(60)
        return None

    def begins() -> bool:
        proxy.end_watches("error", path="/jobs$")
        return listing.is_set()

    proxy.decide = decide
    eventually(begins)
    api.delete("jobs", name, namespace)
    api.wait("jobs", name, namespace, until=lambda job: job is None)
    gone.set()
    lives_on(api, namespace, kubelet, run)


def test_a_watch_that_is_held_is_opened_anew(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start
):
    operator = start(env=impatient(watch=3)).run()
    eventually(lambda: proxy.watching() == 2)
    proxy.end_watches("hold")
    run = api.create(cluster_run(**SHORT), namespace)
    lives_on(api, namespace, kubelet, run)
    assert operator.alive


def test_a_watch_that_stays_silent_ends_the_process_which_comes_back(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start
):
    operator = start(flags=["--resync-seconds", "2"]).run()
    eventually(lambda: proxy.watching() == 2)
    proxy.end_watches("hold")
    run = api.create(cluster_run(), namespace)
    end_watches_until_it_ends(operator, proxy, "hold")
    message = ended(operator)
    assert message.startswith("the watch of ") and message.endswith("while they changed; starting anew"), message
    operator.run()
    lives_on(api, namespace, kubelet, run)


def test_an_error_in_a_watch_ends_the_process_which_comes_back(
    api: Api, namespace: str, proxy: FaultProxy, kubelet: FakeKubelet, start: Start
):
    operator = start().run()
    kubelet.script["challenger-train-1"] = [Life(hangs=True)]
    run = api.create(cluster_run(**SHORT), namespace)
    kubelet.wait_running("challenger-train-1")
    end_watches_until_it_ends(operator, proxy, "error", code=500)
    message = ended(operator)
    assert (
        message.startswith("watching ended: ") and "500 by the proxy" in message and message.endswith("; starting anew")
    )
    kubelet.release("challenger-train-1")
    operator.run()
    lives_on(api, namespace, kubelet, run)


def test_a_list_whose_continuation_has_expired_is_begun_anew(api: Api, namespace: str, proxy: FaultProxy, start: Start):
    with ThreadPoolExecutor(8) as pool:
        names = [f"run-{number:03}" for number in range(510)]
        list(pool.map(lambda name: api.create(cluster_run(name, spec__suspend=True), namespace), names))
    expired = []

    def decide(request: Request) -> Fault | None:
        if "continue" not in request.query or len(expired) == 3:
            return None
        expired.append(request)
        return Answer(410)

    proxy.decide = decide
    operator = start()
    operator.start()
    deadline = time.monotonic() + 300
    while operator.ask("/readyz")[0] != 200:
        assert time.monotonic() < deadline, operator.output
        if not operator.alive:
            ended(operator)
            operator.start()
        time.sleep(0.1)
    assert len(expired) == 3
    assert operator.metric("selfevo_runs") == 510


# --- what it cannot do without


@pytest.fixture(scope="module")
def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Without our CRD."""
    try:
        with controlplane.running(tmp_path_factory.mktemp("bare-plane")) as plane:
            yield plane
    except controlplane.ToolUnavailable as reason:
        pytest.skip(str(reason))


def test_without_the_crd_it_says_what_to_apply(bare_plane: ControlPlane, tmp_path: Path):
    operator = OperatorProcess(bare_plane, tmp_path)
    operator.start()
    assert ended(operator) == (
        "the API server knows no SelfEvolutionRun; apply crds/ (or install the chart), then start again"
    )


def test_without_rights_it_says_whose_they_are(control_plane: ControlPlane, api: Api, namespace: str, start: Start):
    operator = start()
    api.delete("rolebindings", ACCOUNT, namespace)
    operator.start()
    message = ended(operator)
    assert message.startswith("the API server refuses us: ") and message.endswith(
        "grant the rights that the chart's Role lists"
    )
    assert "cannot list resource" in message and namespace in message


@pytest.mark.parametrize("when", ["at its start", "later"])
def test_a_namespace_that_refuses_us_is_reported_and_the_other_is_served(
    control_plane: ControlPlane, api: Api, namespace: str, kubelet: FakeKubelet, tmp_path: Path, when: str
):
    closed = control_plane.make_namespace()
    operator = OperatorProcess(control_plane, tmp_path, [closed, namespace], flags=["--resync-seconds", "5"])
    binding = api.get("rolebindings", ACCOUNT, closed)
    if when == "at its start":
        api.delete("rolebindings", ACCOUNT, closed)
        operator.run()
    else:
        operator.run()
        api.delete("rolebindings", ACCOUNT, closed)
    try:
        eventually(lambda: operator.metric("selfevo_namespace_refused", namespace=closed) == 1, 120)
        api.create(cluster_run(**SHORT, spec__suspend=True), closed)
        run = api.create(cluster_run(**SHORT), namespace)
        lives_on(api, namespace, kubelet, run)
        assert f"namespace {closed} cannot be served: " in operator.output and operator.alive
        assert status_of(api.get(RUNS, "demo", closed)) == {"observedGeneration": 0}
        api.create({part: binding[part] for part in ("apiVersion", "kind", "roleRef", "subjects")}
                   | {"metadata": {"name": ACCOUNT}}, closed)  # fmt: skip
        wait_phase(api, closed, "demo", "Suspended")
        eventually(lambda: operator.metric("selfevo_namespace_refused", namespace=closed) == 0, 120)
    finally:
        operator.kill()
        control_plane.remove_namespace(closed)
    assert "Traceback" not in operator.output, operator.output


# --- probes


def test_it_is_not_ready_before_everything_is_listed(namespace: str, proxy: FaultProxy, start: Start):
    proxy.inject(Delay(4), verb="list", path=f"{RUNS}$", times=None)
    operator = start()
    operator.start()
    assert operator.wait_for("/readyz", 503) == "runs and Jobs are not listed yet\n"
    assert operator.ask("/healthz") == (200, "ok\n")
    assert operator.wait_for("/readyz", 200) == "ok\n"


def test_liveness_fails_when_a_reconcile_hangs(api: Api, namespace: str, proxy: FaultProxy, start: Start):
    operator = start(env=impatient(request=60, stuck=1)).run()
    proxy.inject(BlackHole(), verb="create", path="/jobs$", times=None)
    api.create(cluster_run(), namespace)
    assert operator.wait_for("/healthz", 503).startswith("a reconcile has taken ")
    assert operator.ask("/readyz")[0] == 503


def test_liveness_does_not_follow_a_slow_api_server(api: Api, namespace: str, proxy: FaultProxy, start: Start):
    operator = start(env=impatient(request=60, stuck=3), flags=["--workers", "1"]).run()
    proxy.inject(Delay(2), verb="create", path="/jobs$", times=None)
    for number in range(8):
        api.create(cluster_run(f"run-{number}"), namespace)
    eventually(lambda: operator.metric("selfevo_queue_oldest_seconds") > 3, 60)
    assert operator.ask("/healthz") == (200, "ok\n")


def test_a_stuck_process_answers_nothing(start: Start):
    operator = start().run()
    operator.pause()
    assert operator.ask("/healthz", timeout_s=1)[0] == 0
    operator.go_on()
    assert operator.wait_for("/healthz", 200) == "ok\n"


def test_it_ends_well_on_sigterm(namespace: str, control_plane: ControlPlane, tmp_path: Path):
    with operating(control_plane, tmp_path, [namespace]) as operator:
        operator.stop()
        assert operator.exit_code == 0, operator.output
