"""One reconcile of a run: what is observed -> what to do next, and the new status. Pure (docs/design.md, decision 5).

Level-based: the status is the record of what is done, attempts are evidence that updates it, and nothing is remembered
between two calls. So a repeated call changes nothing, the next one makes a lost event good, and an attempt that is gone
never means that its step is not done. At worst, a process starts, finds its output committed, and reports that.

The same function drives Jobs in a cluster and processes on one machine: it knows neither. What moves a step from state
to state is `transitions`; what holds a run or ends it is `policies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from selfevo_contract import reasons
from selfevo_contract.plan import Plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import Fork, RunPhase, RunStatus, StepStatus
from selfevo_core.attempts import Action, Blocker, ObservedAttempt, Start, Stop, attempt_name
from selfevo_core.observe import current_of, observe
from selfevo_core.policies import POLICIES, Hold, NotFound, Policy, RunState, combined
from selfevo_core.policies.choosing import chooses
from selfevo_core.policies.guarding import verdicts
from selfevo_core.policies.retry import Backoff
from selfevo_core.run_status import status_of
from selfevo_core.skew import as_recorded, other_version
from selfevo_core.usage import usage_of

__all__ = ["Action", "Backoff", "Blocker", "ObservedAttempt", "Outcome", "Start", "Stop", "attempt_name", "reconcile"]


BACKOFF = Backoff()


@dataclass(frozen=True)
class Outcome:
    """What to do, what to write, and when to reconcile again although nothing has happened."""

    actions: tuple[Action, ...]
    status: RunStatus
    wake_at: datetime | None


def reconcile(
    run: SelfEvolutionRun,
    plan: Plan,
    attempts: Sequence[ObservedAttempt],
    now: datetime,
    backoff: Backoff = BACKOFF,
    problem: Blocker | None = None,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
    policies: Sequence[Policy] = POLICIES,
    beginning: Fork | NotFound | None = None,
) -> Outcome:
    """What to do about ``run``, given its recorded status and the ``attempts`` that exist.

    ``problem`` is what kept the last reconcile's actions from being carried out; the status shows it, no more.
    ``elsewhere`` has the keys of steps that another run has in work, and who that is: these wait. ``beginning`` is what
    is known now of the run that this one goes on from, as long as its record does not say that.
    """
    state = replace(_observed(run, plan, attempts, backoff, elsewhere, now), beginning=beginning)
    live = state.live

    # Decide.
    decision = combined(policies, state, now)
    phase = decision.phase or _phase(state)
    stops = _stops(phase, state.steps, live)
    may_start = not decision.starts_nothing
    starts, wake_at = _starts(run.metadata.name, state, decision.holds) if may_start else ([], None)
    wakes = [moment for moment in (wake_at, decision.wake_at) if moment is not None]
    if not live and not starts:
        problem = problem or decision.blocker

    # Say where it stands, once.
    status = status_of(run, state, phase, decision, starts, stops, problem, now)
    ending = {attempt.name for attempt in live if attempt.stopping}
    return Outcome((*[stop for stop in stops if stop.name not in ending], *starts), status, min(wakes, default=None))


def _observed(
    run: SelfEvolutionRun,
    plan: Plan,
    attempts: Sequence[ObservedAttempt],
    backoff: Backoff,
    elsewhere: Mapping[str, str],
    now: datetime,
) -> RunState:
    """Where the run stands. Records are by name and key: a changed step starts afresh, a dropped one is forgotten."""
    spec, before = run.spec, run.status or RunStatus()
    version = other_version(before, attempts)
    if version is not None:
        plan = as_recorded(plan, before)
    records = {(record.name, record.key): record for record in before.steps}
    attempts_of: dict[tuple[str, str], list[ObservedAttempt]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        attempts_of.setdefault((attempt.step, attempt.key), []).append(attempt)
    # A new generation is a person's answer to a failure: what had failed is tried again.
    spec_changed = before.observed_generation != run.metadata.generation
    scores_decide = chooses(spec)
    steps: dict[str, StepStatus] = {}
    for step in plan.steps:
        of_step = (step.name, step.key)
        record = records.get(of_step) or StepStatus(
            name=step.name, phase=step.phase, iteration=step.iteration, key=step.key
        )
        mine = attempts_of.get(of_step, [])
        decides = scores_decide and step.type.scores
        steps[step.name] = observe(record, mine, spec_changed, spec.backoff_limit, backoff, now, score_decides=decides)
    earlier = {
        step.name: known
        for step in plan.unscheduled
        if (known := records.get((step.name, step.key))) is not None and known.state == "Succeeded"
    }
    usage = usage_of(before, attempts, spec.budget, now)
    state = RunState(spec, plan, before, steps, attempts, earlier, elsewhere, version, usage)
    return replace(state, guards=verdicts(state))


def _phase(state: RunState) -> RunPhase:
    """Where no policy says otherwise."""
    if state.complete:
        return "Succeeded"
    begun = any(step.attempts or step.state == "Succeeded" for step in state.steps.values())
    return "Running" if begun or state.live else "Pending"


_STOPPED_BY = {"Failed": reasons.RUN_FAILED, "Suspended": reasons.SUSPENDED, "Succeeded": reasons.RUN_ENDED}


def _stops(phase: RunPhase, steps: Mapping[str, StepStatus], live: Sequence[ObservedAttempt]) -> list[Stop]:
    """Attempts that nobody waits for any more. They end at a checkpoint, so that nothing is lost."""
    stops = []
    for attempt in live:
        step = steps.get(attempt.step)
        if phase in _STOPPED_BY:
            reason = _STOPPED_BY[phase]
        elif step is None or step.key != attempt.key:
            reason = reasons.NOT_IN_PLAN
        elif step.state in ("Succeeded", "Failed"):
            reason = reasons.STEP_ENDED
        elif current_of(step, live) is not attempt:
            reason = reasons.SUPERSEDED
        elif attempt.state == "Pending" and attempt.outdated:  # nothing of it has begun, so nothing is lost
            reason = reasons.OUTDATED
        else:
            continue
        stops.append(Stop(attempt.name, reason))
    return stops


def _starts(run: str, state: RunState, holds: Mapping[str, Hold]) -> tuple[list[Start], datetime | None]:
    """Steps whose time has come, in the plan's order, and the end of the shortest wait among the others."""
    live, steps = state.live, state.steps
    # Every live attempt takes a slot, also one that is being stopped: it still holds its memory and its GPUs.
    slots = state.spec.parallel_steps - len(live)
    busy_names = {attempt.step for attempt in live}
    busy_keys = {attempt.key for attempt in live}
    starts: list[Start] = []
    waits: list[datetime] = []
    # What had begun comes first: it has a checkpoint, and if a stale list hides its attempt, that one keeps its slot.
    for step in sorted(state.ready, key=lambda step: steps[step.name].attempts <= steps[step.name].ended):
        # Two steps with equal inputs have one key: the second one finds what the first one commits.
        if step.name in busy_names or step.key in busy_keys:
            continue
        hold = holds.get(step.name)
        if hold is not None:
            waits += [hold.until] if hold.until is not None else []
            slots -= hold.keeps_slot
        elif len(starts) < slots:
            # Not the newest seen plus one: when a list is stale and a live attempt is missing from it, the same number
            # gives the same name, and creating what exists does nothing.
            number = steps[step.name].ended + 1
            starts.append(Start(step, number, attempt_name(run, step, number)))
            busy_keys.add(step.key)
    return starts, min(waits, default=None)
