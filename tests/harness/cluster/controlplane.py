"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager, and a scheduler if asked.

Nothing of it needs root, and nothing runs pods: that is for `kubelet_standin`, `kwok` or `node`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import urllib3
import yaml

from harness.cluster import tools
from harness.cluster.audit import FOLDER, Access, flags, note_start, read
from harness.cluster.client import Api, ApiError
from harness.cluster.processes import Child
from harness.cluster.users import Users, write_kubeconfig
from harness.gotools import ToolUnavailable
from harness.ports import free_port

START_LIMIT_S = 120.0
"""For machines with much else to do; an idle one takes three seconds."""

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


CRDS = sorted((Path(__file__).parents[3] / "crds").glob("*.yaml"))
"""The project's own."""


class ControlPlane:
    """The servers, their logs below ``folder``, and clients for them."""

    def __init__(
        self,
        folder: Path,
        *,
        crds: Iterable[Path] = (),
        scheduler: bool = False,
        audit: bool = False,
        apiserver_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
        policy_types: bool = False,
    ) -> None:
        """``policy_types``: each version of an admission policy has its types checked, which takes the controller
        manager two seconds of a core for each of the chart's three."""
        self.folder = folder
        self._crds = list(crds)
        self._audit = audit
        shared = os.environ.get(FOLDER)
        self._audit_folder = Path(shared) / secrets.token_hex(4) if shared else folder / "audit"
        self._audited = audit or bool(shared)
        self._with_scheduler = scheduler
        self._apiserver_flags, self._controller_flags = list(apiserver_flags), list(controller_flags)
        self._policy_types = policy_types
        self._admin_token = secrets.token_hex(16)
        self._controllers: list[Child] = []

    # -- life

    def start(self) -> Self:
        """Servers that answer.

        Raises:
            ToolUnavailable: when this machine cannot have one of them.
        """
        etcd, apiserver = tools.program(tools.ETCD), tools.program(tools.KUBE_APISERVER)
        controllers = [tools.program(tools.KUBE_CONTROLLER_MANAGER)]
        if self._with_scheduler:
            controllers.append(tools.program(tools.KUBE_SCHEDULER))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._users = Users()
        self._write_files()
        for last in (False, False, True):  # a free port may be somebody else's before the server has it
            self.port = free_port()
            self._etcd = self._start_etcd(etcd)
            self._apiserver = Child(
                "kube-apiserver", [apiserver, *self._apiserver_command()], self._log("kube-apiserver")
            )
            try:
                self.start_apiserver()
                break
            except RuntimeError:
                self._apiserver.kill()
                self._etcd.kill()
                if last:
                    raise
        self.admin = self.client(self._admin_token)
        for crd in self._crds:
            self.install(crd)
        # After the CRDs: the garbage collector lists new kinds only every 30 seconds.
        admin = self.kubeconfig(self._admin_token, self.folder / "admin.kubeconfig")
        for program in controllers:
            flags = (
                self._controller_command(admin)
                if program.name == "kube-controller-manager"
                else _scheduler_command(admin)
            )
            child = Child(program.name, [program, *flags], self._log(program.name))
            child.start()
            self._controllers.append(child)
        return self

    def stop(self) -> None:
        for child in (*self._controllers, getattr(self, "_apiserver", None), getattr(self, "_etcd", None)):
            if child is not None:
                child.kill()  # the data goes with it: there is nothing to end properly
        if hasattr(self, "_users"):
            self._users.close()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def start_apiserver(self) -> None:
        """Starts it, at the port that it had, and waits until it is ready."""
        began = datetime.now(UTC)
        self._apiserver.start()
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._apiserver.alive and self._etcd.alive:
            if self._ready():
                if self._audited:
                    note_start(self._audit_folder, began)
                return
            time.sleep(0.05)
        raise RuntimeError(f"kube-apiserver did not start:\n{self._etcd.tail()}\n{self._apiserver.tail(4000)}")

    def stop_apiserver(self, *, kill: bool = True) -> None:
        """Nobody listens any more; what it stored is still there."""
        if kill:
            self._apiserver.kill()
        else:
            self._apiserver.stop(60)

    def restart_apiserver(self, *, kill: bool = True) -> None:
        self.stop_apiserver(kill=kill)
        self.start_apiserver()

    def pause_apiserver(self) -> None:
        """It still accepts connections and never answers."""
        self._apiserver.pause()

    def continue_apiserver(self) -> None:
        self._apiserver.go_on()

    @property
    def pids(self) -> dict[str, int]:
        return {child.name: child.pid for child in (self._etcd, self._apiserver, *self._controllers)}

    # -- who asks

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate of the apiserver, which signed itself."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def kubelet_client_ca(self) -> Path:
        """The certificate by which the apiserver shows a kubelet who it is. It signed itself."""
        return self.folder / "kubelet-client.crt"

    @property
    def admin_token(self) -> str:
        return self._admin_token

    def client(self, token: str, server: str | None = None) -> Api:
        return Api(server or self.server, token, self.ca)

    def user(self, name: str, groups: Sequence[str] = ()) -> str:
        """A token of a person called ``name``, who may do what RBAC says."""
        return self._users.add(name, groups)

    def service_account(self, namespace: str, name: str) -> str:
        """A token of the ServiceAccount, which is made when there is none."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        self.admin.apply(account)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 86400},
        }
        path = self.admin.path("serviceaccounts", namespace, name, "token")
        return str(self.admin.request("POST", path, request)["status"]["token"])

    def grant(self, user: str, rules: list[dict[str, Any]], namespace: str | None = None) -> None:
        """Lets ``user`` (``system:serviceaccount:<namespace>:<name>``) do this, in one namespace or in all."""
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": f"test-{secrets.token_hex(4)}", **({"namespace": namespace} if namespace else {})}
        rbac = "rbac.authorization.k8s.io"
        self.admin.create({"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": metadata, "rules": rules})
        self.admin.create(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": rbac, "kind": kind, "name": metadata["name"]},
                "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
            }
        )

    def kubeconfig(self, token: str, path: Path, server: str | None = None, namespace: str | None = None) -> Path:
        """Written to ``path``; ``server`` where something stands in between."""
        return write_kubeconfig(path, server or self.server, token, self.ca, namespace)

    # -- what tests need again and again

    def install(self, crd: Path) -> None:
        """The CRD, served."""
        manifest = yaml.load(crd.read_text(), yaml.CSafeLoader)
        self.admin.apply(manifest)
        self.admin.wait("customresourcedefinitions", manifest["metadata"]["name"], until=_established)

    def make_namespace(self, prefix: str = "test", labels: dict[str, str] = RESTRICTED) -> str:
        """A new namespace in which pods can be made at once."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # The controller would make it in a moment; a Job whose first pod is refused waits ten seconds.
        self.admin.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
        )
        return name

    def remove_namespace(self, name: str) -> None:
        """Asks for its removal. Pods go by force: whoever played kubelet may be gone."""
        self.admin.delete("namespaces", name)
        for resource in ("jobs", "pods"):
            self.admin.delete_all(resource, name, grace_s=0)

    def audited(self) -> Iterator[Access]:
        """Every request about a resource that was answered so far; of ServiceAccounts alone without ``audit=True``."""
        return (access for access in read(self._audit_folder) if not access.resource.startswith("/"))

    # -- how it is put together

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _write_files(self) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise ToolUnavailable("there is no openssl here to make the ServiceAccounts' key")
        key = self.folder / "service-accounts.key"
        subprocess.run([openssl, "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        identity = ["-subj", "/O=system:masters/CN=apiserver", "-days", "30", "-nodes"]
        files: list[str | Path] = ["-keyout", self.folder / "kubelet-client.key", "-out", self.kubelet_client_ca]
        command: list[str | Path] = [openssl, "req", "-x509", "-newkey", "rsa:2048", *identity, *files]
        subprocess.run(command, check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{self._admin_token},test-admin,test-admin,"system:masters"\n')
        self._users.write_config(self.folder / "users.kubeconfig")

    def _start_etcd(self, program: Path) -> Child:
        self._etcd_url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        command: list[str | Path] = [
            program,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]
        child = Child("etcd", command, self._log("etcd"))
        child.start()
        return child

    def _apiserver_command(self) -> list[str]:
        key = self.folder / "service-accounts.key"
        return [
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder / 'certificates'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--authentication-token-webhook-config-file={self.folder / 'users.kubeconfig'}",
            "--authentication-token-webhook-version=v1",
            "--kubelet-preferred-address-types=Hostname",
            f"--kubelet-client-certificate={self.kubelet_client_ca}",
            f"--kubelet-client-key={self.folder / 'kubelet-client.key'}",
            "--allow-privileged=true",
            "--v=0",
            *(flags(self._audit_folder, self._audit) if self._audited else []),
            *self._apiserver_flags,
        ]

    def _controller_command(self, admin: Path) -> list[str]:
        return [
            f"--kubeconfig={admin}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.ca}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--concurrent-job-syncs=20",
            "--concurrent-gc-syncs=20",
            f"--controllers=*{'' if self._policy_types else ',-validatingadmissionpolicy-status-controller'}",
            "--v=0",
            *self._controller_flags,
        ]

    def _ready(self) -> bool:
        try:
            return bool(Api(self.server, self._admin_token, self.ca).request("GET", "/readyz", timeout_s=5.0) == "ok")
        except (ApiError, urllib3.exceptions.HTTPError, OSError):  # not yet; or its certificate is not written yet
            return False


def _scheduler_command(admin: Path) -> list[str]:
    qps = ["--kube-api-qps=500", "--kube-api-burst=1000"]
    return [f"--kubeconfig={admin}", "--leader-elect=false", "--secure-port=0", "--v=0", *qps]


def _established(crd: dict[str, Any] | None) -> bool:
    conditions = (crd or {}).get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[ControlPlane]:
    """A control plane, until the block ends."""
    plane = ControlPlane(folder, **settings)
    try:
        yield plane.start()
    finally:
        plane.stop()
