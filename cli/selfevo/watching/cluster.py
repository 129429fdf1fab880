"""A run in a cluster: its status by a watch, the logs of its pods now and then, with the user's rights."""

from __future__ import annotations

import time

from selfevo.cluster.client import Cluster, Resource
from selfevo.cluster.connection import connect
from selfevo.cluster.errors import brief
from selfevo.cluster.pods import missing, newest, prefix, state
from selfevo.target import ClusterRun
from selfevo.verbs.approve import approvable, approve_in_cluster
from selfevo.verbs.cluster_show import remark
from selfevo.verbs.cluster_switch import has_no_effect, outcome
from selfevo.verbs.watch import follow
from selfevo.watching import questions
from selfevo.watching.local import newest as newest_attempt
from selfevo.watching.scene import Scene
from selfevo.watching.source import Source
from selfevo.watching.trail import Trail, trail_of
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.status import AttemptStatus

LOG_S = 3.0
"""Between two reads of a log."""
_PODS, _LINES = 8, 2000
"""Of an attempt, that are read; and lines of all of them together."""


class ClusterSource(Source):
    """Each thread has a connection of its own."""

    def __init__(self, target: ClusterRun) -> None:
        self._target = target
        self.resource: Resource | None = None
        """As it was seen last."""
        super().__init__(Scene(target.name))

    def start(self) -> None:
        self.spawn(self._follow, decides=True)
        self.spawn(self._logs)
        self.spawn(self._questions)

    def _follow(self) -> None:
        access = self._target.access
        for resource in follow(connect(access), self._target.name, self._say, lambda: connect(access)):
            self.resource = resource
            spec = resource.run.spec if resource.run else None
            self.update(
                name=resource.full_name,
                status=resource.status,
                plan=resource.plan,
                spec=spec,
                remark=remark(resource, access) if not resource.seen or resource.deleting else "",
            )
            if resource.ended or self.closed.is_set():
                return

    def _say(self, line: str) -> None:
        self.update(note=line)

    def _logs(self) -> None:
        cluster: Cluster | None = None
        while not self.closed.is_set():
            resource = self.resource
            attempt = newest_attempt(resource.status) if resource is not None else None
            if resource is not None and attempt is not None:
                try:
                    cluster = cluster or connect(self._target.access)
                    trail = read(cluster, resource, attempt)
                except SelfevoError as error:
                    trail = Trail(attempt.step, attempt.attempt, why=brief(error))
                if trail != self.scene.trail:
                    self.update(trail=trail)
            self.closed.wait(LOG_S if resource is not None else 0.1)

    def _questions(self) -> None:
        while not self.closed.is_set() and (self.resource is None or self.resource.run is None):
            time.sleep(0.1)
        if self.resource is not None and self.resource.run is not None:
            questions.poll(self, self.resource.run)

    def request(self, verb: str) -> str:
        resource = self._known()
        if verb == "approve":
            if resource.run is None:
                raise InputError("this selfevo does not understand the run's spec; use the one that it is written for")
            number = approvable(resource.run.spec, None, f"run {resource.full_name}")
            return f"let iteration {number} of run {resource.full_name} begin?"
        suspend = verb == "suspend"
        if resource.suspend == suspend or has_no_effect(resource, suspend):
            raise InputError(outcome(resource, suspend, self._target.access))
        return f"{verb} run {resource.full_name}?"

    def do(self, verb: str) -> str:
        if verb == "approve":
            return approve_in_cluster(self._target, None)
        suspend = verb == "suspend"
        cluster = connect(self._target.access)
        before = cluster.run(self._target.name)
        if before.suspend != suspend and not has_no_effect(before, suspend):
            cluster.set_suspend(self._target.name, suspend)
        return outcome(before, suspend, self._target.access)

    def _known(self) -> Resource:
        if self.resource is None:
            raise InputError("nothing is known of the run yet; wait a moment")
        return self.resource


def read(cluster: Cluster, resource: Resource, attempt: AttemptStatus) -> Trail:
    """The last lines of the logs of ``attempt``'s trainers.

    Raises:
        SelfevoError: their logs cannot be read.
    """
    pods = newest(cluster.pods(attempt.name))
    begun = [pod for pod in pods if state(pod) != "Waiting"][:_PODS]
    if not begun:
        return Trail(attempt.step, attempt.attempt, why=missing(attempt, pods))
    lines: list[str] = []
    for pod in begun:
        front = prefix(resource, attempt, pod)
        tail = cluster.log(pod["metadata"]["name"], tail=_LINES // len(begun))
        lines += [line if line.startswith("{") else front + line for line, _ in tail]
    return trail_of(lines, attempt.step, attempt.attempt)
