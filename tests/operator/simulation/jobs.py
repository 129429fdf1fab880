"""The Job controller, a queue that admits Jobs, TTL and garbage collection.

It reads the rendered manifests: completions, the limits, the rules on exit codes. So a Job that says something else
lives another life.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selfevo_contract.phases import PHASES
from simulation.apiserver import Object, controller_of
from simulation.nodes import Pod

if TYPE_CHECKING:
    from simulation.world import World

QUEUE = "kueue.x-k8s.io/queue-name"


@dataclass(eq=False)
class JobLife:
    """What the Job controller knows of a Job."""

    name: str
    uid: str
    owner: str
    step: str
    phase: str
    key: str
    attempt: int
    image: str
    spec: dict[str, Any]
    created_at: float
    pods: list[Pod] = field(default_factory=list)
    failed: int = 0
    own_failures: Counter[int] = field(default_factory=Counter)
    """Pods that failed by themselves: not those that were asked to end, by whomever."""
    failures: Counter[int] = field(default_factory=Counter)
    succeeded: set[int] = field(default_factory=set)
    not_before: dict[int, float] = field(default_factory=dict)
    ending: tuple[str, str, str] | None = None
    """Type, reason and message of the condition that it gets when its pods are gone."""
    ended_at: float | None = None
    gone_at: float | None = None
    """When it ended, was removed or taken away from its run."""
    disowned: tuple[str, float] = ("", 0.0)
    """Who controlled it, and until when."""
    started: str | None = None
    suspended: bool = False
    unlabelled: bool = False
    """It had lost the operator's label once."""
    deleting: bool = False
    gone: bool = False
    due: bool = False

    @property
    def finished(self) -> bool:
        return self.ended_at is not None

    @property
    def live(self) -> bool:
        return not self.finished and not self.gone

    @property
    def completions(self) -> int:
        return int(self.spec["completions"])

    @property
    def per_index(self) -> int | None:
        return self.spec.get("backoffLimitPerIndex")

    @property
    def shards(self) -> int:
        return self.completions if PHASES[self.phase].sharded else 1

    @property
    def nodes(self) -> int:
        return 1 if PHASES[self.phase].sharded else self.completions


class Jobs:
    """The controllers of Jobs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lives: dict[str, JobLife] = {}
        """By UID, of all Jobs that ever were."""
        world.api.listeners.append(self._noticed)

    def of_step(self, owner: str, step: str) -> list[JobLife]:
        """All Jobs that the run has had for the step."""
        lives = [life for life in self.lives.values() if life.step == step]
        return [life for life in lives if owner in (life.owner, life.disowned[0])]

    def _noticed(self, kind: str, how: str, obj: Object) -> None:
        if kind == "jobs" and how == "ADDED":
            self._born(obj)
        elif kind == "runs" and (how == "DELETED" or "deletionTimestamp" in obj["metadata"]):
            self._world.agenda.after(self._lag(), lambda: self._collect(obj["metadata"]["uid"]))

    def _lag(self) -> float:
        world = self._world
        return world.rng.uniform(5, 30) if world.chance(0.15) else world.rng.uniform(0.1, 2)

    def _born(self, job: Object) -> None:
        metadata, spec, world = job["metadata"], job["spec"], self._world
        labels = metadata.get("labels") or {}
        containers = spec["template"]["spec"]["containers"]
        life = JobLife(
            name=metadata["name"],
            uid=metadata["uid"],
            owner=controller_of(job),
            step=labels.get("selfevo.dev/step", ""),
            phase=labels.get("selfevo.dev/phase", ""),
            key=(metadata.get("annotations") or {}).get("selfevo.dev/key", ""),
            attempt=int(labels.get("selfevo.dev/attempt", "0")),
            image=next(c["image"] for c in containers if c["name"] == "trainer"),
            spec=spec,
            created_at=world.agenda.now,
            suspended=bool(spec.get("suspend")),
        )
        self.lives[life.uid] = life
        if life.suspended:
            world.agenda.after(world.rng.uniform(5, 60) if world.chance(0.3) else 1.5, lambda: self.admit(life))
        if life.owner and all(run["metadata"]["uid"] != life.owner for run in world.api.runs.values()):
            world.agenda.after(self._lag(), lambda: self._collect(life.owner))
        self.changed(life)

    # --- the queue

    def admit(self, life: JobLife) -> None:
        self._suspend(life, False)

    def preempt(self, life: JobLife) -> None:
        """Something more important comes first."""
        if life.live and not life.suspended and not life.deleting:
            self._suspend(life, True)
            self._world.agenda.after(self._world.rng.uniform(2, 40), lambda: self.admit(life))

    def _suspend(self, life: JobLife, to: bool) -> None:
        if life.live and not life.deleting:
            life.suspended = to
            spec = {**self._world.api.get("jobs", life.name)["spec"], "suspend": to}
            self._world.api.update("jobs", life.name, spec=spec)
            self.changed(life)

    # --- deletion

    def delete(self, name: str, *, foreground: bool) -> None:
        """In the foreground its pods end first; in the background they end when somebody finds them."""
        world = self._world
        life = self.lives[world.api.get("jobs", name)["metadata"]["uid"]]
        if foreground and any(pod.alive for pod in life.pods):
            life.deleting = True
            if "deletionTimestamp" not in world.api.get("jobs", name)["metadata"]:
                world.api.update("jobs", name, metadata={"deletionTimestamp": world.agenda.stamp()})
            for pod in life.pods:
                world.nodes.kill(pod)
            self.changed(life)
            return
        self._remove(life)
        for pod in life.pods:
            if pod.state == "running":
                world.agenda.after(self._lag(), lambda pod=pod: self._orphan(pod))  # type: ignore[misc]
            elif pod.state == "pending":
                pod.gone = True

    def disown(self, name: str) -> None:
        """The Job goes on, and nobody controls it."""
        life = self.lives[self._world.api.get("jobs", name)["metadata"]["uid"]]
        life.gone_at = life.gone_at or self._world.agenda.now
        life.disowned, life.owner = (life.owner or life.disowned[0], self._world.agenda.now), ""
        self._world.api.update("jobs", name, metadata={"ownerReferences": []})

    def _orphan(self, pod: Pod) -> None:
        """A pod without a Job: it is asked to end, and mostly it does."""
        if pod.alive:
            self._world.nodes.kill(pod)
            if self._world.chance(0.3):
                self._world.nodes.lose(pod)

    def _remove(self, life: JobLife) -> None:
        life.gone, life.gone_at = True, life.gone_at or self._world.agenda.now
        self._world.api.remove("jobs", life.name)

    def _collect(self, owner: str) -> None:
        """The garbage collector: what the owner leaves behind, and the owner itself if it waits for that."""
        world = self._world
        run = next((run for run in world.api.runs.values() if run["metadata"]["uid"] == owner), None)
        if run is not None and "deletionTimestamp" not in run["metadata"]:
            return
        for job in world.api.owned_by(owner):
            if not self.lives[job["metadata"]["uid"]].deleting:
                self.delete(job["metadata"]["name"], foreground=run is not None or world.rng.random() < 0.5)
        if world.api.owned_by(owner):
            world.agenda.after(2, lambda: self._collect(owner))
        elif run is not None:
            world.api.remove("runs", run["metadata"]["name"])

    # --- the Job controller

    def changed(self, life: JobLife) -> None:
        """Reconcile the Job soon."""
        if not life.due and not life.gone:
            life.due = True
            world = self._world
            world.agenda.after(world.rng.uniform(0.5, 5) if world.chance(0.05) else 0.02, lambda: self._sync(life))

    def _sync(self, life: JobLife) -> None:
        life.due = False
        if life.gone or life.finished:
            return
        for pod in life.pods:
            if not pod.counted and (pod.state == "ended" or pod.gone):
                self._count(life, pod)
        self._judge(life)
        alive = [pod for pod in life.pods if pod.alive]
        if life.ending or life.suspended:
            for pod in alive:
                pod.killed_by_job = True
                self._world.nodes.kill(pod)
        elif not life.deleting:
            self._fill(life, alive)
        alive = [pod for pod in life.pods if pod.alive]
        if life.ending and not alive and (not life.deleting or self._world.chance(0.5)):
            self._finish(life)
        self._publish(life, len(alive))
        if life.deleting and not alive:
            self._remove(life)

    def _fill(self, life: JobLife, alive: list[Pod]) -> None:
        world = self._world
        if life.started is None:
            life.started = world.agenda.stamp()
            if (deadline := life.spec.get("activeDeadlineSeconds")) is not None:
                began = life.started
                world.agenda.after(deadline, lambda: self._deadline(life, began))
        busy = {pod.index for pod in alive} | life.succeeded | self._given_up(life)
        for index in (index for index in range(life.completions) if index not in busy):
            wait = life.not_before.get(index, 0.0) - world.agenda.now
            if wait > 0:
                world.agenda.after(wait, lambda: self.changed(life))
                continue
            world.laws.retries(life)
            pod = Pod(f"{life.name}-{index}-{len(life.pods)}", life, index)
            life.pods.append(pod)
            world.nodes.place(pod)

    def _deadline(self, life: JobLife, began: str) -> None:
        if life.live and life.started == began and life.ending is None:
            life.ending = ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            self.changed(life)

    def _count(self, life: JobLife, pod: Pod) -> None:
        pod.counted = True
        if pod.state == "ended" and pod.code == 0:
            life.succeeded.add(pod.index)
            return
        if pod.killed_by_job:
            return
        life.own_failures[pod.index] += not pod.disrupted and pod.code != 143
        rule, number = _rule_for(life.spec["podFailurePolicy"]["rules"], pod)
        if rule == "FailJob":
            what = f"Container trainer for pod default/{pod.name} failed with exit code {pod.code}"
            message = f"{what} matching FailJob rule at index {number}"
            life.ending = life.ending or ("Failed", "PodFailurePolicy", message)
        elif rule == "Count":
            life.failed += 1
            life.failures[pod.index] += 1
            wait = min(360.0, 10.0 * 2 ** (life.failures[pod.index] - 1))
            life.not_before[pod.index] = self._world.agenda.now + wait

    def _given_up(self, life: JobLife) -> set[int]:
        if life.per_index is None:
            return set()
        return {index for index, count in life.failures.items() if count > life.per_index}

    def _judge(self, life: JobLife) -> None:
        if life.ending is not None:
            return
        given_up = self._given_up(life)
        if life.per_index is None and life.failed > life.spec["backoffLimit"]:
            life.ending = ("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif given_up and len(given_up | life.succeeded) == life.completions:
            life.ending = ("Failed", "FailedIndexes", "Job has failed indexes")
        elif len(life.succeeded) == life.completions:
            life.ending = ("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        if life.ending and life.ending[1] in ("BackoffLimitExceeded", "FailedIndexes"):
            self._world.laws.gives_up(life, given_up)

    def _finish(self, life: JobLife) -> None:
        world = self._world
        life.ended_at = life.gone_at = world.agenda.now
        lag = self._lag() if world.faulty else 0.0
        world.agenda.after(life.spec["ttlSecondsAfterFinished"] + lag, lambda: self._expire(life))

    def _expire(self, life: JobLife) -> None:
        if not life.gone:
            self._remove(life)

    def _publish(self, life: JobLife, active: int) -> None:
        world = self._world
        if life.suspended:
            life.started = None
        status: Object = {
            "active": active,
            "ready": sum(pod.state == "running" and pod.alive and not pod.deleting for pod in life.pods),
            "failed": life.failed,
            "succeeded": len(life.succeeded),
        }
        if life.started:
            status["startTime"] = life.started
        if life.finished and life.ending:
            kind, reason, message = life.ending
            at = world.agenda.stamp()
            condition = {"status": "True", "reason": reason, "message": message, "lastTransitionTime": at}
            status["conditions"] = [{"type": kind, **condition}]
            if kind == "Complete":
                status["completionTime"] = at
        world.api.update("jobs", life.name, status=status)


def _rule_for(rules: list[dict[str, Any]], pod: Pod) -> tuple[str, int]:
    """The first rule that fits, as the Job controller reads them."""
    for number, rule in enumerate(rules):
        codes = rule.get("onExitCodes")
        if codes and pod.state == "ended" and codes["containerName"] == "trainer" and pod.code in codes["values"]:
            return rule["action"], number
        if rule.get("onPodConditions") and pod.disrupted:
            return rule["action"], number
    return "Count", -1
