"""`spec.forkFrom`: a run begins with another run's models, and waits until they are there (docs/forks.md).

The other run is read once, and recorded before anything starts: from then on it may go back, or be deleted.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from selfevo_contract import reasons
from selfevo_contract.artifacts import SCHEMA_VERSION
from selfevo_contract.phases import SOLVER_ROLLOUT, VERIFIER_TRAIN, ModelRef, StepModelRef
from selfevo_contract.plan import Plan, plan_of
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.fork import ForkFrom
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.status import Fork, RunStatus
from selfevo_core.attempts import Blocker, stamp
from selfevo_core.policies.base import Decision, NotFound, RunState
from selfevo_core.skew import FIRST_RECORDED

RESYNC = timedelta(seconds=60)
"""A change of the other run causes a reconcile at once; should the event be lost, one follows so often all the same."""


def forking(state: RunState, now: datetime) -> Decision | None:
    if state.spec.fork_from is None:
        return None
    if state.recorded.fork is not None:
        # The plan is not up to date: the next reconcile's is.
        return None if state.plan.steps else Decision(starts_nothing=True, wake_at=now)
    found = state.beginning
    if isinstance(found, Fork):
        return Decision(starts_nothing=True, fork=found.model_copy(update={"at": stamp(now) or ""}), wake_at=now)
    problem = found or NotFound("spec.forkFrom is not resolved yet")
    if problem.final:
        return Decision(phase="Failed", reason=reasons.FORK_REFUSED, message=problem.message)
    blocker = Blocker(reasons.FORK_PENDING, problem.message, stuck=problem.stuck)
    return Decision(starts_nothing=True, blocker=blocker, wake_at=now + RESYNC)


def beginning_of(run: SelfEvolutionRun, other: SelfEvolutionRun | None) -> Fork | NotFound:
    """What ``run`` begins with, by the record of the run that its forkFrom names."""
    spec, asked = run.spec, run.spec.fork_from
    assert asked is not None
    given = f"spec.forkFrom.run is {asked.run!r}"
    if asked.run == run.metadata.name:
        return NotFound(f"{given}, the run itself; name another one in a new run", final=True)
    if other is None:
        return NotFound(f"{given}, and there is no such run in this namespace; create it, or name another in a new run")
    if why := _unlike(spec, other.spec):
        return NotFound(f"{given}, {why}", final=True)
    fork = Fork(run=asked.run, iteration=asked.iteration)
    if asked.iteration == 0:
        return fork
    if why := _out_of_reach(asked, other.spec):
        return NotFound(f"spec.forkFrom.iteration is {asked.iteration}, and {why}", final=True)
    record = other.status or RunStatus()
    begun = any(step.state == "Succeeded" for step in record.steps)
    if begun and (record.schema_version or FIRST_RECORDED) != SCHEMA_VERSION:
        return NotFound(f"{given}, which another version of selfevo has made; start it anew with this one", final=True)
    planned = plan_of(other.spec, record) if _is_near(asked, other.spec, record) else None
    if planned is None or not planned.steps or not _is_done(planned, record, asked.iteration):
        ended = record.phase in ("Succeeded", "Failed")
        there = f"is not done, and that run has {record.phase}" if ended else "is not done yet"
        remedy = "this run begins when it is, or name an earlier one in a new run"
        return NotFound(f"iteration {asked.iteration} of run {asked.run} {there}; {remedy}", stuck=ended)
    return fork.model_copy(update=_keys(planned, record, asked.iteration))


def _unlike(spec: RunSpec, other: RunSpec) -> str:
    """Why what the other run has made is of no use here: a clause, empty where it is."""
    ours, theirs = spec.storage, other.storage
    if (ours.uri.rstrip("/"), ours.endpoint) != (theirs.uri.rstrip("/"), theirs.endpoint):
        return f"whose spec.storage is {theirs.uri}, not {ours.uri}; start a new run with the same storage"
    known = spec.model.digest is not None and other.model.digest is not None
    same = spec.model.digest == other.model.digest if known else spec.model.uri == other.model.uri
    if not same:
        return f"whose spec.model.uri is {other.model.uri}, another model; start a new run with the same"
    if spec.challenger.grpo.lora != other.challenger.grpo.lora or spec.solver.grpo.lora != other.solver.grpo.lora:
        return "whose roles have another grpo.lora; start a new run with the same"
    return ""


def _out_of_reach(asked: ForkFrom, other: RunSpec) -> str:
    """Why the other run will never have the iteration: a clause, empty where it may."""
    if asked.iteration > other.iterations:
        return (
            f"run {asked.run} has {other.iterations} iterations; name one of them in a new run, or raise its "
            "spec.iterations first"
        )
    begins = other.fork_from
    if begins is not None and asked.iteration < begins.iteration:
        return f"run {asked.run} begins with iteration {begins.iteration} of run {begins.run}; fork that in a new run"
    return ""


def _is_near(asked: ForkFrom, other: RunSpec, record: RunStatus) -> bool:
    """Whether the iteration may be done: a long plan is not made for each change of a run that is not so far."""
    begins = other.fork_from.iteration if other.fork_from else 0
    rollouts = {s.iteration for s in record.steps if s.phase == SOLVER_ROLLOUT.name and s.state == "Succeeded"}
    return asked.iteration == begins or asked.iteration in rollouts


def _is_done(planned: Plan, record: RunStatus, iteration: int) -> bool:
    """Whether all that makes the iteration's models is done; its scores may be missing."""
    done = {(step.name, step.key) for step in record.steps if step.state == "Succeeded"}
    return all((step.name, step.key) in done for step in planned.making(iteration))


def _keys(planned: Plan, record: RunStatus, iteration: int) -> dict[str, str | None]:
    """Those under which the iteration's models lie."""
    begun = record.fork
    own = {step.phase: step.key for step in planned.steps if 0 < step.iteration <= iteration}  # the last of each phase
    first = {step.phase: step.key for step in planned.steps if step.iteration == 0}
    of_fork = begun if begun is not None else Fork(run="", iteration=0)
    return {
        "solver": _key(planned.solvers[iteration]),
        "challenger": _key(planned.challengers[iteration]),
        "verifier": own.get(VERIFIER_TRAIN.name) or of_fork.verifier or first.get(VERIFIER_TRAIN.name),
        "curriculum": own.get(SOLVER_ROLLOUT.name) or of_fork.curriculum,
    }


def _key(ref: ModelRef) -> str | None:
    return ref.key if isinstance(ref, StepModelRef) else None


def fork_line(fork: Fork) -> str:
    """``goes on from iteration 2 of run math``."""
    return f"goes on from iteration {fork.iteration} of run {fork.run}"
