"""One look at a run: what is observed -> what to do next, and what to say about it. Pure (docs/design.md, decision 5).

Level-based: the status is the record of what is done, attempts are evidence that updates it, and nothing is remembered
between two calls. So a repeated call changes nothing, a lost event is caught by the next look, and an attempt that is
gone never means that its step is not done. At worst, a process starts, finds its output committed, and says so.

The same function drives Jobs in a cluster and processes on one machine: it knows neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from selfevo_contract import reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.plan import Plan, Step
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import RunPhase, RunStatus, StepStatus
from selfevo_core.attempt_end import UNKNOWN, Backoff, attempt_history, record_attempt_end, with_
from selfevo_core.attempts import Action, Blocker, ObservedAttempt, Start, Stop, attempt_name, parse_stamp, stamp
from selfevo_core.conditions import conditions
from selfevo_core.skew import as_recorded, held_by, other_version
from selfevo_core.summary import SCORES, best_of, iterations_of, newest_and_best

__all__ = ["Action", "Backoff", "Blocker", "ObservedAttempt", "Outcome", "Start", "Stop", "attempt_name", "reconcile"]


BACKOFF = Backoff()
_SHARED_AGAIN = timedelta(seconds=30)
"""Whoever waits for another run is told when that ends; should that be lost, it looks so often."""


@dataclass(frozen=True)
class Outcome:
    """What to do, what to write, and when to look again although nothing has happened."""

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
) -> Outcome:
    """What to do about ``run``, given its recorded status and the ``attempts`` that exist.

    ``problem`` is what kept the actions of the last look from being carried out; it is said, and changes nothing else.
    ``elsewhere`` has the keys of steps that another run has in work, and who that is: these wait.
    """
    spec, before = run.spec, run.status or RunStatus()
    version = other_version(before, attempts)
    if version is not None:
        plan = as_recorded(plan, before)

    # Collect what is observed. Records are by name and key: a changed step starts afresh, a dropped one is forgotten.
    records = {(record.name, record.key): record for record in before.steps}
    attempts_of: dict[tuple[str, str], list[ObservedAttempt]] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.number):
        attempts_of.setdefault((attempt.step, attempt.key), []).append(attempt)
    # A new generation is a person's answer to a failure: what had failed is tried again.
    spec_changed = before.observed_generation != run.metadata.generation
    steps: dict[str, StepStatus] = {}
    for step in plan.steps:
        of_step = (step.name, step.key)
        record = records.get(of_step) or StepStatus(
            name=step.name, phase=step.phase, iteration=step.iteration, key=step.key
        )
        steps[step.name] = _observe(
            record, attempts_of.get(of_step, []), spec_changed, spec.backoff_limit, backoff, now
        )
    of_before = {
        step.name: known
        for step in plan.unscheduled
        if (known := records.get((step.name, step.key))) is not None and known.state == "Succeeded"
    }
    live = [attempt for attempt in attempts if attempt.live]

    # Decide.
    phase = _phase(steps.values(), live, spec.suspend)
    stops = _stops(phase, steps, live)
    may_start = phase in ("Pending", "Running") and version is None
    starts, wake_at = _starts(run, plan, steps, live, elsewhere, now) if may_start else ([], None)
    if may_start and not live and not starts:
        problem = problem or _awaited(plan, steps, elsewhere)
    if version is not None and not live:
        problem = problem or held_by(version)

    # Say where it stands, once.
    status = _status(run, plan, steps, of_before, attempts, phase, starts, stops, problem, now)
    if version is not None:
        names = {step.name for step in before.steps}
        kept = [step for step in status.steps if step.name in names]
        status = status.model_copy(update={"schema_version": version, "steps": kept})
    ending = {attempt.name for attempt in live if attempt.stopping}
    return Outcome((*[stop for stop in stops if stop.name not in ending], *starts), status, wake_at)


# --- one step ---------------------------------------------------------------------------------------------------------


def _observe(
    status: StepStatus,
    mine: Sequence[ObservedAttempt],
    spec_changed: bool,
    backoff_limit: int,
    backoff: Backoff,
    now: datetime,
) -> StepStatus:
    """The step's record, brought up to date with what its attempts, in their order, show."""
    if status.state == "Failed" and spec_changed:
        status = with_(status, state="Pending", failures=0, finished_at=None, retry_at=None, reason="", message="")
    if status.state in ("Succeeded", "Failed"):
        return status

    for attempt in mine:
        first = status.started_at or stamp(attempt.started_at)
        status = with_(status, attempts=max(status.attempts, attempt.number), started_at=first)
        if not attempt.live and attempt.number > status.ended:
            status = record_attempt_end(status, attempt, backoff_limit, backoff, now)
            if status.state == "Succeeded":
                return status

    current = _current(status, mine)
    if current is not None:  # whatever earlier attempts came to, another one is under way
        state = "Pending" if current.held else "Running"
        return with_(status, state=state, retry_at=None, finished_at=None, reason="", message="")
    return with_(status, state="Pending") if status.state == "Running" else status


def _current(status: StepStatus, attempts: Iterable[ObservedAttempt]) -> ObservedAttempt | None:
    """The live attempt that stands for the step. One that is recorded as ended is a stale sight or a ghost."""
    mine = [c for c in attempts if c.live and (c.step, c.key) == (status.name, status.key) and c.number > status.ended]
    return max(mine, key=lambda attempt: attempt.number, default=None)


# --- the run ----------------------------------------------------------------------------------------------------------


def _phase(steps: Iterable[StepStatus], live: Sequence[ObservedAttempt], suspend: bool) -> RunPhase:
    steps = list(steps)
    if any(step.state == "Failed" for step in steps):
        return "Failed"
    if all(step.state == "Succeeded" for step in steps):
        return "Succeeded"
    if suspend:
        return "Suspended"
    begun = any(step.attempts or step.state == "Succeeded" for step in steps)
    return "Running" if begun or live else "Pending"


def _stops(phase: RunPhase, steps: Mapping[str, StepStatus], live: Sequence[ObservedAttempt]) -> list[Stop]:
    """Attempts that nobody waits for any more. They end at a checkpoint, so that nothing is lost."""
    stops = []
    for attempt in live:
        step = steps.get(attempt.step)
        if phase in ("Failed", "Suspended"):
            reason = reasons.RUN_FAILED if phase == "Failed" else reasons.SUSPENDED
        elif step is None or step.key != attempt.key:
            reason = reasons.NOT_IN_PLAN
        elif step.state in ("Succeeded", "Failed"):
            reason = reasons.STEP_ENDED
        elif _current(step, live) is not attempt:
            reason = reasons.SUPERSEDED
        elif attempt.state == "Pending" and attempt.outdated:  # nothing of it has begun, so nothing is lost
            reason = reasons.OUTDATED
        else:
            continue
        stops.append(Stop(attempt.name, reason))
    return stops


def _starts(
    run: SelfEvolutionRun,
    plan: Plan,
    steps: Mapping[str, StepStatus],
    live: Sequence[ObservedAttempt],
    elsewhere: Mapping[str, str],
    now: datetime,
) -> tuple[list[Start], datetime | None]:
    """Steps whose time has come, in the plan's order, and the end of the shortest wait among the others."""
    # Every live attempt takes a slot, also one that is being stopped: it still holds its memory and its GPUs.
    slots = run.spec.parallel_steps - len(live)
    busy_names = {attempt.step for attempt in live}
    busy_keys = {attempt.key for attempt in live}
    recorded = {(record.name, record.key): record.ended for record in (run.status or RunStatus()).steps}
    starts: list[Start] = []
    waits: list[datetime] = []
    # What had begun comes first: it has a checkpoint, and if a stale list hides its attempt, that one keeps its slot.
    for step in sorted(plan.steps, key=lambda step: steps[step.name].attempts <= steps[step.name].ended):
        status = steps[step.name]
        ready = status.state == "Pending" and _parents_done(step, steps)
        # Two steps with equal inputs have one key: the second one finds what the first one commits.
        if not ready or step.name in busy_names or step.key in busy_keys:
            continue
        retry_at = parse_stamp(status.retry_at)
        if retry_at is not None and retry_at > now:
            waits.append(retry_at)
        elif status.ended > recorded.get((step.name, step.key), 0):
            # The end of the last attempt is written down first. Else, if its attempt goes and the new one is not seen
            # yet, nobody knows of either, and the number of the last one is given again, beside the new one.
            waits.append(now)
            slots -= 1
        elif step.key in elsewhere:
            waits.append(now + _SHARED_AGAIN)
        elif len(starts) < slots:
            # Not the newest seen plus one: when a list is stale and a live attempt is missing from it, the same number
            # gives the same name, and creating what exists does nothing.
            number = status.ended + 1
            starts.append(Start(step, number, attempt_name(run.metadata.name, step, number)))
            busy_keys.add(step.key)
    return starts, min(waits, default=None)


def _awaited(plan: Plan, steps: Mapping[str, StepStatus], elsewhere: Mapping[str, str]) -> Blocker | None:
    """Another run that makes what this one needs next."""
    for step in plan.steps:
        if step.key in elsewhere and steps[step.name].state == "Pending" and _parents_done(step, steps):
            message = (
                f"{step.name} is the same for {elsewhere[step.key]}, which makes it; it is taken over when that ends"
            )
            return Blocker(reasons.WAITS_FOR_RUN, message, stuck=False)
    return None


def _parents_done(step: Step, steps: Mapping[str, StepStatus]) -> bool:
    return all(steps[parent].state == "Succeeded" for parent in step.parents)


# --- the status -------------------------------------------------------------------------------------------------------


def _status(
    run: SelfEvolutionRun,
    plan: Plan,
    steps: Mapping[str, StepStatus],
    of_before: Mapping[str, StepStatus],
    attempts: Sequence[ObservedAttempt],
    phase: RunPhase,
    starts: Sequence[Start],
    stops: Sequence[Stop],
    problem: Blocker | None,
    now: datetime,
) -> RunStatus:
    before, at = run.status or RunStatus(), stamp(now) or ""
    iterations = iterations_of(run, plan, {**steps, **of_before})
    scored = [iteration for iteration in iterations if iteration.score is not None]
    best = best_of(run, plan, steps, iterations)
    shown = newest_and_best(iterations, best)
    ended = phase in ("Succeeded", "Failed")
    blocker = None if ended else problem or _blocker(attempts)
    reason, message = _reason(phase, steps, starts, blocker)
    if ended and problem is not None:  # a Job that cannot be stopped goes on, whatever the run has come to
        message = f"{message}; {problem.message}"
    return RunStatus(
        observed_generation=run.metadata.generation,
        schema_version=SCHEMA_VERSION,
        phase=phase,
        iteration=max((s.iteration for s in steps.values() if s.attempts or s.state == "Succeeded"), default=0),
        score=scored[-1].score if scored else None,
        best=best,
        model_uri=best.model_uri if best else None,
        started_at=before.started_at or at,
        finished_at=(before.finished_at or at) if ended else None,
        iterations=shown,
        steps=_steps_shown(plan, steps, of_before, {iteration.iteration for iteration in shown}),
        attempts=attempt_history(before.attempts, attempts, {stop.name: stop.reason for stop in stops}),
        conditions=conditions(
            before.conditions,
            phase,
            reason,
            message,
            run.metadata.generation,
            at,
            stuck=blocker is not None and blocker.stuck,
        ),
    )


def _blocker(attempts: Sequence[ObservedAttempt]) -> Blocker | None:
    """Why nothing goes on, when nothing does; what needs a person comes first."""
    live = [attempt for attempt in attempts if attempt.live]
    if any(attempt.works for attempt in live):
        return None
    found = [attempt.waiting for attempt in live if attempt.waiting is not None]
    # What starts says more than what ends beside it.
    found.sort(key=lambda blocker: (not blocker.stuck, blocker.reason == reasons.ENDING))
    ending = next((attempt for attempt in live if attempt.stopping), None)
    if not found and ending is not None:
        told = f"{ending.name} is ending: it was told to, and saves"
        return Blocker(reasons.ENDING, told, stuck=False)
    return found[0] if found else None


def _reason(
    phase: RunPhase, steps: Mapping[str, StepStatus], starts: Sequence[Start], blocker: Blocker | None
) -> tuple[str, str]:
    failed = next((step for step in steps.values() if step.state == "Failed"), None)
    if failed is not None:
        named = failed.message if failed.message.startswith(failed.name) else f"{failed.name}: {failed.message}"
        return failed.reason, named
    done = f"{sum(step.state == 'Succeeded' for step in steps.values())} of {len(steps)} steps done"
    if phase == "Succeeded":
        lost = [step.name for step in steps.values() if step.message.startswith(UNKNOWN)]
        return reasons.COMPLETE, f"{done}; what {', '.join(lost)} measured is unknown" if lost else done
    if phase == "Suspended" and (blocker is None or blocker.reason == reasons.ENDING):
        return reasons.SUSPENDED, f"suspended, {done}" + (f", {blocker.message}" if blocker else "")
    if blocker is not None:
        return blocker.reason, f"{done}, {blocker.message}"
    running = [step.name for step in steps.values() if step.state == "Running"]
    if running:
        return reasons.RUNNING, f"{done}, running {', '.join(running)}"
    waiting = next((step for step in steps.values() if step.retry_at), None)
    if waiting is not None and not starts:
        return reasons.BACKING_OFF, f"{done}, {waiting.name} is tried again at {waiting.retry_at}: {waiting.message}"
    return (reasons.STARTING if phase == "Pending" else reasons.RUNNING), done


def _steps_shown(
    plan: Plan, steps: Mapping[str, StepStatus], of_before: Mapping[str, StepStatus], iterations: set[int]
) -> list[StepStatus]:
    """Steps that have begun or may begin. Figures of old iterations are in the store; scores stay, to know the best."""
    found = []
    kept = [step for step in plan.unscheduled if step.name in of_before]
    for step in sorted([*plan.steps, *kept], key=lambda step: step.iteration) if kept else plan.steps:
        status = steps.get(step.name) or of_before[step.name]
        if status.state == "Pending" and not status.attempts and not _parents_done(step, steps):
            continue
        if status.state == "Succeeded" and status.iteration not in iterations:
            scores = {name: value for name, value in status.metrics.items() if name in SCORES}
            status = with_(status, metrics=scores, timings={})
        found.append(status)
    return found
