"""A real kubelet with containerd runs restricted pods from this checkout, and leaves nothing behind."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.cluster import controlplane, node
from harness.cluster.controlplane import ControlPlane
from harness.cluster.manifests import condition, ended, job, trainer
from harness.cluster.node import IMAGE, Node
from harness.gotools import ToolUnavailable

pytestmark = pytest.mark.slow

SAYS_WHAT_IT_MAY = """
import json, os, pathlib, urllib.request
import selfevo_contract.errors
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
result = {"uid": os.getuid(), "capabilities": status["CapEff"], "seccomp": status["Seccomp"]}
for place in ("/root-file-system", "/tmp/scratch"):
    try:
        result[place] = pathlib.Path(place).write_text("x")
    except OSError as refused:
        result[place] = refused.strerror
result["compiled"] = os.path.exists(selfevo_contract.errors.__cached__)
result["reached"] = urllib.request.urlopen(os.environ["OUTSIDE"]).read().decode()
pathlib.Path("/dev/termination-log").write_text(json.dumps(result))
print("in the log")
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    try:
        with controlplane.running(tmp_path_factory.mktemp("plane"), scheduler=True) as plane:
            yield plane
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def real_node(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    try:
        with node.running(plane, tmp_path_factory.mktemp("node") / "node") as running:
            yield running
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


def run(plane: ControlPlane, name: str, command: list[str], env: dict[str, str] | None = None) -> tuple[str, dict]:
    """Makes the Job; its namespace and it."""
    manifest = job(name, backoffLimit=0)
    spec = manifest["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["image"] = IMAGE
    container["command"] = command
    container["env"] = [{"name": name, "value": value} for name, value in (env or {}).items()]
    container["securityContext"]["readOnlyRootFilesystem"] = True
    container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    namespace = plane.make_namespace()
    return namespace, plane.admin.create(manifest, namespace)


def at_its_end(plane: ControlPlane, namespace: str, name: str) -> tuple[dict, dict]:
    """The Job and its pod."""
    done = plane.admin.wait("jobs", name, namespace, until=ended, limit_s=120)
    (pod,) = plane.admin.list("pods", namespace)
    return done, pod


def test_a_restricted_pod_runs_and_leaves_its_message_and_log(plane: ControlPlane, real_node: Node):
    node.compile_ahead("selfevo_contract.errors")
    outside = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Outside)
    threading.Thread(target=outside.serve_forever, daemon=True).start()
    address = f"http://{real_node.expose(outside.server_address[1])}/"
    namespace, _ = run(plane, "fine", ["python", "-c", SAYS_WHAT_IT_MAY], {"OUTSIDE": address})
    done, pod = at_its_end(plane, namespace, "fine")
    outside.shutdown()
    assert condition(done, "Complete"), trainer(pod)
    assert json.loads(trainer(pod)["message"]) == {
        "uid": 10001,
        "capabilities": "0000000000000000",
        "seccomp": "2",
        "/root-file-system": "Read-only file system",
        "/tmp/scratch": 1,
        "compiled": True,
        "reached": "from outside",
    }
    assert plane.admin.get("pods", pod["metadata"]["name"], namespace, "log") == "in the log\n"


def test_the_trainer_itself_refuses_its_configuration_and_the_job_fails_at_once(plane: ControlPlane, real_node: Node):
    namespace, _ = run(plane, "wrong", ["python", "-m", "selfevo_trainer"], {"SELFEVO_PHASE_CONFIG": "{}"})
    failed, pod = at_its_end(plane, namespace, "wrong")
    state = trainer(pod)
    assert condition(failed, "Failed")["reason"] == "PodFailurePolicy", state
    assert state["exitCode"] == 2 and "SELFEVO_PHASE_CONFIG" in state["message"]


def test_a_container_that_is_killed_ends_with_137(plane: ControlPlane, real_node: Node):
    namespace, _ = run(plane, "killed", ["python", "-c", "import time; time.sleep(600)"])
    running = "status.phase=Running"
    while not (pods := plane.admin.list("pods", namespace, fields=running)):
        time.sleep(0.05)
    assert real_node.kill_container(pods[0]) == 1
    failed, pod = at_its_end(plane, namespace, "killed")
    assert condition(failed, "Failed")["reason"] == "BackoffLimitExceeded"
    assert trainer(pod)["exitCode"] == 137


def test_nothing_is_left_behind_of_a_node_with_a_running_pod(plane: ControlPlane, real_node: Node):
    """The last test of this file: it ends the node."""
    run(plane, "sleeps", ["python", "-c", "import time; time.sleep(54321)"])
    while not processes("54321"):
        time.sleep(0.05)
    assert cgroups(real_node) and processes(str(real_node.folder))
    real_node.stop()
    assert not processes("54321") and not processes(str(real_node.folder))
    assert cgroups(real_node) == []
    assert str(real_node.folder) not in Path("/proc/mounts").read_text()
    assert not Path("/sys/class/net/cni0").exists()


def processes(word: str) -> list[str]:
    """Those with this in their command line."""
    lines = [file for file in Path("/proc").glob("[0-9]*/cmdline") if int(file.parent.name) != os.getpid()]
    found = []
    for file in lines:
        with suppress(OSError):
            found += [text for text in [file.read_text()] if word in text]
    return found


def cgroups(node: Node) -> list[Path]:
    """Of this node: another test may have one of its own."""
    return list(Path("/sys/fs/cgroup").glob(f"**/{node.name}"))


class Outside(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from outside")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""
