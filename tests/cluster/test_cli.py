"""The command against a real API server, as people with exactly the rights that it needs, or too few."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.cli import Project, wait_for
from harness.cluster import tools
from harness.cluster.controlplane import ControlPlane
from harness.cluster.manifests import job
from harness.following import Follower
from harness.gotools import ToolUnavailable
from harness.records import JOB, RUNNING, SUCCEEDED, attempt
from harness.runs import document
from selfevo.cluster import client

pytestmark = pytest.mark.slow

RUNS = {"apiGroups": ["selfevo.dev"], "resources": ["selfevolutionruns"]}
READ_LOGS = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]
ALL = [{**RUNS, "verbs": ["get", "list", "watch", "patch"]}, *READ_LOGS]
LEAST = [{**RUNS, "verbs": ["get", "patch"]}, READ_LOGS[1]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def become(
    control_plane: ControlPlane, namespace: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Lets the command be somebody with these rights in the namespace, and nothing else."""

    def become(name: str, rules: list[dict[str, Any]]) -> None:
        name = f"{name}-{namespace}"
        config = control_plane.kubeconfig(control_plane.user(name), project.root / name, namespace=namespace)
        if rules:
            control_plane.grant(f"{name}", rules, namespace)
        monkeypatch.setenv("KUBECONFIG", str(config))

    return become


@pytest.fixture
def set_status(control_plane: ControlPlane, namespace: str) -> Callable[[dict[str, Any]], None]:
    """Records what an operator would, of the run ``demo``."""
    control_plane.admin.create(document(metadata__namespace=namespace))

    def set_status(status: dict[str, Any]) -> None:
        run = control_plane.admin.get("selfevolutionruns", "demo", namespace)
        status = {"observedGeneration": run["metadata"]["generation"], **status}
        conditions = [{"observedGeneration": 1, **condition} for condition in status.get("conditions", [])]
        body = {"status": {**status, "conditions": conditions}}
        control_plane.admin.patch("selfevolutionruns", "demo", body, namespace, "status")

    return set_status


@pytest.fixture
def following(project: Project) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def follow(*args: str) -> Follower:
        started.append(Follower(project, *args))
        return started[-1]

    yield follow
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def test_status_suspend_and_resume_of_a_real_run(
    control_plane: ControlPlane,
    namespace: str,
    project: Project,
    become: Callable[..., None],
    set_status: Callable[..., None],
) -> None:
    become("ann", ALL)
    assert (
        f"run {namespace}/demo: Pending, 0 of 9 steps done (the operator has not reconciled it yet)"
        in project.invoke("status", "demo").stdout
    )
    set_status(RUNNING)
    shown = project.invoke("status", "demo").stdout
    assert shown.startswith(f"run {namespace}/demo: Running, 1 of 9 steps done\n\nstep ")
    assert json.loads(project.invoke("status", "demo", "-o", "json").stdout)["attempts"][0]["name"] == JOB
    assert "1 run in namespace" in project.invoke("status", "-n", namespace).stdout

    before = control_plane.admin.get("selfevolutionruns", "demo", namespace)
    shown = project.invoke("suspend", "demo")
    assert (shown.returncode, shown.stderr) == (0, "") and "challenger-train-1 stops now" in shown.stdout
    after = control_plane.admin.get("selfevolutionruns", "demo", namespace)
    assert after["spec"] == {**before["spec"], "suspend": True}
    assert after["status"] == before["status"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    (mine,) = (one for one in after["metadata"]["managedFields"] if one["manager"] == "selfevo-cli")
    assert mine["fieldsV1"] == {"f:spec": {"f:suspend": {}}}
    assert "its newest spec yet" in project.invoke("status", "demo").stdout
    set_status({**RUNNING, "phase": "Suspended"})
    assert "Suspended, 1 of 9 steps done (`selfevo resume demo` goes on)" in project.invoke("status", "demo").stdout
    assert "is suspended already" in project.invoke("suspend", "demo").stdout

    assert "goes on where it was stopped" in project.invoke("resume", "demo").stdout
    assert control_plane.admin.get("selfevolutionruns", "demo", namespace)["spec"] == {
        **before["spec"],
        "suspend": False,
    }
    set_status(SUCCEEDED)
    assert "has ended, 9 of 9 steps done; there is nothing to suspend" in project.invoke("suspend", "demo").stdout
    assert "did you mean 'demo'?" in project.invoke("status", "dem").stderr


def test_watch_goes_on_through_a_restart_of_the_api_server(
    control_plane: ControlPlane,
    become: Callable[..., None],
    set_status: Callable[..., None],
    following: Callable[..., Follower],
) -> None:
    become("ann", ALL)
    set_status({"phase": "Pending"})
    watching = following("watch", "demo")
    watching.wait_for("Pending")
    set_status(RUNNING)
    watching.wait_for("challenger-train-1 started")
    control_plane.restart_apiserver()
    set_status(SUCCEEDED)
    code, lines = watching.end()
    assert (code, lines[-1]) == (0, "  file:///models/base")
    assert lines.count("challenger-train-1 started") == 1
    assert sum(line.startswith("challenger-train-1 done") for line in lines) == 1


def test_watch_ends_when_the_run_is_deleted(
    control_plane: ControlPlane,
    namespace: str,
    become: Callable[..., None],
    set_status: Callable[..., None],
    following: Callable[..., Follower],
) -> None:
    become("ann", ALL)
    set_status(RUNNING)
    watching = following("watch", "demo")
    watching.wait_for("challenger-train-1 started")
    control_plane.admin.delete("selfevolutionruns", "demo", namespace)
    code, lines = watching.end()
    assert (code, lines[-1]) == (2, f"selfevo: run {namespace}/demo was deleted")


def test_with_get_and_patch_alone_all_but_lists_work(
    namespace: str,
    project: Project,
    become: Callable[..., None],
    set_status: Callable[..., None],
    following: Callable[..., Follower],
) -> None:
    become("ben", LEAST)
    set_status(RUNNING)
    assert "Running, 1 of 9 steps done" in project.invoke("status", "demo").stdout
    assert "is suspended" in project.invoke("suspend", "demo").stdout
    assert "goes on" in project.invoke("resume", "demo").stdout
    watching = following("watch", "demo")
    watching.wait_for(f"user 'ben-{namespace}' may not watch selfevolutionruns in namespace {namespace}")
    set_status(SUCCEEDED)
    assert watching.end()[0] == 0
    ask = f"in namespace {namespace}; ask for a Role with the verb 'list' on"
    for args, resource in ((["logs", "demo"], "pods"), (["status", "-n", namespace], "selfevolutionruns")):
        shown = project.invoke(*args)
        assert shown.stderr == f"selfevo: user 'ben-{namespace}' may not list {resource} {ask} {resource!r} there\n"
        assert (shown.returncode, shown.stdout) == (2, "")
    assert project.invoke("status", "dmo").stderr == (
        f"selfevo: there is no run 'dmo' in namespace {namespace}; correct the name, or name another namespace with "
        "-n\n"
    )


def test_what_the_real_server_refuses_is_one_sentence(
    control_plane: ControlPlane,
    namespace: str,
    project: Project,
    become: Callable[..., None],
    set_status: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    become("eve", [])
    shown = project.invoke("suspend", "demo")
    assert shown.stderr == (
        f"selfevo: user 'eve-{namespace}' may not get selfevolutionruns in namespace {namespace}; ask for a Role with "
        "the verb 'get' on 'selfevolutionruns' there\n"
    )
    assert (
        "may not list selfevolutionruns in all namespaces; ask for a ClusterRole"
        in project.invoke("status", "-A").stderr
    )
    become("eve", [{**RUNS, "verbs": ["get"]}])
    assert "may not patch selfevolutionruns" in project.invoke("suspend", "demo").stderr

    config = Path(os.environ["KUBECONFIG"])
    good = json.loads(config.read_text())
    server = good["clusters"][0]["cluster"]["server"]
    for change, message in (
        (lambda c: c["users"][0]["user"].update(token="stale"), f"{server} does not accept the credentials of context"),
        (
            lambda c: c["clusters"][0]["cluster"].pop("certificate-authority"),
            f"{server} cannot be trusted (self-signed certificate in certificate chain); correct the certificate-",
        ),
        (
            lambda c: c["clusters"][0]["cluster"].update(server="https://127.0.0.1:9"),
            "nothing answers at https://127.0.0.1:9 (connection refused)",
        ),
        (
            lambda c: c["clusters"][0]["cluster"].update(server="https://nowhere.invalid"),
            "nothing answers at https://nowhere.invalid (its name cannot be resolved)",
        ),
    ):
        bad = json.loads(json.dumps(good))
        change(bad)
        config.write_text(json.dumps(bad))
        shown = project.invoke("status", "demo")
        assert shown.stderr.startswith(f"selfevo: {message}") and len(shown.stderr.splitlines()) == 1
        assert (shown.returncode, shown.stdout) == (2 if "accept" in message else 3, "")
    become("admin", ALL)
    monkeypatch.setattr(client, "GROUP", "nothing.dev")
    control_plane.grant(f"admin-{namespace}", [{"apiGroups": ["nothing.dev"], "resources": ["*"], "verbs": ["*"]}])
    assert "does not know SelfEvolutionRun; install selfevo's CRD" in project.invoke("status", "demo").stderr


class _Logs(BaseHTTPRequestHandler):
    """The one thing that a kubelet does for us here."""

    protocol_version = "HTTP/1.1"
    lines: list[str]
    released: threading.Event

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        assert url.path.startswith("/containerLogs/") and url.path.endswith("/trainer")
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, line in enumerate(self.lines):
            stamp = f"2026-01-01T00:00:0{number}.000000000Z "
            data = f"{stamp if 'timestamps' in query else ''}{url.path.split('/')[3][:4]} {line}\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
            if "follow" in query and number == 0:
                self.released.wait(30)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def node(control_plane: ControlPlane) -> Iterator[tuple[str, type[_Logs]]]:
    """A Node whose kubelet has nothing but logs, and what they say."""
    handler = type("Logs", (_Logs,), {"lines": ["one", "two"], "released": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates = control_plane.folder / "certificates"
    context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    name = f"logs-{server.server_address[1]}"
    admin = control_plane.admin
    admin.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    status = {
        "addresses": [{"type": "Hostname", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_address[1]}},
    }
    admin.patch("nodes", name, {"status": status}, subresource="status")
    yield name, handler
    admin.delete("nodes", name)
    server.shutdown()
    server.server_close()


def test_logs_of_real_pods_through_the_api_server(
    control_plane: ControlPlane,
    namespace: str,
    project: Project,
    become: Callable[..., None],
    set_status: Callable[..., None],
    following: Callable[..., Follower],
    node: tuple[str, type[_Logs]],
) -> None:
    become("ann", ALL)
    admin, (where, kubelet) = control_plane.admin, node
    set_status(RUNNING)
    assert "has no pod yet" in project.invoke("logs", "demo").stderr
    admin.create(job(JOB), namespace)
    wait_for(lambda: admin.list("pods", namespace))
    (pod,) = admin.list("pods", namespace)
    name = pod["metadata"]["name"]
    assert "has not started yet (Pending)" in project.invoke("logs", "demo").stderr
    target = {"apiVersion": "v1", "kind": "Node", "name": where}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    admin.request("POST", admin.path("pods", namespace, name, "binding"), binding)
    container = {"name": "trainer", "image": "i", "imageID": "", "ready": True, "restartCount": 0}

    def play(phase: str, state: dict[str, Any]) -> None:
        status = {"phase": phase, "containerStatuses": [{**container, "state": state}]}
        admin.patch("pods", name, {"status": status}, namespace, "status")

    play("Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    assert project.invoke("logs", "demo").stdout == "demo one\ndemo two\n"
    reading = following("logs", "demo", "challenger-train-1", "-f")
    reading.wait_for("demo one")
    assert "demo two" not in reading.output
    kubelet.released.set()
    reading.wait_for("demo two")
    play("Succeeded", {"terminated": {"exitCode": 0}})
    set_status({**RUNNING, "attempts": [attempt("Succeeded")]})
    assert reading.end() == (0, ["demo one", "demo two"])
    admin.delete("pods", name, namespace, grace_s=0)
    admin.delete("jobs", JOB, namespace)
    wait_for(lambda: not admin.list("pods", namespace))
    shown = project.invoke("logs", "demo")
    assert shown.returncode == 2
    assert "the pod of challenger-train-1, attempt 1 is gone, and its log with it; search where" in shown.stderr


def test_kubectl_finds_the_command(
    namespace: str, project: Project, become: Callable[..., None], set_status: Callable[..., None]
) -> None:
    try:
        kubectl = tools.program(tools.KUBECTL)
    except ToolUnavailable as reason:
        pytest.skip(str(reason))
    become("ann", ALL)
    set_status(RUNNING)
    # As pip installs it; an environment that was set up before the plugin had a name has no such file yet.
    plugin = project.root / "kubectl-selfevo"
    plugin.write_text(f"#!{sys.executable}\nfrom selfevo.main import main\nmain()\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{project.root}{os.pathsep}{os.environ['PATH']}"}
    shown = subprocess.run(
        [kubectl, "selfevo", "suspend", "demo", "-n", namespace],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"`kubectl selfevo resume demo -n {namespace}` goes on" in shown.stdout
