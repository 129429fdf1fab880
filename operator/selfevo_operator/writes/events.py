"""What a change of status is worth telling as a Kubernetes Event: at most one a change. Pure.

An Event's name is made from its content, so that creating it twice (a reply was lost, the operator was started anew)
creates it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from selfevo_contract import reasons
from selfevo_contract.run import API_VERSION, KIND, SelfEvolutionRun
from selfevo_contract.status import RunStatus, StepStatus
from selfevo_core.judges import is_promoted, promotion_line, scores_by_chance
from selfevo_core.policies.forking import fork_line
from selfevo_core.policies.guarding import rollback_line
from selfevo_core.usage import newly_low

_LIMIT = 1024


@dataclass(frozen=True)
class Fact:
    """Something that has happened."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    of_run: bool = False
    """The run has ended, is held or goes on."""


def event(run: SelfEvolutionRun, before: RunStatus, after: RunStatus, at: str) -> dict[str, Any] | None:
    """The Event of what is new in ``after``; None when nothing is worth one.

    Args:
        at: RFC 3339 time.
    """
    low = newly_low(run.spec.budget, before.usage, after.usage)
    facts = [*_facts(before, after), *(Fact(reasons.BUDGET_LOW, warning, "Warning") for warning in low)]
    if not facts:
        return None
    # What the run does says more than what its steps do, unless something needs a person.
    loudest = max(facts, key=lambda fact: 2 if fact.type == "Warning" else fact.of_run)
    message = "; ".join(fact.message for fact in facts)
    # An Event belongs to this state of affairs: generation, and how many attempts there had been of each step.
    tries = sum(step.attempts + step.failures for step in after.steps)
    mark = hashlib.sha256(f"{run.metadata.uid} {run.metadata.generation} {tries} {message}".encode()).hexdigest()[:16]
    moment = at.split(".")[0].rstrip("Z") + "Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{run.metadata.name}.{mark}", "namespace": run.metadata.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": run.metadata.name,
            "namespace": run.metadata.namespace,
            "uid": run.metadata.uid,
        },
        "type": loudest.type,
        "reason": loudest.reason,
        "message": message if len(message) <= _LIMIT else message[: _LIMIT - 1] + "…",
        "source": {"component": "selfevo-operator"},
        "reportingComponent": "selfevo-operator",
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _facts(before: RunStatus, after: RunStatus) -> Iterator[Fact]:
    old = {(step.name, step.key): step for step in before.steps}
    for step in after.steps:
        known = old.get((step.name, step.key)) or StepStatus(
            name=step.name, phase=step.phase, iteration=step.iteration, key=step.key
        )
        yield from _of_step(known, step)
    if after.fork is not None and before.fork is None:
        yield Fact(reasons.FORKED, f"run {fork_line(after.fork)}")
    yield from _of_guards(before, after)
    main = next(c for c in after.conditions if c.type == "Ready")
    if before.phase != after.phase and after.phase in ("Succeeded", "Failed", "Suspended"):
        spent = main.reason == reasons.BUDGET_EXCEEDED
        kind: Literal["Normal", "Warning"] = "Warning" if after.phase == "Failed" or spent else "Normal"
        named = spent or main.reason == reasons.AWAITING_REVIEW
        yield Fact(main.reason if named else after.phase, f"run {after.phase}: {main.message}", kind, of_run=True)
    elif before.phase == "Suspended" and after.phase in ("Pending", "Running"):
        yield Fact("Resumed", "run resumed", of_run=True)
    stuck = {c.type: c for c in after.conditions}.get("Stalled")
    was = {c.type: c for c in before.conditions}.get("Stalled")
    if stuck and stuck.status == "True" and after.phase != "Failed" and (was is None or was.reason != stuck.reason):
        yield Fact(stuck.reason, stuck.message, "Warning")


def _of_guards(before: RunStatus, after: RunStatus) -> Iterator[Fact]:
    for rollback in after.rollbacks[len(before.rollbacks) :]:
        yield Fact(reasons.ROLLED_BACK, rollback_line(rollback), "Warning")
    old = {guard.name: guard.state for guard in before.guards}
    for guard in after.guards:
        known = old.get(guard.name)
        if guard.state in ("Warned", "Tripped") and known != guard.state:
            reason = reasons.GUARD_TRIPPED if guard.state == "Tripped" else reasons.GUARD_WARNED
            yield Fact(reason, f"guard {guard.name}: {guard.message}", "Warning")
        elif guard.state == "Passing" and known in ("Warned", "Tripped"):
            yield Fact(reasons.GUARDS_PASSING, f"guard {guard.name} passes again: {guard.message}")


def _of_step(before: StepStatus, after: StepStatus) -> Iterator[Fact]:
    if after.state == "Succeeded" and before.state != "Succeeded":
        how = "was in the store already" if after.reused else "is done"
        promoted = is_promoted(after)
        if scores_by_chance(after):
            yield Fact(reasons.VERIFIER_PROMOTED, f"{after.name} {how}, {promotion_line(after)}", "Warning")
        elif promoted is None or after.iteration == 0:
            yield Fact("StepSucceeded", f"{after.name} {how}")
        elif promoted:
            yield Fact(reasons.VERIFIER_PROMOTED, f"{after.name} {how}, {promotion_line(after)}")
        else:
            yield Fact(reasons.VERIFIER_NOT_PROMOTED, f"{after.name} {how}, {promotion_line(after)}", "Warning")
    elif after.state == "Failed" and before.state != "Failed":
        yield Fact("StepFailed", f"{after.name} failed: {after.message}", "Warning")
    elif after.failures > before.failures:
        yield Fact("AttemptFailed", f"{after.name}, attempt {after.ended}: {after.message}", "Warning")
    elif after.attempts > before.attempts:
        again = f", attempt {after.attempts}" if after.attempts > 1 else ""
        yield Fact("StepStarted", f"{after.name} started{again}")
