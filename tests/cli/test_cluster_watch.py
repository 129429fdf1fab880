"""watch: in a cluster, against a stand-in of its API server, and on this machine."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from harness.apiserver_standin import ApiServer
from harness.cli import Project, wait_for
from harness.following import Follower
from harness.records import FAILED, PLAN, RUNNING, SUCCEEDED, attempt, condition
from harness.runs import document


@pytest.mark.slow
def test_watch_tells_every_transition_until_the_run_ends(api: ApiServer, following: Callable[..., Follower]) -> None:
    api.set_status("demo", {"phase": "Pending", "observedGeneration": 0})
    watching = following("watch", "demo")
    watching.wait_for("waiting for the operator to reconcile it")
    api.set_status("demo", RUNNING)
    watching.wait_for("challenger-train-1 started")
    api.set_status("demo", {**RUNNING, "conditions": [condition("Reconciling", "Unschedulable", "no \x1b[2J node")]})
    watching.wait_for("Unschedulable")
    api.set_status("demo", {**RUNNING, "phase": "Suspended"})
    watching.wait_for("suspended")
    api.set_status("demo", {**RUNNING})
    watching.wait_for("goes on")
    api.set_status("demo", SUCCEEDED)
    code, lines = watching.end()
    assert code == 0
    assert lines[:8] == [
        "run default/demo: Pending, 0 of 9 steps done",
        "waiting for the operator to reconcile it",
        "evaluate-0 done in 1 min 05 s: mean 47.8 %, greedy 53.0 %",
        "base: score 47.8 %",
        "challenger-train-1 started",
        "Unschedulable: no \\x1b[2J node",
        "suspended, 1 of 9 steps done",
        "goes on, 1 of 9 steps done",
    ]
    assert lines[8:16] == [f"{name} done in 1 min 05 s" for name in list(PLAN.by_name)[1:]]
    assert lines[-2:] == ["Best model: the base model, score 47.8 %", "  file:///models/base"]


@pytest.mark.slow
def test_an_end_that_is_older_than_the_spec_is_no_end(
    api: ApiServer, project: Project, following: Callable[..., Follower]
) -> None:
    api.set_status("demo", SUCCEEDED)
    run = api.runs["default", "demo"]
    run = api.put({**run, "spec": {**run["spec"], "iterations": 3}})
    watching = following("watch", "demo")
    watching.wait_for("waiting for the operator to reconcile its newest spec")
    assert "is suspended" in project.invoke("suspend", "demo").stdout
    api.set_status("demo", {**SUCCEEDED, "phase": "Suspended"})
    watching.wait_for("suspended, 9 of 13 steps done")
    run = api.runs["default", "demo"]
    api.put({**run, "spec": {**run["spec"], "iterations": 4}})
    api.set_status("demo", RUNNING)
    watching.wait_for("goes on, 1 of 17 steps done")
    api.set_status("demo", SUCCEEDED)
    assert watching.end()[0] == 0


@pytest.mark.parametrize(("exit_code", "ends_with"), [(2, 2), (3, 3), (4, 4), (1, 3), (None, 3)])
def test_watch_ends_as_the_run_ends(api: ApiServer, project: Project, exit_code: int | None, ends_with: int) -> None:
    fields = {} if exit_code is None else {"exitCode": exit_code}
    api.set_status("demo", {**FAILED, "attempts": [attempt("Failed", **fields)]})
    shown = project.invoke("watch", "demo", "-n", "default")
    assert shown.returncode == ends_with
    assert shown.stderr.splitlines() == [
        "selfevo: BadData: challenger-train-1: all \\x1b[2J alike",
        "selfevo: its log: `selfevo logs demo challenger-train-1 -n default`",
    ]


@pytest.mark.slow
def test_watch_survives_lost_connections_expired_versions_and_a_server_that_is_away(
    api: ApiServer, following: Callable[..., Follower]
) -> None:
    api.set_status("demo", {"phase": "Pending"})
    watching = following("watch", "demo")
    watching.wait_for("Pending")
    wait_for(lambda: any("watch=true" in request for request in api.requests))
    api.cut()  # the watch ends, as it does every minute
    wait_for(lambda: sum("watch=true" in request for request in api.requests) == 2)
    requests = sum("/demo" in request for request in api.requests)
    with api.changed:  # it changes while nobody watches, and the version that is known is too old
        api.drop(2)
        api.fail(503, message="not ready")
        api.compact()
        api.set_status("demo", RUNNING)
    watching.wait_for("connected again")
    watching.wait_for("challenger-train-1 started")
    with api.changed:
        api.compact()
        api.faults.append(_expired_once())
    wait_for(lambda: sum("/demo" in request for request in api.requests) >= requests + 2)
    api.set_status("demo", SUCCEEDED)
    code, lines = watching.end()
    assert code == 0
    (lost,) = [line for line in lines if "going on when it answers" in line]
    assert lost == f"the connection to {api.url} broke (it was closed in the middle); going on when it answers"
    assert lines.count("connected again") == 1
    assert lines.count("challenger-train-1 started") == 1


@pytest.mark.slow
def test_watch_notices_a_connection_that_has_gone_silent(api: ApiServer, following: Callable[..., Follower]) -> None:
    api.set_status("demo", {"phase": "Pending"})
    api.hold(path="watch=true")
    watching = following("watch", "demo", client__WATCH_S=0.3, client__SLACK_S=0.3)
    wait_for(lambda: any("watch=true" in request for request in api.requests))
    api.set_status("demo", RUNNING)
    watching.wait_for("challenger-train-1 started")
    assert "(no answer in time)" in watching.output and "connected again" in watching.output


def _expired_once() -> Callable[[Any], bool]:
    done = False

    def fault(handler: Any) -> bool:
        nonlocal done
        if done or "watch=true" not in handler.path:
            return False
        done = True
        handler.answer(410, {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
        return True

    return fault


@pytest.mark.slow
def test_watch_goes_on_when_a_server_that_starts_does_not_know_its_rights_yet(
    api: ApiServer, following: Callable[..., Follower]
) -> None:
    api.set_status("demo", RUNNING)
    watching = following("watch", "demo")
    watching.wait_for("challenger-train-1 started")
    wait_for(lambda: any("watch=true" in request for request in api.requests))
    with api.changed:
        api.fail(403, path="/demo", message='User "ann" cannot get resource "selfevolutionruns" in API group')
        api.fail(401, path="/demo")
        api.fail(403, path="watch=true", message='User "ann" cannot watch resource "selfevolutionruns" in API group')
        api.cut()
    wait_for(lambda: sum("watch=true" in request for request in api.requests) == 3)
    api.set_status("demo", SUCCEEDED)
    code, lines = watching.end()
    assert code == 0
    assert not any("polling every" in line for line in lines)


@pytest.mark.slow
def test_watch_ends_when_a_right_is_gone_for_good(api: ApiServer, following: Callable[..., Follower]) -> None:
    api.set_status("demo", RUNNING)
    watching = following("watch", "demo", watch__REFUSED_S=0.1)
    watching.wait_for("challenger-train-1 started")
    with api.changed:
        api.fail(403, 1000, message='User "ann" cannot get resource "selfevolutionruns" in API group')
        api.cut()
    code, lines = watching.end()
    assert code == 2
    assert lines[-1].startswith("selfevo: user 'ann' may not get selfevolutionruns in namespace default; ask for")


@pytest.mark.slow
def test_watch_without_the_right_to_watch_polls(api: ApiServer, following: Callable[..., Follower]) -> None:
    api.set_status("demo", RUNNING)
    message = 'User "ann" cannot watch resource "selfevolutionruns" in API group "selfevo.dev"'
    api.fail(403, 1000, path="watch=true", message=message)
    watching = following("watch", "demo")
    watching.wait_for("polling every")
    api.set_status("demo", SUCCEEDED)
    code, lines = watching.end()
    assert code == 0
    assert lines[2] == "user 'ann' may not watch selfevolutionruns in namespace default; polling every 0 s instead"
    assert sum("watch=true" in request for request in api.requests) == 1


@pytest.mark.slow
def test_watch_ends_when_the_run_is_deleted_or_replaced(api: ApiServer, following: Callable[..., Follower]) -> None:
    for replaced in (False, True):
        api.put(document())
        api.set_status("demo", RUNNING)
        watching = following("watch", "demo")
        watching.wait_for("challenger-train-1 started")
        with api.changed:
            api.delete("demo")
            if replaced:
                api.put(document())
                api.compact()  # the deletion itself is never seen
        code, lines = watching.end()
        assert code == 2
        suffix = ", and another one has its name now" if replaced else ""
        assert lines[-1] == f"selfevo: run default/demo was deleted{suffix}"


@pytest.mark.slow
def test_ctrl_c_ends_a_watch_at_once_and_changes_nothing(api: ApiServer, following: Callable[..., Follower]) -> None:
    api.set_status("demo", RUNNING)
    watching = following("watch", "demo")
    watching.wait_for("challenger-train-1 started")
    watching.process.send_signal(signal.SIGINT)
    code, lines = watching.end()
    assert (code, len(lines)) == (130, 2)
    assert not any(request.startswith("PATCH") for request in api.requests)


@pytest.mark.slow
def test_watch_follows_a_run_on_this_machine(project: Project, following: Callable[..., Follower]) -> None:
    shown = project.invoke("watch", "run.yaml")
    assert (shown.returncode, shown.stderr) == (
        2,
        "selfevo: run default/demo is not being driven; `selfevo run run.yaml` starts it or goes on\n",
    )
    project.order("challenger-train-1", hang=True)
    driver = project.start("run", "run.yaml")
    try:
        wait_for(lambda: project.diary("work"))
        watching = following("watch", "run.yaml")
        watching.wait_for("challenger-train-1 started")
        driver.send_signal(signal.SIGINT)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(120) == 130
        code, lines = watching.end()
        assert code == 130
        assert lines[-1] == "not being driven any more, 0 of 3 steps done; `selfevo run run.yaml` goes on"
    finally:
        driver.kill()
        driver.communicate()
    project.order("challenger-train-1")
    assert project.drive("run.yaml", "-q").returncode == 0
    shown = project.invoke("watch", "run.yaml")
    assert (shown.returncode, shown.stdout.splitlines()[0][9:]) == (0, "run default/demo: Succeeded, 3 of 3 steps done")
