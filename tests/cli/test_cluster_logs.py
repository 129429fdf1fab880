"""logs: in a cluster, against a stand-in of its API server, and following one on this machine."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness.apiserver_standin import ApiServer
from harness.cli import Project, wait_for
from harness.following import Follower
from harness.records import JOB, RUNNING, attempt, step
from harness.runs import document, make_run
from selfevo.cluster.follow import Place
from selfevo.cluster.pods import INDEX, newest
from selfevo_contract.artifacts import kept_log, step_prefix
from selfevo_contract.errors import ServiceError
from selfevo_contract.plan import plan
from selfevo_store import open_store


def test_logs_are_those_of_the_newest_pod_of_the_newest_attempt(api: ApiServer, project: Project) -> None:
    api.set_status("demo", RUNNING)
    api.add_pod("evicted", JOB, "ended", age=9)
    api.add_pod("new", JOB, "running", age=1)
    api.add_pod("foreign", "another-job")
    api.write("evicted", "old")
    api.write("new", "step 1", "step 2")
    assert project.invoke("logs", "demo").stdout == "step 1\nstep 2\n"
    assert project.invoke("logs", "demo", "challenger-train-1", "--attempt", "1").stdout == "step 1\nstep 2\n"
    for number in (2, 3):
        api.add_pod(f"pod-{number}", f"job-{number}", "ended")
        api.write(f"pod-{number}", f"attempt {number}")
        newer = attempt("Failed", attempt=number) | {"name": f"job-{number}"}
        attempts = [*api.runs["default", "demo"]["status"]["attempts"], newer]
        api.set_status("demo", {**RUNNING, "attempts": attempts})
    assert project.invoke("logs", "demo").stdout == "step 1\nstep 2\n"  # what runs comes before what has ended
    api.set_status("demo", {**RUNNING, "attempts": attempts[1:]})
    assert project.invoke("logs", "demo", "challenger-train-1").stdout == "attempt 3\n"
    assert project.invoke("logs", "demo", "--attempt", "2").stdout == "attempt 2\n"


def test_logs_of_shards_and_nodes_say_whose_line_it_is(api: ApiServer, project: Project) -> None:
    job = "demo-solver-rollout-1-aa-1"
    status = {**RUNNING, "steps": [step("solver-rollout-1", "Running")], "attempts": [attempt(name="solver-rollout-1")]}
    api.set_status("demo", status)
    for index in (10, 2):
        api.add_pod(f"shard-{index}", job, "ended", index=index)
        api.write(f"shard-{index}", f"I am {index}", "done")
    assert project.invoke("logs", "demo").stdout.splitlines() == [
        "shard 2 | I am 2",
        "shard 2 | done",
        "shard 10 | I am 10",
        "shard 10 | done",
    ]
    api.set_status("demo", RUNNING)
    api.add_pod("node", JOB, index=0)
    api.write("node", "rank 0")
    assert project.invoke("logs", "demo").stdout == "node 0 | rank 0\n"


@pytest.mark.parametrize(
    ("pod", "state", "message"),
    [
        (None, "Running", "challenger-train-1, attempt 1 has no pod yet (Queued); try again, or follow it with -f"),
        (
            "waiting",
            "Running",
            "the pod of challenger-train-1, attempt 1 has not started yet (ErrImagePull: no such image); try again, or "
            "follow it with -f",
        ),
        (
            None,
            "Failed",
            "the pod of challenger-train-1, attempt 1 is gone, and its log with it; search where the cluster collects "
            "its logs",
        ),
    ],
    ids=["no pod yet", "not started", "gone"],
)
def test_why_there_is_no_log_is_one_sentence(
    api: ApiServer, project: Project, pod: str | None, state: str, message: str
) -> None:
    hint = f"kubectl logs -n default job/{JOB} -c trainer"
    api.set_status("demo", {**RUNNING, "attempts": [attempt(state, message="Queued", log=hint)]})
    if pod is not None:
        api.add_pod("p", JOB, pod)
    shown = project.invoke("logs", "demo")
    assert (shown.returncode, shown.stdout, shown.stderr) == (2, "", f"selfevo: {message}\n")


def test_a_step_that_was_in_the_store_has_no_log(api: ApiServer, project: Project) -> None:
    api.set_status("demo", {**RUNNING, "steps": [step("evaluate-0", reused=True)], "attempts": []})
    shown = project.invoke("logs", "demo", "evaluate-0")
    assert shown.stderr == "selfevo: evaluate-0 has no log: its output was in the store already\n"


@pytest.mark.slow
def test_following_waits_for_the_pod_and_ends_with_the_attempt(
    api: ApiServer, following: Callable[..., Follower]
) -> None:
    api.set_status("demo", RUNNING)
    reading = following("logs", "demo", "-f")
    reading.wait_for("has no pod yet; waiting")
    api.add_pod("first", JOB, "waiting", age=9)
    reading.wait_for("(ErrImagePull: no such image); waiting")
    api.set_pod("first", "running")
    api.write("first", "one")
    reading.wait_for("one")
    api.write("first", "two")
    reading.wait_for("two")
    api.set_pod("first", "ended")  # evicted, and its successor of the same Job goes on
    api.add_pod("second", JOB, "running")
    api.write("second", "three")
    reading.wait_for("three")
    api.write("second", *map(str, range(4, 2000)))
    api.set_status("demo", {**RUNNING, "attempts": [attempt("Succeeded")]})
    api.set_pod("second", "ended")
    code, lines = reading.end()
    assert code == 0
    assert lines[2:] == ["one", "two", "three", *map(str, range(4, 2000))]


@pytest.mark.slow
def test_following_reads_every_line_once_through_lost_connections(
    api: ApiServer, following: Callable[..., Follower]
) -> None:
    job = "demo-solver-rollout-1-aa-1"
    status = {**RUNNING, "steps": [step("solver-rollout-1", "Running")], "attempts": [attempt(name="solver-rollout-1")]}
    api.set_status("demo", status)
    for index in range(2):
        api.add_pod(f"shard-{index}", job, index=index)
        api.write(f"shard-{index}", "a", "b", "c")
        api.write(f"shard-{index}", "d", "e", at="2026-01-01T00:00:01.000000000Z")
    reading = following("logs", "demo", "-f")
    for text in ("shard 0 | e", "shard 1 | e"):
        reading.wait_for(text)
    with api.changed:
        api.fail(503, path="/pods?")  # a list: a log would be asked for again without a word
        api.fail(403, path="/log", message='User "ann" cannot get resource "pods/log" in API group ""')
        api.drop(1, path="/log")
        api.cut()
        for index in range(2):
            api.write(f"shard-{index}", "f", at="2026-01-01T00:00:01.000000000Z")
            api.write(f"shard-{index}", "g", at="2026-01-01T00:00:02.000000000Z")
    for text in ("shard 0 | g", "shard 1 | g"):
        reading.wait_for(text)
    for index in range(2):
        api.set_pod(f"shard-{index}", "ended")
    api.set_status("demo", {**status, "attempts": [attempt("Succeeded", name="solver-rollout-1")]})
    code, lines = reading.end()
    assert code == 0
    for index in range(2):
        mine = [line[-1] for line in lines if line.startswith(f"shard {index}")]
        assert "".join(mine) == "abcdefg"
    assert sum("answered 503" in line for line in lines) == 1


def test_following_a_pod_that_is_gone_is_a_sentence(api: ApiServer, project: Project) -> None:
    api.set_status("demo", {**RUNNING, "attempts": [attempt("Failed")]})
    shown = project.invoke("logs", "demo", "-f")
    assert shown.returncode == 2 and "is gone, and its log with it" in shown.stderr


def test_logs_of_pods_that_are_gone_come_from_the_store(api: ApiServer, project: Project, tmp_path: Path) -> None:
    uri = (tmp_path / "kept").as_uri()
    api.put(document(spec__storage__uri=uri))
    api.set_status("demo", {**RUNNING, "attempts": [attempt("Failed")]})
    planned = plan(make_run(spec__storage__uri=uri).spec).by_name["challenger-train-1"]
    place = step_prefix("default", planned.phase, planned.key)
    store = open_store(uri)
    store.put_bytes(kept_log(place, JOB, "0", "20260101T120000Z"), b"one \x1b[2J\ntwo")
    assert project.invoke("logs", "demo").stdout == "one \x1b[2J\ntwo\n"
    assert project.invoke("logs", "demo", "-f").stdout == "one \x1b[2J\ntwo\n"
    store.put_bytes(kept_log(place, JOB, "10", "20260101T120000Z"), b"ten")
    store.put_bytes(kept_log(place, JOB, "2", "20260101T130000Z", "rank-1"), b"a rank")
    store.put_bytes(kept_log(place, JOB, "2", "20260101T130000Z"), b"its launcher")
    store.put_bytes(kept_log(place, JOB, "2", "20260101T120000Z", "server"), b"vLLM's")
    store.put_bytes(f"{place}/logs/{JOB}/other.txt", b"no log of ours")
    lines = ["pod 0 | one \x1b[2J", "pod 0 | two", "pod 2 | its launcher", "pod 2 rank 1 | a rank"]
    lines += ["pod 2 server | vLLM's", "pod 10 | ten"]
    assert project.invoke("logs", "demo").stdout.splitlines() == lines
    api.add_pod("new", JOB, "ended")
    api.write("new", "from the pod")
    assert project.invoke("logs", "demo").stdout == "from the pod\n"


def test_a_store_that_cannot_be_read_from_here_is_named(api: ApiServer, project: Project) -> None:
    api.put(document(spec__storage={"uri": "s3://models", "endpoint": "http://127.0.0.1:9"}))
    api.set_status("demo", {**RUNNING, "attempts": [attempt("Failed")]})
    with mock.patch("selfevo.cluster.kept.open_run_store", side_effect=ServiceError("s3://models does not answer")):
        shown = project.invoke("logs", "demo")
    assert shown.returncode == 2
    assert (
        "attempt 1 is gone, and the store, which may have its log, cannot be read from here: s3://models"
        in shown.stderr
    )


def test_half_a_line_waits_for_its_other_half_unless_nothing_more_comes() -> None:
    place = Place()
    assert list(place.new([("01 a", True), ("02 b", False)], last=False)) == ["a"]
    assert list(place.new([("01 a", True), ("02 bc", True), ("02 d", False)], last=True)) == ["bc", "d"]


def test_one_pod_an_index_the_newest() -> None:
    def pod(name: str, index: int | None) -> dict[str, Any]:
        labels = {} if index is None else {INDEX: str(index)}
        return {"metadata": {"name": name, "labels": labels}}

    pods = [pod("a", 1), pod("b", 0), pod("c", 1)]
    assert [found["metadata"]["name"] for found in newest(pods)] == ["b", "c"]
    assert [found["metadata"]["name"] for found in newest([pod("a", None), pod("b", None)])] == ["b"]


@pytest.mark.slow
def test_following_a_log_on_this_machine(project: Project, following: Callable[..., Follower]) -> None:
    project.order("challenger-train-1", hang=True)
    driver = project.start("run", "run.yaml")
    try:
        wait_for(lambda: project.diary("work"))
        reading = following("logs", "run.yaml", "-f")
        reading.wait_for('"step":"challenger-train-1"')
        assert reading.process.poll() is None
        driver.send_signal(signal.SIGINT)
        driver.send_signal(signal.SIGINT)
        assert reading.end()[0] == 0
    finally:
        driver.kill()
        driver.communicate()
