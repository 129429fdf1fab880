"""A real node: kubelet, containerd and runc, in namespaces of their own, so that nothing of it is left behind.

Its containers see this machine's programs and Python environment, read-only, at the places where they are here, or
below /here where our pods have volumes of their own: the image itself holds only what a file system must have. So
`python -m selfevo_trainer` runs in a pod as it is checked out.

Pods have a network among themselves and no way out; `Node.expose` leads a port of this machine in. The API server's own
Service is there, at the address that the kubelet tells every pod (KUBERNETES_SERVICE_HOST), so that a pod with a
ServiceAccount finds it as in any cluster: the node has the address, as with a kube-proxy in IPVS mode, and what is sent
to it is led out. Of other Services there are the names (`dns`), which is all that a headless one has. No GPUs, but the
node can say that it has some (`Node.count_gpus`); no PersistentVolumes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from harness.cluster import debian, dns, tools
from harness.cluster.client import Api
from harness.cluster.controlplane import ControlPlane
from harness.cluster.images import with_libraries, write_image
from harness.cluster.namespaces import Network
from harness.cluster.processes import Child
from harness.gotools import ToolUnavailable, cache_dir
from harness.ports import free_port

IMAGE = "selfevo.test/python:1"
NEXT_IMAGE = "selfevo.test/python:2"
"""The same by another name, for upgrades."""
PAUSE = "selfevo.test/pause:1"
ADDRESS = "10.88.0.1"
"""Of the node, as its pods see it."""
GPU = "nvidia.com/gpu"
START_LIMIT_S = 120.0
CGROUPS = Path("/sys/fs/cgroup")
REPOSITORY = Path(__file__).parents[3]
PACKAGES = tuple(REPOSITORY / name for name in ("contract", "operator", "trainer", "cli"))
COVERED = (Path("/work"), Path("/tmp"), Path("/dev"))
"""Where volumes of our pods are mounted: what an image has there, they do not see."""
PRIVATE = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc")


def bytecode() -> Path:
    """Where containers find compiled modules."""
    return cache_dir() / "pycache"


def inside(path: Path) -> Path:
    """Where a container sees what is ``path`` here."""
    path = path.absolute()
    covered = any(each == path or each in path.parents for each in COVERED)
    return Path("/here", *path.parts[1:]) if covered else path


def compile_ahead(*modules: str) -> None:
    """Compiles these modules and all that they import, for containers, which cannot keep what they compile.

    A process that trains starts twice as fast for it. What has changed since is compiled anew by each, so this is safe.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode())}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], env=environment, check=True)


class Node:
    """The node ``localhost`` of ``plane``. One at a time."""

    def __init__(self, plane: ControlPlane, folder: Path, *, binds: Sequence[Path] = ()) -> None:
        self.plane, self.folder = plane, folder
        bytecode().mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # what was compiled at its place here is found from its place in there
            (bytecode() / "here").symlink_to(".")
        python = [Path(sys.base_prefix), Path(sys.prefix), bytecode()]
        self._binds = _outermost([Path("/usr"), *python, REPOSITORY, *binds])

    # -- life

    def start(self) -> Node:
        """Ready to run pods.

        Raises:
            ToolUnavailable: when this machine cannot be a node.
        """
        if os.getuid() != 0:
            raise ToolUnavailable("a kubelet needs root")
        self.name = f"selfevo-node-{secrets.token_hex(4)}"
        self._cgroup = _own_cgroup() / self.name
        self.folder.mkdir(parents=True)
        _try_namespaces(self.folder)
        programs, kubelet = debian.unpacked(), tools.program(tools.KUBELET)
        self.port = free_port()
        self._service = self.plane.admin.wait("services", "kubernetes", "default", until=bool)["spec"]
        self._write_files(programs)
        self._make_cgroups()
        init = [Path(__file__).with_name("node-init.sh"), self.folder, programs, kubelet]
        init.append(self._service["clusterIP"])
        self._child = Child("node", [*PRIVATE, *init], self.folder / "init.log")
        self._child.start()
        self.network = Network(self._child.pid)
        self.network.lead_out(self.plane.port)
        self.network.lead_in(self.port)
        deadline = time.monotonic() + START_LIMIT_S
        while not _ready(self.plane.admin.find("nodes", "localhost")):
            if not self._child.alive or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start:\n{self.tail()}")
            time.sleep(0.1)
        self.network.lead_out(self.plane.port, self._service["clusterIP"], at=self._service["ports"][0]["port"])
        dns.serve(self.network.bound(ADDRESS, dns.PORT), self.plane.admin)
        return self

    def stop(self) -> None:
        if hasattr(self, "network"):
            self.network.close()
        if hasattr(self, "_child"):
            self._child.kill()
            self._remove_cgroups()
            self.plane.admin.delete("nodes", "localhost")
            shutil.rmtree(self.folder / "containerd", ignore_errors=True)
            shutil.rmtree(self.folder / "kubelet", ignore_errors=True)

    def tail(self) -> str:
        """The last lines of its programs."""
        logs = (self.folder / f"{name}.log" for name in ("init", "containerd", "kubelet"))
        return "\n".join(f"-- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists())

    # -- for tests

    def expose(self, port: int) -> str:
        """Where a pod reaches what listens at 127.0.0.1:port of this machine: ``10.88.0.1:<port>``."""
        self.network.lead_out(port, ADDRESS)
        return f"{ADDRESS}:{port}"

    def count_gpus(self, count: int) -> None:
        """Have the node say that it has so many GPUs, as administrators advertise extended resources: the scheduler and
        the kubelet count them, and no container sees one."""
        # The kubelet would take the second from the first the next time that it writes the node's status.
        status = {"capacity": {GPU: str(count)}, "allocatable": {GPU: str(count)}}
        self.plane.admin.patch("nodes", "localhost", {"status": status}, subresource="status")

    def probes(self) -> dict[tuple[str, str, str], float]:
        """How often the kubelet has asked a container, by its name, the kind of the probe, and the answer."""
        kubelet = Api(
            f"https://localhost:{self.port}", self.plane.admin_token, self.folder / "certificates/kubelet.crt"
        )
        samples = [
            sample
            for family in text_string_to_metric_families(kubelet.request("GET", "/metrics/probes"))
            for sample in family.samples
            if sample.name == "prober_probe_total"
        ]
        found: dict[tuple[str, str, str], float] = {}
        for sample in samples:
            key = (sample.labels["container"], sample.labels["probe_type"], sample.labels["result"])
            found[key] = found.get(key, 0.0) + sample.value
        return found

    def processes(self, pod: dict[str, Any], container: str = "trainer") -> list[int]:
        """The pids, out here, of what runs in a container."""
        statuses = pod["status"]["containerStatuses"]
        identity = next(s["containerID"] for s in statuses if s["name"] == container).removeprefix("containerd://")
        groups = self._tree("memory").glob(f"**/{identity}/**/cgroup.procs")
        return [int(pid) for procs in groups for pid in procs.read_text().split()]

    def kill_container(self, pod: dict[str, Any], container: str = "trainer") -> int:
        """SIGKILL to its processes, as the kernel does it when memory runs out; how many there were."""
        killed = 0
        for pid in self.processes(pod, container):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed

    # -- files

    def _write_files(self, programs: Path) -> None:
        plane = self.plane
        token = plane.user("system:node:localhost", ["system:nodes"])
        plane.kubeconfig(token, self.folder / "kubelet.kubeconfig")
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        (self.folder / "resolv.conf").write_text("")
        (self.folder / "containerd.toml").write_text(_containerd(self.folder, programs))
        spec = subprocess.run([programs / "usr/bin/ctr", "oci", "spec"], check=True, capture_output=True, text=True)
        base = json.loads(spec.stdout)
        for bound in self._binds:
            options = ["rbind", "ro", "nosuid", "nodev"]
            mount = {"destination": str(inside(bound)), "source": str(bound), "type": "bind", "options": options}
            base["mounts"].append(mount)
        (self.folder / "base-spec.json").write_text(json.dumps(base))
        network = {"type": "bridge", "bridge": "cni0", "ipMasq": False, "name": "pods", "cniVersion": "0.4.0"}
        ipam: dict[str, Any] = {
            "type": "host-local",
            "subnet": "10.88.0.0/24",
            "gateway": ADDRESS,
            "dataDir": "/run/cni",
        }
        ipam["routes"] = [{"dst": f"{self._service['clusterIP']}/32"}]
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-pods.conf").write_text(json.dumps({**network, "ipam": ipam}))
        (self.folder / "images").mkdir()
        _write_images(self.folder / "images")

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self.port,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.plane.kubelet_client_ca)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": str(self._cgroup),
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "podLogsDir": str(self.folder / "pod-logs"),
            "resolvConf": str(self.folder / "resolv.conf"),
            "clusterDNS": [ADDRESS],
            "clusterDomain": dns.DOMAIN,
        }

    # -- cgroups: below this process's own, so that what pods use is counted as the test's

    def _tree(self, controller: str) -> Path:
        return CGROUPS / controller / self._cgroup.relative_to("/")

    def _make_cgroups(self) -> None:
        self._made: list[Path] = []
        for controller in _controllers():
            folder = self._tree(controller)
            missing = [each for each in (folder, *folder.parents) if not each.exists()]
            for each in reversed(missing):
                try:
                    each.mkdir()
                except OSError as refused:
                    raise ToolUnavailable(f"control groups cannot be made here: {refused}") from None
                self._made.append(each)

    def _remove_cgroups(self) -> None:
        for controller in _controllers():
            folder = self._tree(controller)
            deadline = time.monotonic() + 10  # killed processes leave their groups in their own time
            below = sorted((p for p in folder.glob("**/") if p.is_dir()), key=lambda p: -len(p.parts))
            while below and time.monotonic() < deadline:
                below = [each for each in below if not _removed(each)]
                time.sleep(0.02 if below else 0)
        for each in reversed(self._made):
            _removed(each)


def _try_namespaces(folder: Path) -> None:
    (folder / "probe").mkdir()
    steps = (
        "cd $0 && mkdir upper work over",
        "mount -t overlay overlay -o lowerdir=/usr,upperdir=$0/upper,workdir=$0/work over",
        "ip link add probe0 type bridge",
    )
    probe = [*PRIVATE, "sh", "-c", " && ".join(steps), str(folder / "probe")]
    done = subprocess.run(probe, capture_output=True, text=True)
    if done.returncode:
        raise ToolUnavailable(f"this machine lets nobody have a node's namespaces: {done.stderr.strip()[-300:]}")
    shutil.rmtree(folder / "probe")


def _removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _controllers() -> list[str]:
    return [each.name for each in CGROUPS.iterdir() if each.is_dir() and not each.is_symlink()]


def _own_cgroup() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path(path)
    raise ToolUnavailable("the node is written for cgroup v1 with a memory controller, and there is none here")


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """Without those that lie below others."""
    whole = sorted({path.absolute() for path in paths})
    return [path for path in whole if not any(other in path.parents for other in whole)]


def _write_images(folder: Path) -> None:
    # Where Debian has merged them into /usr, as it has since 2019, they are links.
    links = {name: f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin") if Path(f"/{name}").is_symlink()}
    users = b"root:x:0:0:root:/root:/bin/sh\nselfevo:x:10001:10001::/tmp:/bin/sh\n"
    files = {
        "etc/passwd": users,
        "etc/group": b"root:x:0:\nselfevo:x:10001:\n",
        "etc/nsswitch.conf": b"hosts: files dns\n",
    }
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        files["etc/ld.so.cache"] = cache.read_bytes()
    folders = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var"]
    environment = [
        f"PATH={inside(Path(sys.prefix))}/bin:/usr/bin:/bin",
        f"PYTHONPATH={':'.join(str(inside(package)) for package in PACKAGES)}",
        f"PYTHONPYCACHEPREFIX={inside(bytecode())}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    config = {"Env": environment, "Cmd": ["python"], "WorkingDir": "/"}
    for archive, name in (("python.tar", IMAGE), ("next.tar", NEXT_IMAGE)):
        write_image(folder / archive, name, folders=folders, links=links, files=files, config=config)
    # A pod's sandbox does not get the mounts of its containers.
    sleep = Path(shutil.which("sleep") or "/usr/bin/sleep").resolve()
    config = {"Entrypoint": [str(sleep), "infinity"]}
    write_image(folder / "pause.tar", PAUSE, files=with_libraries(sleep), config=config)


def _containerd(folder: Path, programs: Path) -> str:
    # restrict_oom_score_adj: without it runc cannot make a sandbox here, for want of a right to lower the score.
    return f"""
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{programs}/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{folder}/base-spec.json"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{programs}/usr/sbin/runc"
SystemdCgroup = false
"""


def _ready(node: dict[str, Any] | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@contextmanager
def running(plane: ControlPlane, folder: Path, *, binds: Sequence[Path] = ()) -> Iterator[Node]:
    """A node for ``plane``, until the block ends."""
    node = Node(plane, folder, binds=binds)
    try:
        yield node.start()
    finally:
        node.stop()
