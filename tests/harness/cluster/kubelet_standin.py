"""Stands in for a scheduler, a kubelet and the trainers of one namespace: it plays the pods' lives, as it is set to.

    kubelet.script["solver-train-1"] = [Life(exit_code=3), Life(oom=True)]

gives the first pod of that step the first life, the second the second, and all after them a good one. A shard has a
script of its own at ``"solver-rollout-1/2"``.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import urllib3

from harness.cluster import podstatus
from harness.cluster.client import Api, ApiError, Watch
from harness.cluster.lives import Life, Role, Store, termination_message

HEARTBEAT_S = 10.0
LONG_AGO_S = 600.0
_addresses = (f"10.88.{high}.{low}" for high, low in itertools.cycle(itertools.product(range(256), range(1, 255))))


@dataclass
class Lived:
    """A pod that the kubelet saw."""

    role: Role
    name: str
    exit_code: int | None = None
    """None while it lives, and when it never started."""


@dataclass
class _Pod:
    object: dict[str, Any]
    deleted: threading.Event = field(default_factory=threading.Event)
    """Its deletion was asked for, or it is gone."""
    gone: bool = False
    ended: bool = False


class FakeKubelet:
    """Plays until `stop`. Attributes may be changed while it does."""

    def __init__(self, api: Api, namespace: str, *, seconds: float = 0.05, hurry: bool = False) -> None:
        self.api, self.namespace, self.seconds = api, namespace, seconds
        self.hurry = hurry
        """Failed containers ended long ago, it says: the Job controller counts its wait of 10, 20, 40 seconds before
        the next pod from there, and so does not wait."""
        self.script: dict[str, list[Life]] = {}
        self.default = Life()
        self.store = Store()
        self.lived: list[Lived] = []
        """Every pod, in the order in which they came."""
        self.overlaps: list[str] = []
        """Places (`Role.place`) that two pods had at one time."""
        self.node = f"standin-{secrets.token_hex(4)}"
        self._pods: dict[str, _Pod] = {}
        self._working: dict[str, int] = defaultdict(int)
        self._released: dict[str, threading.Event] = defaultdict(threading.Event)
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._threads: list[threading.Thread] = []

    # -- what tests read and set

    @property
    def trained(self) -> list[str]:
        return self.store.trained

    @property
    def committed(self) -> dict[str, dict[str, float]]:
        return self.store.committed

    def release(self, step: str) -> None:
        """Lets pods of this step that hang go on, now and later."""
        self._released[step].set()

    def wait_for(self, reached: Callable[[], Any], limit_s: float = 180.0) -> None:
        """Waits until ``reached()``, asked again each time that a pod starts or ends."""
        with self._changed:
            assert self._changed.wait_for(reached, limit_s), f"not within {limit_s} s; lived: {self.lived}"

    def wait_running(self, step: str, limit_s: float = 180.0) -> str:
        """The name of a pod of this step that works now."""
        self.wait_for(lambda: self._running(step), limit_s)
        return self._running(step)[0]

    def _running(self, step: str) -> list[str]:
        return [pod.name for pod in self.lived if pod.role.step == step and pod.exit_code is None]

    # -- the watch

    def start(self) -> FakeKubelet:
        self._persist(lambda: self.api.create(_node(self.node)))
        for work in (self._follow, self._beat):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        for event in (*self._released.values(), *(pod.deleted for pod in self._pods.values())):
            event.set()
        if self._watch is not None:
            self._watch.close()
        for thread in self._threads:
            thread.join(10)
        with suppress(ApiError, urllib3.exceptions.HTTPError):  # the apiserver may have gone first
            self.api.delete("nodes", self.node)

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                listing = self.api.listing("pods", self.namespace)
                self._saw_all(listing["items"])
                version = listing["metadata"]["resourceVersion"]
                self._watch = self.api.watch("pods", self.namespace, version=version, timeout_s=300)
                for kind, pod in self._watch:
                    if kind == "ERROR" or self._stopped.is_set():
                        break
                    self._saw(pod, gone=kind == "DELETED")
            except (ApiError, urllib3.exceptions.HTTPError):
                self._stopped.wait(0.1)

    def _saw_all(self, pods: list[dict[str, Any]]) -> None:
        listed = {pod["metadata"]["uid"] for pod in pods}
        for pod in pods:
            self._saw(pod)
        for uid in set(self._pods) - listed:
            self._saw(self._pods[uid].object, gone=True)

    def _saw(self, pod: dict[str, Any], *, gone: bool = False) -> None:
        known = self._pods.get(pod["metadata"]["uid"])
        if known is None:
            if gone or pod["spec"].get("nodeName") not in (None, self.node):
                return
            known = self._pods[pod["metadata"]["uid"]] = _Pod(pod)
            thread = threading.Thread(target=self._play, args=(known,), daemon=True)
            self._threads.append(thread)
            thread.start()
        known.gone = known.gone or gone
        if gone or "deletionTimestamp" in pod["metadata"]:
            known.deleted.set()
            if known.ended and not gone:  # else its life is played to the end first
                self._remove(pod)

    def _beat(self) -> None:
        while not self._stopped.is_set():
            self._persist(lambda: self.api.patch("nodes", self.node, {"status": _ready()}, None, "status"))
            self._stopped.wait(HEARTBEAT_S)

    # -- a life

    def _play(self, pod: _Pod) -> None:
        role = Role.of(pod.object)
        life = self._next_life(role)
        if life.unschedulable:
            self._write(pod, podstatus.unschedulable(life.unschedulable))
            pod.ended = True  # without a node the apiserver removes it itself
            return
        self._bind(pod)
        if life.image_error:
            self._write(pod, podstatus.waiting(pod.object, life.image_error))
            pod.deleted.wait()
            self._end(pod, podstatus.ended(pod.object, 137, reason="ContainerStatusUnknown"))
            return
        started = podstatus.now()
        self._write(pod, podstatus.running(pod.object, next(_addresses)))
        lived = Lived(role, pod.object["metadata"]["name"])
        with self._changed:
            self.lived.append(lived)
            self._working[role.place] += 1
            if self._working[role.place] > 1:
                self.overlaps.append(role.place)
            self._changed.notify_all()
        code, message, reason = self._work(pod, role, life)
        with self._changed:
            self._working[role.place] -= 1
            lived.exit_code = code
            self._changed.notify_all()
        finished = podstatus.now(-LONG_AGO_S) if self.hurry and code else podstatus.now()
        self._end(pod, podstatus.ended(pod.object, code, min(started, finished), finished, message, reason))

    def _next_life(self, role: Role) -> Life:
        with self._changed:
            for name in (f"{role.step}/{role.index}", role.step):
                if self.script.get(name):
                    return self.script[name].pop(0)
        return self.default

    def _work(self, pod: _Pod, role: Role, life: Life) -> tuple[int, str, str]:
        """Exit code, termination message and reason."""
        found = self.store.has(role)
        seconds = self.seconds if life.seconds is None else life.seconds
        stopped = pod.deleted.wait(0 if found else seconds)
        if life.hangs and not stopped and not found:
            while not (stopped := pod.deleted.wait(0.02)) and not self._released[role.step].is_set():
                pass
        if life.evicted and not stopped:
            self._evict(pod)
            stopped = pod.deleted.wait(30)
        if stopped:
            if life.deaf and not self._stopped.is_set():
                self._stopped.wait(pod.object["spec"].get("terminationGracePeriodSeconds", 30))
                return 137, "", ""
            return 143, self._message(role, life, "terminated", 143), ""
        if life.leaves_output:
            outcome = self._commit(pod, role, works=not found)
        if life.oom:
            return 137, "", "OOMKilled"
        if life.exit_code:
            return life.exit_code, self._message(role, life, "failed", life.exit_code), ""
        return 0, self._message(role, life, outcome if life.leaves_output else "found", 0), ""

    def _commit(self, pod: _Pod, role: Role, *, works: bool) -> str:
        if role.shard is None and role.index:  # trains together with pod 0, which is the one that commits
            while role.key not in self.store.committed and not pod.deleted.wait(0.01):
                pass
            return "found"
        return self.store.commit(role, works=works)

    def _message(self, role: Role, life: Life, outcome: str, code: int) -> str:
        if isinstance(life.message, str):
            return life.message
        if not life.message:
            return ""
        return termination_message(role, outcome, code, self.store.committed.get(role.key, {}))

    # -- what it writes

    def _bind(self, pod: _Pod) -> None:
        metadata = pod.object["metadata"]
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
        self._call(pod, lambda path: self.api.request("POST", f"{path}/binding", body))

    def _write(self, pod: _Pod, status: dict[str, Any]) -> None:
        name = pod.object["metadata"]["name"]
        body = {"metadata": {"uid": pod.object["metadata"]["uid"]}, "status": status}
        self._call(pod, lambda _: self.api.patch("pods", name, body, self.namespace, "status", kind="strategic"))

    def _end(self, pod: _Pod, status: dict[str, Any]) -> None:
        self._write(pod, status)
        pod.ended = True
        if pod.deleted.is_set() and not pod.gone:
            self._remove(pod.object)

    def _evict(self, pod: _Pod) -> None:
        name = pod.object["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        self._call(pod, lambda path: self.api.request("POST", f"{path}/eviction", body))

    def _remove(self, pod: dict[str, Any]) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        path = self.api.path("pods", self.namespace, pod["metadata"]["name"])
        self._persist(lambda: self.api.request("DELETE", path, body))

    def _call(self, pod: _Pod, ask: Callable[[str], Any]) -> None:
        path = self.api.path("pods", self.namespace, pod.object["metadata"]["name"])
        self._persist(lambda: ask(path))

    def _persist(self, ask: Callable[[], Any]) -> None:
        """Asks until the apiserver is there; what it refuses (the pod is gone) is left."""
        while not self._stopped.is_set():
            try:
                ask()
                return
            except ApiError as error:
                if error.status < 500 and error.status != 429:
                    return
            except (urllib3.exceptions.HTTPError, OSError):
                pass
            self._stopped.wait(0.1)


def _node(name: str) -> dict[str, Any]:
    room = {"cpu": "1000", "memory": "1000Gi", "pods": "10000"}
    status = {"capacity": room, "allocatable": room, **_ready()}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def _ready() -> dict[str, Any]:
    beat = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": podstatus.now()}
    return {"conditions": [beat]}


@contextmanager
def playing(api: Api, namespace: str, *, seconds: float = 0.05, hurry: bool = False) -> Iterator[FakeKubelet]:
    """A kubelet for ``namespace``, until the block ends."""
    kubelet = FakeKubelet(api, namespace, seconds=seconds, hurry=hurry)
    try:
        yield kubelet.start()
    finally:
        kubelet.stop()
