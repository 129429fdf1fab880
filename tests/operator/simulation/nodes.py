"""Kubelets, the trainers in their pods, and the object store that these commit to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selfevo_contract.process import PhaseResult

if TYPE_CHECKING:
    from simulation.jobs import JobLife
    from simulation.world import World

GRACE_S = 30.0
MISSING_IMAGE = "registry.example/trainer:missing"


@dataclass(eq=False)
class Pod:
    """One pod, and the process in it. The process may live on when the pod is gone: then it is a ghost."""

    name: str
    life: JobLife
    index: int
    state: str = "pending"
    waiting: str = ""
    deleting: bool = False
    gone: bool = False
    """The object is removed; the process may not know yet."""
    counted: bool = False
    killed_by_job: bool = False
    """Its Job did not want it any more: its end is nobody's failure."""
    code: int | None = None
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    ended_at: str = ""
    began_at: str = ""
    worked: list[float] = field(default_factory=list)
    """When its process began and ended."""

    @property
    def alive(self) -> bool:
        return not self.gone and self.state != "ended"

    def document(self) -> dict[str, Any]:
        """As the API server shows it."""
        container: dict[str, Any] = {"name": "trainer", "state": {}}
        status: dict[str, Any] = {"phase": "Pending", "conditions": [], "containerStatuses": [container]}
        if self.state == "ended":
            status["phase"] = "Failed" if self.code else "Succeeded"
            terminated = {"exitCode": self.code, "finishedAt": self.ended_at, "reason": self.reason}
            terminated |= {"startedAt": self.began_at} if self.began_at else {}
            container["state"] = {"terminated": {**terminated, "message": self.message}}
        elif self.state == "running":
            status["phase"] = "Running"
            container["state"] = {"running": {}}
        elif self.waiting == "Unschedulable":
            status["conditions"].append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"})
            status["containerStatuses"] = []
        elif self.waiting:
            container["state"] = {"waiting": {"reason": self.waiting}}
        if self.disrupted:
            status["conditions"].append(
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            )
        return {"metadata": {"name": self.name}, "status": status}


@dataclass
class Store:
    """What is committed. A commit is conditional: the first one wins."""

    done: dict[str, dict[str, float]] = field(default_factory=dict)
    """Key -> metrics."""
    shards: dict[str, set[int]] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)

    def commit(self, key: str) -> bool:
        """Whether it was this commit that counted."""
        if key in self.done:
            return False
        # A figure that hangs on the key alone, so that any iteration may be the best.
        figure = int(key[:6], 16) / 16**6
        self.done[key] = {"mean": figure, "greedy": 1 - figure}
        self.trained.append(key)
        return True

    def commit_shard(self, key: str, index: int, of: int) -> str:
        """The outcome for the process that made the shard: whoever sees all of them commits the step."""
        there = self.shards.setdefault(key, set())
        there.add(index)
        if key in self.done:
            return "found"
        if len(there) < of:
            return "shard"
        return "committed" if self.commit(key) else "found"


class Nodes:
    """All kubelets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.missing = {MISSING_IMAGE}

    def place(self, pod: Pod) -> None:
        """A new pod waits for a node."""
        world = self._world
        if world.chance(0.04):
            pod.waiting = "Unschedulable"
            world.agenda.after(world.rng.uniform(5, 90), lambda: self._start(pod))
        else:
            world.agenda.after(world.rng.uniform(0.3, 1.5), lambda: self._start(pod))

    def _start(self, pod: Pod) -> None:
        world = self._world
        if not pod.alive or pod.deleting:
            return
        if pod.life.image in self.missing or world.chance(0.03):
            pod.waiting = world.rng.choice(("ErrImagePull", "ImagePullBackOff"))
            world.agenda.after(10, lambda: self._start(pod))
            return
        pod.state, pod.waiting = "running", ""
        pod.began_at = world.agenda.stamp()
        pod.worked.append(world.agenda.now)
        world.jobs.changed(pod.life)
        self._train(pod)

    def end(self, pod: Pod, code: int, message: str = "", reason: str = "") -> None:
        """The process in the pod ends."""
        if pod.state == "ended":
            return
        world = self._world
        pod.state, pod.code, pod.message = "ended", code, message
        pod.reason = reason or ("Error" if code else "Completed")
        pod.ended_at = world.agenda.stamp()
        pod.worked[1:] = [world.agenda.now] if pod.worked else []
        if pod.deleting:
            pod.gone = True
        world.jobs.changed(pod.life)
        if code and pod.life.nodes > 1:  # the others notice, save and leave
            for other in pod.life.pods:
                if other.state == "running":
                    world.agenda.after(1, lambda other=other: self.end(other, 143, _failed(other, 143)))  # type: ignore[misc]

    def kill(self, pod: Pod) -> None:
        """The pod is deleted: SIGTERM, and SIGKILL when that does not help."""
        if not pod.alive or pod.deleting:
            return
        world = self._world
        pod.deleting = True
        if pod.state == "pending":
            pod.gone = True
            world.jobs.changed(pod.life)
        elif world.chance(0.1):  # it hangs
            world.agenda.after(GRACE_S, lambda: self.end(pod, 137))
        else:
            world.agenda.after(world.rng.uniform(0.2, 3), lambda: self.end(pod, 143, _failed(pod, 143)))

    def lose(self, pod: Pod) -> None:
        """The pod's object is removed, and its process goes on for a while: the node was cut off."""
        pod.gone = True
        self._world.jobs.changed(pod.life)

    # --- the trainer

    def _train(self, pod: Pod) -> None:
        world, life = self._world, pod.life
        poison = world.shape.poison.get(life.step)
        if poison == "slow":
            return
        if life.key in world.store.done:
            world.agenda.after(world.rng.uniform(0.3, 1), lambda: self._finish(pod))
            return
        world.laws.trains(pod)
        seconds = world.rng.uniform(2, 30)
        if poison is not None:
            world.agenda.after(seconds, lambda: self.end(pod, int(poison), _failed(pod, int(poison))))
            return
        world.agenda.after(seconds, lambda: self._finish(pod))
        if world.chance(0.2):
            world.agenda.after(seconds * world.rng.random(), lambda: self._accident(pod))

    def _accident(self, pod: Pod) -> None:
        world = self._world
        if pod.state != "running" or pod.gone or not world.faulty:
            return
        kind = world.rng.choices(
            ("crash", "service", "killed", "oom", "term", "evicted", "lost", "input", "data"),
            (4, 4, 3, 2, 2, 6, 3, 0.7, 0.7),
        )[0]
        if kind == "lost":
            self.lose(pod)
        elif kind == "evicted":
            pod.disrupted = True
            self.end(pod, world.rng.choice((143, 137)), "")
        elif kind == "oom":
            self.end(pod, 137, "", "OOMKilled")
        else:
            code = {"crash": 1, "service": 3, "killed": 137, "term": 143, "input": 2, "data": 4}[kind]
            reports = code in (2, 3, 4, 143) and not world.chance(0.3)
            self.end(pod, code, _failed(pod, code) if reports else "Traceback\nValueError: boom" if code == 1 else "")

    def _finish(self, pod: Pod) -> None:
        """The work is done; a ghost commits too."""
        world, life = self._world, pod.life
        if pod.state != "running":
            return
        if life.shards > 1 and life.key not in world.store.done:
            outcome = world.store.commit_shard(life.key, pod.index, life.shards)
        elif life.nodes > 1 and pod.index > 0 and life.key not in world.store.done:
            world.agenda.after(0.5, lambda: self._finish(pod))  # the first one commits
            return
        else:
            outcome = "committed" if world.store.commit(life.key) else "found"
        if pod.gone:
            pod.state = "ended"
            return
        if world.chance(0.05):
            self.end(pod, 137)  # killed right after its commit
            return
        metrics = {**world.store.done.get(life.key, {}), **world.shape.figures.get(life.step, {})}
        result = PhaseResult(phase=life.phase, key=life.key, outcome=outcome, metrics=metrics)  # type: ignore[arg-type]
        lost = world.chance(world.faults.lost_results)
        self.end(pod, 0, "" if lost else result.message_bytes().decode())


def _failed(pod: Pod, code: int) -> str:
    reason = {2: "InvalidInput", 3: "ServiceFailed", 4: "BadData", 143: "Terminated"}.get(code, "Crashed")
    outcome = "terminated" if code == 143 else "failed"
    result = {"phase": pod.life.phase, "key": pod.life.key, "outcome": outcome, "exitCode": code}
    return json.dumps({**result, "reason": reason, "message": f"{pod.life.step} says {reason}"})
