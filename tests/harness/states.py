"""A run in each of its states (docs/states.md), as the API server would show it: what the real reconcile says of it.

Nothing here is a status written by hand: each story is a sequence of observations, and `reconcile` tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.runs import document
from selfevo_contract.plan import plan
from selfevo_contract.process import PhaseResult
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunStatus
from selfevo_core.attempts import Blocker, ObservedAttempt, attempt_name
from selfevo_core.invalid_spec import invalid_spec_status
from selfevo_core.reconcile import Outcome, reconcile
from selfevo_operator.writes.status_patch import wire

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
UNSEEN = {"observedGeneration": 0}
"""What the CRD has for a run that the operator has not reconciled."""
Object = dict[str, Any]


class Story:
    """One run, and what the operator came to say of it."""

    def __init__(self, **changes: Any) -> None:
        self.changes = {"spec__iterations": 1, **changes}
        self.generation, self.seconds = 1, 0.0
        self.attempts: dict[str, ObservedAttempt] = {}
        self.status: RunStatus | None = None
        self.deleting = False

    @property
    def run(self) -> SelfEvolutionRun:
        made = document(**self.changes, metadata__generation=self.generation, metadata__uid="uid-1")
        return SelfEvolutionRun.model_validate(made).model_copy(update={"status": self.status})

    def shown(self) -> Object:
        """The run as `kubectl get -o json` has it."""
        made = document(**self.changes)
        made["metadata"] |= {"uid": "uid-1", "generation": self.generation, "resourceVersion": "7"}
        if self.deleting:
            made["metadata"]["deletionTimestamp"] = "2026-01-01T13:00:00Z"
        made["status"] = UNSEEN if self.status is None else wire(self.status)
        return made

    # -- what happens

    def edit(self, **changes: Any) -> Story:
        self.changes |= changes
        self.generation += 1
        return self

    def delete(self) -> Story:
        self.deleting = True
        return self

    def attempt(self, step: str, state: str = "Running", number: int = 1, **fields: Any) -> Story:
        of = plan(self.run.spec).by_name[step]
        ended = state in ("Succeeded", "Failed")
        if state == "Succeeded":
            metrics = {"mean": 0.5, "greedy": 0.6} if of.phase == "evaluate" else {}
            fields["result"] = PhaseResult(phase=of.phase, key=of.key, outcome="committed", metrics=metrics)
        name = attempt_name("demo", of, number)
        times = {"started_at": NOW, "finished_at": NOW if ended else None}
        self.attempts[name] = ObservedAttempt(name, step, of.key, number, state, **{**times, **fields})  # type: ignore[arg-type]
        return self

    def reconcile(self, problem: Blocker | None = None) -> Story:
        self.seconds += 60
        outcome = self._outcome(problem)
        self.status = outcome.status
        return self

    def _outcome(self, problem: Blocker | None) -> Outcome:
        run, at = self.run, NOW + timedelta(seconds=self.seconds)
        return reconcile(run, plan(run.spec), list(self.attempts.values()), at, problem=problem)

    def refuse(self, reason: str, message: str) -> Story:
        """As the controller does with a spec that makes no sense."""
        self.status = invalid_spec_status(self.status or RunStatus(), self.generation, reason, message, NOW)
        return self

    def done(self) -> Story:
        """To the end."""
        while self.status is None or self.status.phase != "Succeeded":
            for step in plan(self.run.spec).steps:
                if self.status and any(s.name == step.name and s.state == "Pending" for s in self.status.steps):
                    self.attempt(step.name, "Succeeded")
            self.reconcile()
        return self


@dataclass(frozen=True)
class State:
    """A state, and what it is to whom."""

    story: Callable[[], Story]
    kstatus: str
    argo: str
    finished: str
    """For Flux where dependants wait for the end of the run; InProgress, Failed or Current."""
    taken: str
    """For Flux where a run only has to be taken up."""


def _failed(code: int, reason: str = "") -> Callable[[], Story]:
    return lambda: (
        Story().reconcile().attempt("evaluate-0", "Failed", exit_code=code, reason=reason, message="why").reconcile()
    )


def _hindered(reason: str, *, stuck: bool) -> Callable[[], Story]:
    blocker = Blocker(reason, "why", stuck=stuck)
    return lambda: Story().reconcile().attempt("evaluate-0", "Pending", waiting=blocker).reconcile()


GOES_ON = ("InProgress", "Progressing", "InProgress", "Current")
UNREAD = ("InProgress", "Progressing", "InProgress", "InProgress")
BAD = ("Failed", "Degraded", "Failed", "Failed")
DONE = ("Current", "Healthy", "Current", "Current")
HELD = ("InProgress", "Suspended", "Current", "Current")
LEAVES = ("Terminating", "Progressing", "InProgress", "Current")

STATES: dict[str, State] = {
    "applied, and not seen by the operator": State(Story, *UNREAD),
    "its first Job is being created": State(lambda: Story().reconcile(), *GOES_ON),
    "a step runs": State(lambda: Story().reconcile().attempt("evaluate-0").reconcile(), *GOES_ON),
    "its queue has not admitted it": State(_hindered("Queued", stuck=False), *GOES_ON),
    "its queue has sent it away": State(
        lambda: (
            Story()
            .attempt("evaluate-0")
            .reconcile()
            .attempt("evaluate-0", "Pending", waiting=Blocker("Queued", "why", stuck=False))
            .reconcile()
        ),
        *GOES_ON,
    ),
    "no node has room": State(_hindered("Unschedulable", stuck=False), *GOES_ON),
    "a service failed, it is tried again": State(
        lambda: Story(spec__backoffLimit=3).attempt("evaluate-0", "Failed", exit_code=3, finished_at=NOW).reconcile(),
        *GOES_ON,
    ),
    "its image is not there": State(_hindered("ImagePullBackOff", stuck=True), *BAD),
    "the image is there after all": State(
        lambda: _hindered("ImagePullBackOff", stuck=True)().attempt("evaluate-0").reconcile(), *GOES_ON
    ),
    "the cluster refuses its Job": State(lambda: Story().reconcile(Blocker("CreateRefused", "quota")), *BAD),
    "somebody else has its Job's name": State(lambda: Story().reconcile(Blocker("NameTaken", "delete it")), *BAD),
    "that Job is just going": State(
        lambda: Story().reconcile(Blocker("NameTaken", "trying again", stuck=False)), *GOES_ON
    ),
    "held from the beginning": State(lambda: Story(spec__suspend=True).reconcile(), *HELD),
    "held in the middle, its pods are saving": State(
        lambda: Story().attempt("evaluate-0").reconcile().edit(spec__suspend=True).reconcile(), *HELD
    ),
    "ordered to be held, and not seen": State(
        lambda: Story().attempt("evaluate-0").reconcile().edit(spec__suspend=True), *UNREAD
    ),
    "let go on": State(
        lambda: Story(spec__suspend=True).reconcile().edit(spec__suspend=False).attempt("evaluate-0").reconcile(),
        *GOES_ON,
    ),
    "done": State(lambda: Story().reconcile().done(), *DONE),
    "done, and more iterations asked for": State(lambda: Story().reconcile().done().edit(spec__iterations=2), *UNREAD),
    "done, and going on": State(lambda: Story().reconcile().done().edit(spec__iterations=2).reconcile(), *GOES_ON),
    "its input is wrong": State(_failed(2), *BAD),
    "its data went bad": State(_failed(4), *BAD),
    "it failed too often": State(
        lambda: Story(spec__backoffLimit=0).attempt("evaluate-0", "Failed", exit_code=3).reconcile(), *BAD
    ),
    "its deadline passed": State(_failed(143, "DeadlineExceeded"), *BAD),
    "failed, and corrected": State(lambda: _failed(2)().edit(spec__pods={"image": "other"}), *UNREAD),
    "failed, corrected, and going on": State(
        lambda: (
            _failed(2)().edit(spec__pods={"image": "other"}).reconcile().attempt("evaluate-0", number=2).reconcile()
        ),
        *GOES_ON,
    ),
    "its spec makes no sense": State(lambda: Story().refuse("InvalidSpec", "spec.storage.uri is wrong"), *BAD),
    "being deleted": State(lambda: Story().attempt("evaluate-0").reconcile().delete(), *LEAVES),
}


def kstatus(run: Object) -> str:
    """The rules of kstatus for a kind that it does not know, restated from its documentation.

    A deletion first, then a generation that nobody has observed, then Reconciling and Stalled, whichever is true first
    in the list, then Ready. A kind with none of these is taken for Current at once.
    """
    if run["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = run.get("status") or {}
    if "observedGeneration" in status and status["observedGeneration"] != run["metadata"]["generation"]:
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    ready = next((condition["status"] for condition in conditions if condition["type"] == "Ready"), None)
    return "Current" if ready in ("True", None) else "InProgress"
