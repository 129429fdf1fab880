"""kwok: nodes that do not exist, whose pods all live well, by the thousand. For benchmarks.

Each pod runs for the same time and leaves the PhaseResult that its labels and annotations ask for. Who must fail, hang
or find an earlier output plays in `kubelet_standin`. Pods need a scheduler: ``ControlPlane(scheduler=True)``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cluster import tools
from harness.cluster.controlplane import ControlPlane
from harness.cluster.processes import Child
from harness.ports import free_port, wait_for_port

ROOM = {"cpu": "10k", "memory": "100Ti", "pods": "100k", "nvidia.com/gpu": "100k", "ephemeral-storage": "100Ti"}
BEATS_MS = (20_000, 30_000)
"""A node is given up after 50 seconds of silence."""

# In a template `.` is the object. JSON is YAML, and toJson quotes what it prints.
_NODE_READY = """
phase: Running
conditions:
- {type: Ready, status: "True", reason: KubeletReady, lastHeartbeatTime: {{ Now | Quote }}}
"""
_POD_RUNNING = """
phase: Running
startTime: {{ Now | Quote }}
podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ Now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: true
  started: true
  state: {running: {startedAt: {{ Now | Quote }}}}
{{ end }}
"""
_POD_SUCCEEDED = """
{{ $labels := .metadata.labels | default dict }}
{{ $notes := .metadata.annotations | default dict }}
{{ $phase := get $labels "selfevo.dev/phase" }}
{{ $iteration := get $labels "selfevo.dev/iteration" | default "0" | float64 }}
{{ $metrics := dict "reward_first" 0.3 "reward_last" 0.4 }}
{{ if eq $phase "evaluate" }}
{{ $metrics = dict "mean" (addf 0.5 (mulf 0.01 $iteration)) "greedy" (addf 0.6 (mulf 0.01 $iteration)) }}
{{ end }}
{{ $result := dict "phase" $phase "key" (get $notes "selfevo.dev/key") "outcome" "committed" "exitCode" 0 }}
{{ $_ := set $result "metrics" $metrics }}
{{ $_ := set $result "timings" (dict "total" 1.0) }}
{{ $status := .status }}
phase: Succeeded
conditions:
- {type: ContainersReady, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
- {type: Ready, status: "False", reason: PodCompleted, lastTransitionTime: {{ Now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: false
  started: false
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $status.startTime | Quote }}
      finishedAt: {{ Now | Quote }}
      {{ if and $phase (eq .name "trainer") }}
      message: {{ $result | toJson | Quote }}
      {{ end }}
{{ end }}
"""


class Kwok:
    """kwok, and ``nodes`` nodes of its own."""

    def __init__(self, plane: ControlPlane, folder: Path, *, nodes: int = 4, seconds: float = 1.0) -> None:
        self.plane = plane
        self.nodes = [f"kwok-{number}" for number in range(nodes)]
        folder.mkdir(parents=True, exist_ok=True)
        stages = folder / "stages.yaml"
        stages.write_text("\n---\n".join(json.dumps(stage) for stage in _stages(seconds)))
        self._port = free_port()
        command: list[str | Path] = [
            tools.program(tools.KWOK),
            f"--kubeconfig={plane.kubeconfig(plane.admin_token, folder / 'kwok.kubeconfig')}",
            f"--config={stages}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-label-selector=type=kwok",
            f"--server-address=127.0.0.1:{self._port}",
            "--node-ip=127.0.0.1",
            "--cidr=10.64.0.0/10",
        ]
        self._child = Child("kwok", command, folder / "kwok.log")

    def start(self) -> Kwok:
        for name in self.nodes:
            metadata = {"name": name, "labels": {"type": "kwok", "kubernetes.io/hostname": name}}
            status = {"capacity": ROOM, "allocatable": ROOM}
            self.plane.admin.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status})
        self._child.start()
        if not wait_for_port(self._port, lambda: self._child.alive):
            raise RuntimeError(f"kwok did not start:\n{self._child.tail()}")
        for name in self.nodes:
            self.plane.admin.wait("nodes", name, until=_can_take_pods)
        return self

    def stop(self) -> None:
        self._child.kill()
        for name in self.nodes:
            self.plane.admin.delete("nodes", name)

    @property
    def pid(self) -> int:
        return self._child.pid


def _can_take_pods(node: dict[str, Any] | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not (node or {})["spec"].get("taints")


def _stages(seconds: float) -> Iterator[dict[str, Any]]:
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    deleted, phase = ".metadata.deletionTimestamp", ".status.phase"
    beat = {"durationMilliseconds": BEATS_MS[0], "jitterDurationMilliseconds": BEATS_MS[1]}
    yield _stage("node-starts", "Node", [(ready, "NotIn", ["True"])], template=_NODE_READY)
    yield _stage("node-beats", "Node", [(ready, "In", ["True"])], template=_NODE_READY, delay=beat)
    alive: tuple[str, str, list[str]] = (deleted, "DoesNotExist", [])
    yield _stage("pod-starts", "Pod", [alive, (phase, "In", ["Pending"])], template=_POD_RUNNING)
    life = {"durationMilliseconds": int(1000 * seconds)}
    yield _stage("pod-ends", "Pod", [alive, (phase, "In", ["Running"])], template=_POD_SUCCEEDED, delay=life)
    yield _stage("pod-goes", "Pod", [(deleted, "Exists", [])])


def _stage(
    name: str,
    kind: str,
    when: list[tuple[str, str, list[str]]],
    *,
    template: str = "",
    delay: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Without a template the object is deleted."""
    expressions = [
        {"key": key, "operator": operator, **({"values": values} if values else {})} for key, operator, values in when
    ]
    spec: dict[str, Any] = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": expressions},
        "next": {"statusTemplate": template} if template else {"delete": True},
    }
    if delay:
        spec["delay"] = delay
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


@contextmanager
def running(plane: ControlPlane, folder: Path, *, nodes: int = 4, seconds: float = 1.0) -> Iterator[Kwok]:
    """kwok and its nodes, until the block ends."""
    kwok = Kwok(plane, folder, nodes=nodes, seconds=seconds)
    try:
        yield kwok.start()
    finally:
        kwok.stop()
