"""The operator as a process of its own, under its own ServiceAccount, with the rights in deploy/ and no others."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import urllib3
import yaml
from prometheus_client.parser import text_string_to_metric_families

from harness.cluster.controlplane import ControlPlane
from harness.cluster.processes import Child
from harness.patience import Patience
from harness.ports import free_port

DEPLOY = Path(__file__).parents[3] / "deploy"
ACCOUNT, SYSTEM = "selfevo-operator", "selfevo-system"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
IMAGE = "registry.example/selfevo/trainer:0.1.0"
START_LIMIT_S = 180.0
RESYNC_S = 900
"""Beyond every limit of the tests, so that none of them waits for a regular list without saying so."""
"""For machines with much else to do; an idle one takes two seconds."""
_PASSED_ON = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
_numbers = itertools.count(1)
_http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(5.0))


def manifests(namespace: str | None = None) -> list[dict[str, Any]]:
    """What deploy/ has for the operator's rights: in one namespace, or in the whole cluster."""
    text = (DEPLOY / ("rbac-namespaced.yaml" if namespace else "rbac.yaml")).read_text()
    return list(yaml.load_all(text.replace("namespace: research\n", f"namespace: {namespace}\n"), yaml.CSafeLoader))


def rules() -> list[dict[str, Any]]:
    """The operator's rights, as rules of a Role."""
    return next(m["rules"] for m in manifests() if m["kind"] == "ClusterRole")


def account(plane: ControlPlane, namespaces: Sequence[str] = ()) -> str:
    """A token of the operator's ServiceAccount, which gets its rights here: in these namespaces, or everywhere.

    Tests share a control plane, and one before this may have given it rights everywhere.
    """
    if namespaces and plane.admin.find("clusterrolebindings", ACCOUNT):
        plane.admin.delete("clusterrolebindings", ACCOUNT)
    for manifest in itertools.chain.from_iterable(manifests(namespace) for namespace in namespaces or (None,)):
        plane.admin.apply(manifest)
    return plane.service_account(SYSTEM, ACCOUNT)


class OperatorProcess(Child):
    """`python -m selfevo_operator`, which may be ended and started again."""

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        namespaces: Sequence[str] = (),
        *,
        server: str | None = None,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """For these namespaces, or for all. ``server`` where something stands before the apiserver."""
        name = f"operator-{next(_numbers)}"
        kubeconfig = plane.kubeconfig(account(plane, namespaces), folder / f"{name}.kubeconfig", server)
        self.port = free_port()
        command = [sys.executable, "-m", "selfevo_operator", "--kubeconfig", str(kubeconfig), "--image", IMAGE]
        command += ["--listen", f"127.0.0.1:{self.port}", "--resync-seconds", str(RESYNC_S), *flags]
        for namespace in namespaces:
            command += ["--namespace", namespace]
        if not namespaces:
            command.append("--all-namespaces")
        super().__init__(name, command, folder / f"{name}.log", env={**_PASSED_ON, **(env or {})})

    def run(self) -> Self:
        """Starts it, and waits until it is ready."""
        self.start()
        self.wait_for("/readyz", 200)
        return self

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def wait_end(self, limit_s: float = START_LIMIT_S) -> int:
        """Its exit code, when it has ended by itself."""
        assert self._process is not None
        return self._process.wait(limit_s)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    # -- what it serves

    def ask(self, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
        """Status (0 when nobody answers) and text."""
        try:
            answer = _http.request("GET", f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s)
        except urllib3.exceptions.HTTPError as error:
            return 0, str(error)
        return answer.status, answer.data.decode()

    def wait_for(self, path: str, code: int, limit_s: float = START_LIMIT_S) -> str:
        """What it says when ``path`` answers ``code``."""
        patience = Patience(limit_s)
        while (answer := self.ask(path))[0] != code:
            assert self.alive, f"the operator ended with {self.exit_code}:\n{self.tail()}"
            assert not patience.over(), f"{path} says {answer} after {limit_s} s:\n{self.tail()}"
            patience.rest()
        return answer[1]

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Samples by name and labels."""
        code, text = self.ask("/metrics")
        assert code == 200, text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and these labels."""
        wanted = set(labels.items())
        return sum(value for (sample, has), value in self.metrics().items() if sample == name and wanted <= has)


@contextmanager
def operating(
    plane: ControlPlane, folder: Path, namespaces: Sequence[str] = (), **more: Any
) -> Iterator[OperatorProcess]:
    """An operator that is ready, until the block ends. Whatever it met, it did not meet a defect of its own."""
    operator = OperatorProcess(plane, folder, namespaces, **more)
    try:
        yield operator.run()
        assert "a defect" not in operator.output, operator.output
    finally:
        operator.stop()
