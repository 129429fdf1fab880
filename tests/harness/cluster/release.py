"""The chart as Helm installs it, and, where there is no node, what a kubelet would do for it: run the operator, run the
test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import chart
from harness.chart import CHART, NAMESPACE, RELEASE, HelmError
from harness.cluster.client import Object
from harness.cluster.cluster_runs import eventually
from harness.cluster.controlplane import ControlPlane
from harness.cluster.operator_process import OperatorProcess
from harness.cluster.processes import Child
from harness.gotools import GoTool
from harness.ports import free_port


class Release:
    """Commands of Helm on one control plane."""

    def __init__(self, plane: ControlPlane, folder: Path, tool: GoTool) -> None:
        self.plane, self.folder, self.tool = plane, folder, tool
        self._kubeconfig = plane.kubeconfig(plane.admin_token, folder / "helm.kubeconfig")

    def helm(self, *arguments: str | Path) -> str:
        return chart.helm(*arguments, "--namespace", NAMESPACE, tool=self.tool, kubeconfig=self._kubeconfig)

    def install(self, values: Mapping[str, Any], *flags: str) -> str:
        return self.helm("install", RELEASE, CHART, *chart.given(values), *flags)

    def upgrade(self, values: Mapping[str, Any], *flags: str) -> str:
        return self.helm("upgrade", RELEASE, CHART, *chart.given(values), *flags)

    # -- what a kubelet would do, where there is none

    def newest_pod(self) -> Object:
        """The operator's one pod, of the newest template; it was admitted, and nobody runs it."""
        admin = self.plane.admin
        (wanted,) = admin.get("deployments", RELEASE, NAMESPACE)["spec"]["template"]["spec"]["containers"]

        def pods() -> list[Object]:
            found = admin.list("pods", NAMESPACE, "app.kubernetes.io/component=operator")
            return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

        eventually(lambda: [pod["spec"]["containers"][0]["args"] for pod in pods()] == [wanted["args"]], why=pods)
        return pods()[0]

    @contextmanager
    def operating(self) -> Iterator[OperatorProcess]:
        """The process that the operator's pod asks for, as the account that it names; its pod is ready meanwhile."""
        pod = self.newest_pod()
        operator = _FromPod(self.plane, self.folder, pod)
        try:
            operator.run()
            self._say_ready(pod)
            yield operator
            assert operator.alive and "a defect" not in operator.output, operator.output
        finally:
            operator.stop()

    def _say_ready(self, pod: Object) -> None:
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        self._say(pod["metadata"]["name"], {"phase": "Running", "conditions": ready})

    def _say(self, pod: str, status: Object) -> None:
        self.plane.admin.patch("pods", pod, {"status": status}, NAMESPACE, "status", kind="strategic")

    def test(self) -> str:
        """`helm test`, whose pod is played by a process with what the pod was given; returns its output.

        Raises:
            HelmError: the test failed; with its pod's output.
        """
        old = {pod["metadata"]["uid"] for pod in self.plane.admin.list("pods", NAMESPACE)}
        with ThreadPoolExecutor(1) as threads:
            test = threads.submit(self.helm, "test", RELEASE, "--timeout", "120s")
            output = self._play_test(old)
            try:
                test.result()
            except HelmError as error:
                raise HelmError(f"{output}\n{error}") from None
        return output

    def _play_test(self, old: set[str]) -> str:
        admin, name = self.plane.admin, f"{RELEASE}-test"
        pod = admin.wait("pods", name, NAMESPACE, until=lambda pod: pod and pod["metadata"]["uid"] not in old)
        account = self.folder / pod["metadata"]["uid"]
        account.mkdir()
        (account / "token").write_text(self.plane.service_account(NAMESPACE, pod["spec"]["serviceAccountName"]))
        (account / "ca.crt").write_bytes(self.plane.ca.read_bytes())
        script = account / "helm_test.py"
        script.write_text(admin.get("configmaps", name, NAMESPACE)["data"]["helm_test.py"])
        (container,) = pod["spec"]["containers"]
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.plane.port)}
        done = subprocess.run(
            [sys.executable, script], env={**given, **server, "ACCOUNT": str(account)}, capture_output=True, text=True
        )
        self._say(name, {"phase": "Succeeded" if done.returncode == 0 else "Failed"})
        return done.stdout + done.stderr


class _FromPod(OperatorProcess):
    """The operator with the arguments and the account of a pod."""

    def __init__(self, plane: ControlPlane, folder: Path, pod: Object) -> None:
        name = pod["metadata"]["name"]
        (container,) = pod["spec"]["containers"]
        assert container["command"][:2] == ["python", "-m"]
        token = plane.service_account(NAMESPACE, pod["spec"]["serviceAccountName"])
        kubeconfig = plane.kubeconfig(token, folder / f"{name}.kubeconfig")
        self.port = free_port()
        arguments = [argument for argument in container["args"] if not argument.startswith("--listen")]
        command = [sys.executable, *container["command"][1:], *arguments]
        command += [f"--listen=127.0.0.1:{self.port}", f"--kubeconfig={kubeconfig}"]
        Child.__init__(self, name, command, folder / f"{name}.log")
