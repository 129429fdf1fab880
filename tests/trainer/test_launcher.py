"""Several processes, one result: which of them is the cause, that all end, and how pods that train together agree."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.distributed import PrefixStore, TCPStore

from harness.fake_ranks import HANG, TERMINATED, Acts, Pod, config, fails
from harness.ports import free_port
from harness.processes import alive
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.process import PhaseResult
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.distributed import launcher, rendezvous, root_cause
from selfevo_trainer.distributed.layout import ALONE, Layout, Rank, check_batch, read_layout, read_rank

DATA = fails(4, "NotFinite", "training made lm_head infinite or NaN; lower learningRate")
INPUT = fails(2, "InvalidInput", "the model has no config.json; name another")
SERVICE = fails(3, "ServiceFailed", "storage.uri s3://x: does not answer; try again later")
CRASH = fails(3, "Crashed", "RuntimeError: Connection closed by peer")
FIRST, SECOND = fails(3, "Crashed", "first"), fails(3, "Crashed", "second")
READY: Acts = [["touch", "ready"]]
WAIT: Acts = [["until", "ready"]]
"""For the other to be ready: in the pod's working directory."""


@pytest.fixture(autouse=True)
def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll more often than a training needs."""
    monkeypatch.setattr(launcher, "_POLL_S", 0.02)
    monkeypatch.setattr(rendezvous, "_POLL_S", 0.02)
    monkeypatch.setattr(rendezvous, "_TRY_AGAIN_S", 0.2)


def alone(tmp_path: Path, acts: dict[int, Acts], **other: Any) -> Pod:
    return Pod(Layout(processes=max(2, len(acts))), tmp_path / "pod", acts, **other)


def pods(tmp_path: Path, acts: dict[int, Acts], nodes: int = 2, **other: Any) -> list[Pod]:
    """Pods with a process each: pod k has rank k."""
    port = free_port("")
    return [
        Pod(Layout(1, nodes, node, port=port, join_s=120), tmp_path / f"pod-{node}", acts, **other)
        for node in range(nodes)
    ]


def leaving_environments(folder: Path, size: int) -> dict[int, Acts]:
    """Each rank leaves its environment in ``folder``, as JSON in a file of its number, and all is well. The first ends
    last: when it has, nobody waits for the others."""
    acts: dict[int, Acts] = {}
    for rank in reversed(range(size)):
        others: Acts = [] if rank else [["until", str(folder / f"{other}.there")] for other in acts]
        left: Acts = [["env", str(folder / str(rank))], ["touch", str(folder / f"{rank}.there")]]
        acts[rank] = [*left, *others, ["say", {}], ["exit", 0]]
    return acts


def summary_of(result: PhaseResult) -> tuple[int, str, str]:
    return result.exit_code, result.reason, result.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ({0: HANG, 1: DATA}, (4, "NotFinite", "lower learningRate")),
        ({0: INPUT, 1: HANG}, (2, "InvalidInput", "config.json")),
        ({0: HANG, 1: SERVICE}, (3, "ServiceFailed", "does not answer")),
        # What follows from a failure may be reported before the failure itself.
        (
            {0: [*WAIT, *CRASH], 1: [["sigterm", []], *READY, ["sleep", 0.3], *DATA]},
            (4, "NotFinite", "lower learningRate"),
        ),
        (
            {0: [*WAIT, *CRASH], 1: [["sigterm", [["sleep", 0.1], *SERVICE]], *READY, ["sleep", 60]]},
            (3, "ServiceFailed", "does not answer"),
        ),
        (
            {0: [["sigterm", CRASH], ["sleep", 60]], 1: [["die", 9]]},
            (3, "ProcessLost", "process 1 of 2 was killed by SIGKILL"),
        ),
        ({0: HANG, 1: [["exit", 1]]}, (3, "ProcessLost", "process 1 of 2 ended with code 1 and left no result")),
        ({0: HANG, 1: [["die", 11]]}, (3, "ProcessLost", "SIGSEGV")),
        ({0: HANG, 1: [["sleep", 0.2], *CRASH], 2: HANG}, (3, "Crashed", "Connection closed")),
        # Two crashes: the earlier one.
        (
            {0: [["sigterm", []], *READY, ["sleep", 0.3], *SECOND], 1: [*WAIT, *FIRST]},
            (3, "Crashed", "first"),
        ),
    ],
)
def test_the_process_that_was_the_cause_is_what_the_pod_ends_with(
    tmp_path: Path, acts: dict[int, Acts], expected: tuple[int, str, str]
) -> None:
    code, reason, message = summary_of(alone(tmp_path, acts, grace_s=60).ended())
    assert (code, reason) == expected[:2] and expected[2] in message


def test_all_well_is_what_the_first_process_says(tmp_path: Path) -> None:
    acts: dict[int, Acts] = {
        0: [["sleep", 0.3], ["say", {"metrics": {"reward": 1.0}}], ["exit", 0]],
        1: [["say", {"metrics": {}}], ["exit", 0]],
    }
    result = alone(tmp_path, acts).ended()
    assert (result.outcome, result.metrics) == ("committed", {"reward": 1.0})


@pytest.mark.parametrize("at_its_end", [[["exit", 1]], [["say", {}], ["die", 11]], [["deaf", 0], ["sleep", 60]]])
def test_what_is_committed_is_committed_whatever_another_does_at_its_end(tmp_path: Path, at_its_end: Acts) -> None:
    first: Acts = [["say", {}], ["touch", str(tmp_path / "done")], ["exit", 0]]
    pod = alone(tmp_path, {0: first, 1: [["until", str(tmp_path / "done")], ["sleep", 0.2], *at_its_end]})
    assert pod.ended().outcome == "committed"


def test_a_process_that_does_not_end_is_killed_and_none_is_left(tmp_path: Path) -> None:
    others = set(_children())  # servers of other tests live as long as this process
    env = tmp_path / "env"
    deaf: Acts = [["deaf", 0], ["env", str(env)], ["sleep", 60]]
    pod = alone(tmp_path, {0: deaf, 1: [["until", str(env)], *DATA]})
    assert pod.ended().reason == "NotFinite"
    # A process that was killed is gone when the kernel has come to it.
    deadline = time.monotonic() + 120
    while [pid for pid in _children() if pid not in others and alive(pid)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


def test_sigterm_reaches_every_process_and_is_the_reason_of_the_end(tmp_path: Path) -> None:
    ready = [str(tmp_path / name) for name in ("0", "1")]
    pod = alone(
        tmp_path,
        {
            0: [*HANG[:1], ["touch", ready[0]], ["sleep", 60]],
            # A collective that breaks off because another process was quicker.
            1: [["sigterm", CRASH], ["touch", ready[1]], ["sleep", 60]],
        },
    )
    while not all(Path(file).exists() for file in ready):
        time.sleep(0.01)
    pod.stop.requested = True
    assert summary_of(pod.ended()) == (143, "Terminated", "stopped on request after step 3 of 5")


def test_bad_data_is_bad_data_also_while_stopping(tmp_path: Path) -> None:
    ready = str(tmp_path / "ready")
    pod = alone(tmp_path, {0: HANG, 1: [["sigterm", DATA], ["touch", ready], ["sleep", 60]]})
    while not Path(ready).exists():
        time.sleep(0.01)
    pod.stop.requested = True
    assert pod.ended().exit_code == 4


def test_each_process_gets_what_torch_needs_and_where_to_write_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    alone(tmp_path, leaving_environments(tmp_path, 2)).ended()
    environments = [json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1)]
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    assert [[env[name] for name in names] for env in environments] == [
        ["0", "0", "2", "2", "127.0.0.1"],
        ["1", "1", "2", "2", "127.0.0.1"],
    ]
    assert environments[0]["MASTER_PORT"] == environments[1]["MASTER_PORT"] != "0"
    assert environments[0]["SELFEVO_TERMINATION_LOG"] != environments[1]["SELFEVO_TERMINATION_LOG"]
    assert all(
        int(env["OMP_NUM_THREADS"]) >= 1 and env["SELFEVO_PARENT_PID"] == str(os.getpid()) for env in environments
    )


# Pods that train together.


def test_pods_end_well_together_with_the_result_of_pod_0(tmp_path: Path) -> None:
    first: Acts = [["sleep", 0.4], ["say", {"metrics": {"reward": 1.0}}], ["exit", 0]]
    results = [pod.ended() for pod in pods(tmp_path, {0: first}, nodes=3)]
    assert [(result.outcome, result.metrics) for result in results] == [("committed", {"reward": 1.0})] * 3


def test_ranks_are_numbered_over_the_pods_and_meet_at_one_port(tmp_path: Path) -> None:
    port = free_port("")
    acts = leaving_environments(tmp_path, 4)
    both = [Pod(Layout(2, 2, node, "localhost", port, 20), tmp_path / f"pod-{node}", acts) for node in (0, 1)]
    assert [pod.ended().outcome for pod in both] == ["committed", "committed"]
    environments = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(4)]
    assert [(env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"]) for env in environments] == [
        ("0", "0", "4"),
        ("1", "1", "4"),
        ("2", "0", "4"),
        ("3", "1", "4"),
    ]
    assert len({(env["MASTER_ADDR"], env["MASTER_PORT"]) for env in environments}) == 1


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_failure_is_counted_where_it_was_and_reported_everywhere(tmp_path: Path, where: int) -> None:
    acts: dict[int, Acts] = {rank: [["sigterm", CRASH], ["sleep", 60]] for rank in range(3)}
    acts[where] = [["sleep", 0.3], *DATA]
    # Reported at once: nobody waits until the patience with the others is over.
    results = [pod.ended(within_s=120) for pod in pods(tmp_path, acts, nodes=3, grace_s=600)]
    for node, result in enumerate(results):
        if node == where:
            assert summary_of(result)[:2] == (4, "NotFinite")
        else:
            assert summary_of(result)[:2] == (143, "PeerFailed")
            assert f"pod {where}: training made lm_head infinite" in result.message


def test_a_pod_whose_processes_break_off_before_it_hears_why_is_no_cause(tmp_path: Path) -> None:
    """The collective breaks at pod 0 first; pod 1, where a process was killed, says so only after its others ended."""
    victim = str(tmp_path / "victim")
    # Not before it is dead: else pod 0's alarm could end it first, and its end would be what it was asked for.
    acts: dict[int, Acts] = {0: [["outlive", victim], *CRASH], 1: [["name", victim], ["die", 9]]}
    first, second = (pod.ended() for pod in pods(tmp_path, acts, grace_s=60))
    assert (
        summary_of(first)[:2] == (143, "PeerFailed") and "pod 1: process 1 of 2 was killed by SIGKILL" in first.message
    )
    assert summary_of(second)[:2] == (3, "ProcessLost")


@pytest.mark.parametrize("where", [0, 1])
def test_sigterm_in_one_pod_ends_all_with_143(tmp_path: Path, where: int) -> None:
    ready = [str(tmp_path / name) for name in ("0", "1")]
    acts: dict[int, Acts] = {
        rank: [["sigterm", [["sleep", 0.2], ["say", TERMINATED], ["exit", 143]]], ["touch", ready[rank]], ["sleep", 60]]
        for rank in (0, 1)
    }
    # The other's collective breaks off before it gets any signal.
    acts[1 - where] = [["sigterm", CRASH], ["touch", ready[1 - where]], ["sleep", 60]]
    both = pods(tmp_path, acts, grace_s=60)
    while not all(Path(file).exists() for file in ready):
        time.sleep(0.01)
    both[where].stop.requested = True
    assert summary_of(both[where].ended()) == (143, "Terminated", "stopped on request after step 3 of 5")
    other = both[1 - where].ended()
    assert summary_of(other)[:2] == (143, "PeerFailed") and f"pod {where}: stopped on request" in other.message


def test_a_pod_whose_processes_are_done_waits_until_pod_0_has_committed(tmp_path: Path) -> None:
    commit = str(tmp_path / "commit")
    first, second = pods(tmp_path, {0: [["until", commit], *SERVICE]})
    time.sleep(0.5)
    assert second.thread.is_alive()  # its process ended at once, but nothing is committed
    Path(commit).touch()
    assert summary_of(first.ended())[:2] == (3, "ServiceFailed")
    # An index of the Job that ends with 0 would never be run again.
    assert summary_of(second.ended())[:2] == (143, "PeerFailed")


def test_sigterm_while_pod_0_commits_is_no_success(tmp_path: Path) -> None:
    commit = str(tmp_path / "commit")
    first, second = pods(tmp_path, {0: [["until", commit], ["say", {}], ["exit", 0]]})
    time.sleep(0.5)
    second.stop.requested = True
    assert summary_of(second.ended())[:2] == (143, "Terminated")
    Path(commit).touch()
    assert first.ended().outcome in ("committed", "terminated")


class Stranger:
    """A stand-in for a pod's launcher, for as long as it is held open."""

    def __init__(self, port: int, node: int, nodes: int = 2) -> None:
        wait_for_port(port)
        store = TCPStore("localhost", port, None, False, timedelta(seconds=60), wait_for_workers=False)
        self.store = PrefixStore(f"selfevo/{config().key}/{nodes}", store)
        self.store.set(f"pod/{node}", "stranger")
        self._open = True
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while self._open:
            self.store.add("beat/stranger", 1)
            time.sleep(0.05)

    def close(self) -> None:
        self._open = False
        self._thread.join()


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("localhost", port), timeout=60).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_pod_that_is_gone_without_a_word_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "LOST_S", 1)
    port = free_port("")
    first = Pod(Layout(1, 2, 0, port=port, join_s=120), tmp_path / "pod-0", {0: HANG})
    other = Stranger(port, 1)
    other.store.wait(["go"])
    other.close()
    code, reason, message = summary_of(first.ended())
    assert (code, reason) == (143, "PeerFailed") and "pod 1: it is gone" in message


def test_pod_0_gone_without_a_word_ends_the_others(tmp_path: Path) -> None:
    server = TCPStore("localhost", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
    store = PrefixStore(f"selfevo/{config().key}/2", server)
    acts: dict[int, Acts] = {1: [["touch", str(tmp_path / "began")], ["sigterm", CRASH], ["sleep", 60]]}
    second = Pod(Layout(1, 2, 1, port=server.port, join_s=120), tmp_path / "pod-1", acts)
    store.wait(["pod/1"])
    store.set("go", json.dumps(["pod-0", store.get("pod/1").decode()]))
    while not (tmp_path / "began").exists():
        assert second.thread.is_alive()
        time.sleep(0.02)
    del store, server
    code, reason, message = summary_of(second.ended())
    assert (code, reason) == (143, "PeerFailed") and "pod 0: it is gone" in message


_SERVE = r"""
import json, os, signal, sys
from datetime import timedelta
from torch.distributed import PrefixStore, TCPStore
server = TCPStore("localhost", int(sys.argv[1]), None, True, timedelta(seconds=60), wait_for_workers=False)
store = PrefixStore(f"selfevo/{sys.argv[2]}/2", server)
store.wait(["pod/1"])
store.set("go", json.dumps(["pod-0", store.get("pod/1").decode()]))
while not os.path.exists(sys.argv[3]):
    pass
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.slow
def test_pod_0_whose_machine_stopped_dead_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "LOST_S", 5)
    port, began = free_port(""), str(tmp_path / "began")
    pod_0 = subprocess.Popen([sys.executable, "-c", _SERVE, str(port), config().key, began])
    try:
        acts: dict[int, Acts] = {1: [["touch", began], ["sigterm", CRASH], ["sleep", 60]]}
        second = Pod(Layout(1, 2, 1, port=port, join_s=120), tmp_path / "pod-1", acts)
        code, reason, message = summary_of(second.ended())
    finally:
        pod_0.kill()
        pod_0.wait()
    assert (code, reason) == (143, "PeerFailed") and "pod 0: it is gone" in message


def test_a_pod_that_comes_again_before_the_others_have_ended_waits_for_the_next_attempt(tmp_path: Path) -> None:
    port = free_port("")
    began, end = str(tmp_path / "began"), str(tmp_path / "end")
    acts: dict[int, Acts] = {0: [["touch", began], ["until", end], *SERVICE]}
    both = [Pod(Layout(1, 2, node, port=port, join_s=120), tmp_path / f"pod-{node}", acts) for node in (0, 1)]
    while not Path(began).exists():
        time.sleep(0.01)
    again = Pod(Layout(1, 2, 1, port=port, join_s=120), tmp_path / "pod-1-again")  # recreated, of the next attempt
    time.sleep(0.3)
    assert again.thread.is_alive()
    Path(end).touch()
    assert [pod.ended().exit_code for pod in both] == [3, 143]
    second_attempt = Pod(Layout(1, 2, 0, port=port, join_s=120), tmp_path / "pod-0-again")
    assert [pod.ended().outcome for pod in (second_attempt, again)] == ["committed", "committed"]


def test_strangers_at_the_port_are_not_taken_for_pods(tmp_path: Path) -> None:
    port = free_port("")
    first = Pod(Layout(1, 3, 0, port=port, join_s=120), tmp_path / "pod-0")
    wait_for_port(port)
    strangers = [Stranger(port, 7, 3), Stranger(port, 1, 2)]  # there is no pod 7, and no training of two pods
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"\0" * 100):
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(greeting)
    assert first.thread.is_alive()
    for stranger in strangers:
        stranger.close()
    others = [Pod(Layout(1, 3, node, port=port, join_s=120), tmp_path / f"pod-{node}") for node in (1, 2)]
    assert [pod.ended().outcome for pod in (first, *others)] == ["committed"] * 3


@pytest.mark.slow
def test_a_pod_that_has_waited_long_for_pod_0_does_not_take_it_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_watch = rendezvous.Rendezvous._keep_watch

    def slowly(self: rendezvous.Rendezvous) -> None:  # as on a machine with much else to do
        time.sleep(1)
        keep_watch(self)

    monkeypatch.setattr(rendezvous.Rendezvous, "_keep_watch", slowly)
    monkeypatch.setattr(rendezvous, "LOST_S", 5)
    port = free_port("")
    second = Pod(Layout(1, 2, 1, port=port, join_s=120), tmp_path / "pod-1")
    time.sleep(5.5)
    first = Pod(Layout(1, 2, 0, port=port, join_s=120), tmp_path / "pod-0")
    assert [pod.ended().outcome for pod in (first, second)] == ["committed"] * 2


@pytest.mark.parametrize(
    ("node", "names"), [(0, ("missing: 1", "1 of 2 pods")), (1, ("pod 0 at 127.0.0.1", "refused"))]
)
def test_pods_that_do_not_come_are_an_error_that_says_so(
    tmp_path: Path, node: int, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rendezvous, "_REPORTED_S", 0.3)
    caplog.set_level("INFO", "selfevo")
    with pytest.raises(ServiceError) as caught:
        Pod(Layout(1, 2, node, port=free_port(""), join_s=1), tmp_path / "pod").ended()
    assert caught.value.reason == "PeersMissing"
    assert all(name in str(caught.value) for name in (*names, "within 1 s", "SELFEVO_JOIN_SECONDS"))
    # The log says it before: a pod that waits is else as silent as one that hangs.
    assert re.fullmatch(
        r"waiting for (pods 1 \(of 2\)|pod 0 at .*refused\)); [01] s of 1 \(pods.joinSeconds\)", caplog.messages[0]
    )


def test_a_port_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as server, pytest.raises(ServiceError, match=r"port \d+.*set MASTER_PORT"):
        Pod(Layout(1, 2, 0, port=server.getsockname()[1]), tmp_path / "pod").ended()


def test_a_pod_that_comes_again_when_all_is_done_finds_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "_RECHECK_S", 0.1)
    done = PhaseResult(phase="solver-train", key=config().key, outcome="found")
    answers = iter([None, done])
    pod = Pod(Layout(1, 2, 1, port=free_port(""), join_s=120), tmp_path / "pod", found=lambda: next(answers))
    assert pod.ended() == done


def test_a_signal_while_waiting_for_the_others_ends_at_once(tmp_path: Path) -> None:
    from selfevo_trainer.process.signals import Interrupted, StopRequest

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = StopRequest.install()
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted):
            launcher.launch(config(), Layout(1, 2, 0, port=free_port(""), join_s=120), tmp_path, stop, lambda: None)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


# The environment of a pod.


@pytest.mark.parametrize(
    ("environment", "phase", "expected"),
    [
        ({}, "solver-train", Layout()),
        ({"SELFEVO_PROCESSES": "1", "SELFEVO_NODES": "1"}, "solver-train", Layout()),
        ({"SELFEVO_PROCESSES": "8"}, "challenger-train", Layout(8)),
        ({"JOB_COMPLETION_INDEX": "3", "MASTER_ADDR": "x"}, "solver-rollout", Layout()),
        (
            {"SELFEVO_PROCESSES": "8", "SELFEVO_NODES": "4", "JOB_COMPLETION_INDEX": "3", "MASTER_ADDR": "a-0.a"},
            "solver-train",
            Layout(8, 4, 3, "a-0.a", 29500, 1800),
        ),
        (
            {"SELFEVO_NODES": "2", "JOB_COMPLETION_INDEX": "0", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
            | {"SELFEVO_JOIN_SECONDS": "60"},
            "solver-train",
            Layout(1, 2, 0, "a", 7, 60),
        ),
    ],
)
def test_the_layout_is_read_from_the_environment(environment: dict[str, str], phase: Any, expected: Layout) -> None:
    assert read_layout(environment, phase) == expected


PODS = {"SELFEVO_NODES": "2", "JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "a"}


@pytest.mark.parametrize(
    ("environment", "phase", "names"),
    [
        ({"SELFEVO_PROCESSES": "2"}, "solver-rollout", ("SELFEVO_PROCESSES", "solver-rollout", "unset")),
        ({"SELFEVO_NODES": "2"}, "evaluate", ("SELFEVO_NODES", "evaluate")),
        ({"SELFEVO_PROCESSES": "0"}, "solver-train", ("SELFEVO_PROCESSES", "'0'", "1 to 64")),
        ({"SELFEVO_PROCESSES": "two"}, "solver-train", ("SELFEVO_PROCESSES", "'two'")),
        ({"SELFEVO_PROCESSES": "65"}, "solver-train", ("SELFEVO_PROCESSES", "'65'")),
        ({"SELFEVO_PROCESSES": "²"}, "solver-train", ("SELFEVO_PROCESSES",)),
        ({**PODS, "MASTER_ADDR": ""}, "solver-train", ("MASTER_ADDR", "pod 0")),
        ({"SELFEVO_NODES": "2", "MASTER_ADDR": "a"}, "solver-train", ("JOB_COMPLETION_INDEX", "Indexed Job")),
        ({**PODS, "JOB_COMPLETION_INDEX": "2"}, "solver-train", ("JOB_COMPLETION_INDEX", "'2'", "0 to 1")),
        ({**PODS, "MASTER_PORT": "99999"}, "solver-train", ("MASTER_PORT", "'99999'")),
        ({"WORLD_SIZE": "4"}, "solver-train", ("WORLD_SIZE", "torchrun", "SELFEVO_PROCESSES")),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused(
    environment: dict[str, str], phase: Any, names: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        read_layout(environment, phase)
    assert all(name in str(caught.value) for name in names)


def test_a_process_is_a_member_only_when_our_launcher_says_so() -> None:
    assert read_rank({"RANK": "1", "WORLD_SIZE": "2"}) is None
    assert read_rank({"RANK": "1", "WORLD_SIZE": "2", "SELFEVO_LAUNCHED": "1"}) == Rank(1, 2)
    assert (ALONE.first, Rank(0, 2).first, Rank(1, 2).first) == (True, True, False)


def test_a_batch_that_does_not_divide_is_refused_before_anything_starts() -> None:
    grpo = Grpo(promptsPerStep=4, numGenerations=4, perDeviceTrainBatchSize=4)
    check_batch(grpo, 4)
    with pytest.raises(InputError, match="perDeviceTrainBatchSize 4 x 3 processes does not divide the 16 completions"):
        check_batch(grpo, 3)


def test_one_process_has_nobody_to_share_its_weights_with() -> None:
    grpo = Grpo(promptsPerStep=4, numGenerations=4, perDeviceTrainBatchSize=4, sharding="fsdp")
    check_batch(grpo, 2)
    with pytest.raises(InputError, match=r"grpo\.sharding is 'fsdp', and one process alone trains here; give"):
        check_batch(grpo, 1)


def test_a_bystander_is_never_taken_for_the_cause() -> None:
    configuration = config()
    stopped = root_cause.failure(configuration, 143, "Terminated", "stopped on request")  # type: ignore[arg-type]
    other = root_cause.bystander(configuration, 1, stopped)
    crash = root_cause.failure(configuration, 3, "Crashed", "x")  # type: ignore[arg-type]
    assert root_cause.find([(other, True), (crash, True), (stopped, True)]) == 2
    assert root_cause.find([(other, True), (crash, False)]) == 1
    assert root_cause.find([(stopped, False), (crash, False)]) == 1
