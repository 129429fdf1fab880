"""Admits Jobs from queues as Kueue is documented to, for a real control plane without it. One namespace, one resource.

What Kueue does to a Job is all that a Job's owner ever sees of it, and this does the same, in the same order:

- A Job that names a queue is created suspended. Kueue has a webhook for that; here a MutatingAdmissionPolicy says it.
- Admitted: one update sets ``suspend`` to false and puts the flavor's node labels into the pod template. When the
  quota has no room for all pods, no preemption would make any, and the annotation ``job-min-parallelism`` allows it,
  ``parallelism`` is lowered to what fits; ``completions`` stays.
- Evicted (a workload of higher priority, the queue is stopped, an administrator): ``suspend`` true. When no pod is
  active, ``status.startTime`` is cleared, template and parallelism become what they were, and the place is free. A pod
  that has been asked to end is not active: the next one's pods may start beside it, for as long as it saves. The Job
  queues again, after a while that grows with each eviction.
- A Job that was admitted in part and evicted, with shards that are done, is evicted no second time: Kueue's own webhook
  refuses the Workload, whose reclaimable pods are then more than its pods.
- Pods that are not ready in time (``waitForPodsReady``): evicted; after so many times (``requeuingStrategy``'s limit)
  the Workload is deactivated, and the Job waits for ever.
- Nobody's Job: a queue that does not exist leaves it suspended.

Workload objects are there for whoever reads them (`CRD`): a schema of our own that takes any content, with the fields
and words of Kueue's types. No borrowing, no topology.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import urllib3

from harness.cluster.client import Api, ApiError
from harness.cluster.manifests import ended, job

PREFIX = "kueue.x-k8s.io/"
QUEUE, PRIORITY, MIN_PARALLELISM = (PREFIX + name for name in ("queue-name", "priority-class", "job-min-parallelism"))
GPU = "nvidia.com/gpu"
MANAGER = "kueue"
PERIOD_S = 0.1
Object = dict[str, Any]


@dataclass(frozen=True)
class Flavor:
    """A ResourceFlavor with its quota in one ClusterQueue."""

    name: str
    quota: int
    node_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Queue:
    """A ClusterQueue, and the one LocalQueue that leads to it."""

    flavors: tuple[Flavor, ...]
    preempts: bool = False
    """``preemption.withinClusterQueue: LowerPriority``."""


@dataclass
class Workload:
    """What is known of one Job."""

    name: str
    queue: str
    priority: int
    per_pod: int
    parallelism: int
    minimum: int
    node_selector: dict[str, str]
    since: float
    flavor: str = ""
    """Where its place is; none when it waits."""
    count: int = 0
    evictions: int = 0
    evicted: bool = False
    """Asked to end, and its pods are still there."""
    in_part: bool = False
    """It was admitted with fewer pods than it has, once."""
    admitted_at: float = 0.0
    unready: int = 0
    """How often its pods were not ready in time."""
    active: bool = True
    """An administrator may set a workload inactive: then it waits until that is taken back."""


class Admitter:
    """Admits until `stop`. Attributes may be changed while it does."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        queues: Mapping[str, Queue],
        priorities: Mapping[str, int] | None = None,
        backoff_s: float = 0.5,
        pods_ready_s: float | None = None,
        requeuing_limit: int = 1,
        workloads: bool = False,
    ) -> None:
        self.api, self.namespace = api, namespace
        self.queues, self.priorities, self.backoff_s = dict(queues), dict(priorities or {}), backoff_s
        self.pods_ready_s, self.requeuing_limit = pods_ready_s, requeuing_limit
        self.writes_workloads = workloads
        """Keep a Workload object for each Job, as Kueue does; the CRD must be there."""
        self.holding = False
        """``stopPolicy: Hold``: what is admitted goes on, nothing else is admitted."""
        self.recorded: list[tuple[str, str, int]] = []
        """What was done: Admitted, Evicted, Requeued or Finished, the Job's name, and for how many pods at a time."""
        self.most: dict[str, int] = {}
        """The largest use that each queue saw."""
        self.workloads: dict[str, Workload] = {}
        """By UID of the Job."""
        self._broken: Exception | None = None
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._policy = f"queue-{namespace}"

    # -- what tests tell and ask

    def evict(self, step: str) -> str:
        """Takes the place of this step's Job away, as a preemption would, once it has one. Its name."""
        return self._to_workload(step, lambda each: bool(each.flavor) and not each.evicted, self._evict)

    def deactivate(self, step: str, words: str = "The workload is deactivated") -> str:
        """Gives this step's Job up, as an administrator or a requeuing limit would. Its name."""
        return self._to_workload(step, lambda each: True, lambda each: self._deactivate(each, words))

    def _to_workload(
        self, step: str, ready: Callable[[Workload], bool], do: Callable[[Workload], None], limit_s: float = 120
    ) -> str:
        """Does something to the workload of a step's Job as soon as one is known that is ready for it."""
        deadline = time.monotonic() + limit_s
        while True:
            with self._lock:
                found = [w for w in self.workloads.values() if f"-{step}-" in w.name and ready(w)]
                if found:
                    do(found[0])
                    return found[0].name
            assert time.monotonic() < deadline, f"no workload of {step}: {self.workloads} {self._broken}"
            time.sleep(0.05)

    def events(self, kind: str) -> list[tuple[str, int]]:
        return [(name, count) for recorded, name, count in self.recorded if recorded == kind]

    # -- life

    def start(self) -> Admitter:
        for manifest in _policy(self._policy, self.namespace):
            self.api.create(manifest)
        self._wait_for_policy()
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        with suppress(ApiError, urllib3.exceptions.HTTPError):
            for plural in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
                self.api.delete(f"admissionregistration.k8s.io/v1/{plural}", self._policy)
        assert self._broken is None, self._broken

    def _wait_for_policy(self) -> None:
        """The apiserver hears of a policy a moment after it is stored."""
        probe = job("probe")
        probe["metadata"]["labels"] = {QUEUE: "probe"}
        deadline = time.monotonic() + 60
        while not self.api.create(probe, self.namespace, dryRun="All")["spec"].get("suspend"):
            assert time.monotonic() < deadline, "Jobs with a queue are not created suspended"
            time.sleep(0.05)

    def _work(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            try:
                with self._lock:
                    self._round()
            except (ApiError, urllib3.exceptions.HTTPError):
                continue  # the next round sees what is so
            except Exception as error:
                self._broken = error
                raise

    # -- a round

    def _round(self) -> None:
        jobs = {each["metadata"]["uid"]: each for each in self.api.list("jobs", self.namespace, QUEUE)}
        for uid in set(self.workloads) - set(jobs):
            del self.workloads[uid]
        for uid, each in jobs.items():
            if ended(each):
                if self.workloads.pop(uid, None) is not None:
                    self.recorded.append(("Finished", each["metadata"]["name"], 0))
            elif "deletionTimestamp" not in each["metadata"]:
                workload = self.workloads.setdefault(uid, self._workload(each))
                status = each.get("status") or {}
                if workload.evicted and not status.get("active"):
                    self._restore(workload)
                elif workload.flavor and self._is_late(workload, status):
                    self._give_up_on_pods(workload)
                elif not workload.flavor and not each["spec"].get("suspend"):
                    self._suspend(workload)  # started by whoever it was: not by us
        waiting = [w for w in self.workloads.values() if not w.flavor and w.active and w.since <= time.monotonic()]
        if not self.holding:
            for workload in sorted(waiting, key=lambda w: (-w.priority, w.since)):
                self._consider(workload)
        for name in self.queues:
            self.most[name] = max(self.most.get(name, 0), sum(self._used(name).values()))

    def _workload(self, each: Object) -> Workload:
        spec, labels = each["spec"], each["metadata"]["labels"]
        minimum = int((each["metadata"].get("annotations") or {}).get(MIN_PARALLELISM, spec["parallelism"]))
        assert MIN_PARALLELISM not in (each["metadata"].get("annotations") or {}) or 0 < minimum < spec["parallelism"]
        return Workload(
            name=each["metadata"]["name"],
            queue=labels[QUEUE],
            priority=self.priorities.get(labels.get(PRIORITY, ""), 0),
            per_pod=_asked(spec["template"]["spec"]),
            parallelism=spec["parallelism"],
            minimum=minimum,
            node_selector=dict(spec["template"]["spec"].get("nodeSelector") or {}),
            since=time.monotonic(),
        )

    def _used(self, queue: str) -> dict[str, int]:
        """By flavor. What is being evicted still has its place."""
        used = {flavor.name: 0 for flavor in self.queues[queue].flavors}
        for workload in self.workloads.values():
            if workload.queue == queue and workload.flavor:
                used[workload.flavor] += workload.count * workload.per_pod
        return used

    def _consider(self, workload: Workload) -> None:
        queue = self.queues.get(workload.queue)
        if queue is None:
            return
        used = self._used(workload.queue)
        rooms = [(flavor, flavor.quota - used[flavor.name]) for flavor in queue.flavors]
        for flavor, room in rooms:
            if workload.parallelism * workload.per_pod <= room:
                self._admit(workload, flavor, workload.parallelism)
                return
        if queue.preempts and self._preempt(workload, rooms):
            return
        for flavor, room in rooms:
            fitting = room // workload.per_pod if workload.per_pod else 0
            if fitting >= workload.minimum:
                self._admit(workload, flavor, fitting)
                return

    def _preempt(self, workload: Workload, rooms: Sequence[tuple[Flavor, int]]) -> bool:
        """Whether room is being made for it."""
        for flavor, room in rooms:
            lower = [w for w in self.workloads.values() if w.flavor == flavor.name and w.priority < workload.priority]
            victims = []
            for victim in sorted(lower, key=lambda w: (w.priority, -w.since)):
                if room >= workload.parallelism * workload.per_pod:
                    break
                victims.append(victim)
                room += victim.count * victim.per_pod
            if victims and room >= workload.parallelism * workload.per_pod:
                for victim in victims:
                    if not victim.evicted:
                        self._evict(victim)
                return True
        return False

    def _is_late(self, workload: Workload, status: Object) -> bool:
        late = self.pods_ready_s is not None and time.monotonic() - workload.admitted_at > self.pods_ready_s
        return late and not workload.evicted and not status.get("ready") and not status.get("succeeded")

    def _give_up_on_pods(self, workload: Workload) -> None:
        workload.unready += 1
        words = f"Exceeded the PodsReady timeout {self.pods_ready_s:g}s"
        self._evict(workload, "PodsReadyTimeout", words)
        if workload.unready > self.requeuing_limit:
            words = "The workload is deactivated due to exceeding the maximum number of re-queuing retries"
            self._deactivate(workload, words)

    # -- what it writes

    def _deactivate(self, workload: Workload, words: str) -> None:
        workload.active = False
        if workload.flavor and not workload.evicted:
            self._suspend(workload)
            workload.evicted = True
        self.recorded.append(("Deactivated", workload.name, 0))
        self._tell(workload, {"active": False}, "Evicted", "True", "Deactivated", words)

    def _tell(self, workload: Workload, spec: Object, kind: str, status: str, reason: str, words: str) -> None:
        """Writes the Workload, with one condition."""
        if not self.writes_workloads:
            return
        uid = next(uid for uid, each in self.workloads.items() if each is workload)
        name = f"job-{workload.name[:40].rstrip('-')}-{uid[:5]}"
        found = self.api.find(WORKLOADS, name, self.namespace)
        if found is None:
            labels = {PREFIX + "job-uid": uid}
            made = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "spec": {"active": True}}
            found = self.api.create({**made, "metadata": {"name": name, "labels": labels}}, self.namespace)
        kept = [c for c in (found.get("status") or {}).get("conditions") or [] if c["type"] != kind]
        condition = {"type": kind, "status": status, "reason": reason, "message": words}
        change = {"spec": spec, "status": {"conditions": [*kept, condition]}}
        self.api.patch(WORKLOADS, name, change, self.namespace, fieldManager=MANAGER)

    def _admit(self, workload: Workload, flavor: Flavor, count: int) -> None:
        template = {"spec": {"nodeSelector": dict(flavor.node_labels)}} if flavor.node_labels else {}
        self._write(workload, {"suspend": False, "parallelism": count, "template": template})
        workload.flavor, workload.count, workload.admitted_at = flavor.name, count, time.monotonic()
        workload.in_part = workload.in_part or count < workload.parallelism
        self.recorded.append(("Admitted", workload.name, count))

    def _evict(self, workload: Workload, reason: str = "Preempted", words: str = "Preempted to make room") -> None:
        if workload.in_part and workload.evictions and self._is_done_in_part(workload):
            self.recorded.append(("EvictionRefused", workload.name, workload.count))
            return
        self._tell(workload, {}, "Evicted", "True", reason, words)
        self._suspend(workload)
        workload.evicted, workload.evictions = True, workload.evictions + 1
        self.recorded.append(("Evicted", workload.name, workload.count))

    def _is_done_in_part(self, workload: Workload) -> bool:
        status = self.api.get("jobs", workload.name, self.namespace).get("status") or {}
        return bool(status.get("succeeded"))

    def _suspend(self, workload: Workload) -> None:
        self._write(workload, {"suspend": True})

    def _restore(self, workload: Workload) -> None:
        # Without this, the apiserver lets nobody change where the pods may run.
        status = {"status": {"startTime": None}}
        self.api.patch("jobs", workload.name, status, self.namespace, "status", fieldManager=MANAGER)
        selector: Object = {"nodeSelector": None} if not workload.node_selector else {}
        if workload.node_selector:
            found = self.api.get("jobs", workload.name, self.namespace)["spec"]["template"]["spec"]
            now = found.get("nodeSelector") or {}
            selector = {"nodeSelector": {**dict.fromkeys(now), **workload.node_selector}}
        self._write(workload, {"parallelism": workload.parallelism, "template": {"spec": selector}})
        workload.flavor, workload.count, workload.evicted = "", 0, False
        workload.since = time.monotonic() + self.backoff_s * 2 ** (workload.evictions - 1)
        self.recorded.append(("Requeued", workload.name, workload.parallelism))

    def _write(self, workload: Workload, spec: Object) -> None:
        self.api.patch("jobs", workload.name, {"spec": spec}, self.namespace, fieldManager=MANAGER)


WORKLOADS = "kueue.x-k8s.io/v1beta2/workloads"
_ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workloads.kueue.x-k8s.io"},
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        "versions": [
            {
                "name": "v1beta2",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _ANY, "status": _ANY}}},
            }
        ],
    },
}
"""As much of Kueue's Workload as is read."""


def _asked(pod: Mapping[str, Any]) -> int:
    """Of the resource, by one pod. Kueue takes limits for requests where there are none."""
    sidecars = [c for c in pod.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    asked = 0
    for container in (*pod["containers"], *sidecars):
        resources = container.get("resources") or {}
        amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        asked += int(amounts.get(GPU, 0))
    return asked


def _policy(name: str, namespace: str) -> list[Object]:
    """Jobs of this namespace that name a queue are created suspended."""
    version = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["CREATE"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    queued = f"has(object.metadata.labels) && '{QUEUE}' in object.metadata.labels"
    suspend = {"expression": "Object{spec: Object.spec{suspend: true}}"}
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"namespaceSelector": selector, "resourceRules": [rule]},
        "matchConditions": [{"name": "names-a-queue", "expression": queued}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": suspend}],
    }
    binding = {"policyName": name}
    return [
        {"apiVersion": version, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": policy},
        {"apiVersion": version, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": binding},
    ]


@contextmanager
def admitting(api: Api, namespace: str, queues: Mapping[str, Queue], **more: Any) -> Iterator[Admitter]:
    """An admitter for ``namespace``, until the block ends."""
    admitter = Admitter(api, namespace, queues, **more)
    try:
        yield admitter.start()
    finally:
        admitter.stop()
