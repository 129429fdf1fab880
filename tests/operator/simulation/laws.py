"""What must never happen. Checked where it would happen: at every write, against what really is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from selfevo_contract.status import Fork, RunStatus, StepStatus
from selfevo_core.attempts import parse_stamp
from selfevo_core.usage import UNSEEN
from simulation.apiserver import Object, Refusal, controller_of

if TYPE_CHECKING:
    from simulation.jobs import JobLife
    from simulation.nodes import Pod
    from simulation.process import Process
    from simulation.world import World

OWN = frozenset(field.alias or name for name, field in RunStatus.model_fields.items())
OWN_CONDITIONS = frozenset({"Ready", "Reconciling", "Stalled", "Suspended", "Complete", "Failed", "GuardTripped"})
STATUS_LIMIT = 256 * 1024
DAWDLING_S = 2.0
WATCH_DELAY_S = 60.0
RECONCILES_IN_TEN_SECONDS = 35


class Broken(AssertionError):
    """A law is broken."""


def law(holds: bool, says: str) -> None:
    if not holds:
        raise Broken(says)


class Laws:
    """Watches over one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.writes: Counter[str] = Counter()
        self.reconciles = 0
        self.wiped: dict[str, float] = {}
        """UID of a run whose status somebody else removed -> when."""
        self._process: Process | None = None
        self._snapshot: Any = None
        self._known: list[Any] = []
        """Jobs of the run as the reconcile found them in the cache."""
        self._beside: list[str] = []
        """Those that live, and those that the reconcile has created."""
        self._elsewhere: set[str] = set()
        """UIDs of Jobs of other runs that live."""
        self._late = False
        self._refused = False
        self._in_reconcile: Counter[str] = Counter()
        self._decade, self._in_decade = 0, 0

    # --- reconciles

    def begin_reconcile(self, process: Process, key: Any) -> None:
        """A reconcile begins: from now on the process acts on what it knows now."""
        self._process, self._snapshot, self._in_reconcile = process, process.cache.runs.get(key), Counter()
        self._known = process.cache.jobs_of(self._snapshot.uid) if self._snapshot is not None else []
        self._beside = [job.name for job in self._known if not job.finished]
        runs = [
            run for run in process.cache.runs.values() if self._snapshot is not None and run.uid != self._snapshot.uid
        ]
        self._elsewhere = {job.uid for run in runs for job in process.cache.jobs_of(run.uid) if not job.finished}
        self._refused = False
        self.reconciles += 1
        if (decade := int(self._world.agenda.now / 10)) != self._decade:
            self._decade, self._in_decade = decade, 0
        self._in_decade += not process.blind  # who does not see what becomes of its work may try in vain
        law(
            self._in_decade <= RECONCILES_IN_TEN_SECONDS * len(self._world.wanted),
            f"hot loop: reconciles of {key} do not cease",
        )

    @property
    def reconciled(self) -> str:
        """UID of the run that the reconcile is about."""
        return self._snapshot.uid if self._snapshot is not None else ""

    def end_reconcile(self, *, failed: bool, added: bool, due: float | None) -> None:
        """A reconcile ends; ``due``: when the queue wants the next one."""
        now = self._world.agenda.now
        law(not failed or due is not None, "a reconcile has failed, and no other is planned")
        law(not added or due is not None, "something happened during a reconcile, and no other is planned")
        if self._refused and not failed:
            law(due is not None and due <= now + 1, "somebody else wrote the status, and no other reconcile is planned")
        # Undisturbed, a step that ends and the next one that starts are three writes: Job, status, Event.
        if not self._world.disturbed:
            law(
                max(self._in_reconcile[what] for what in ("status", "event", "service")) <= 1,
                f"one reconcile: {self._in_reconcile}",
            )
            law(self._in_reconcile["create"] <= self._world.parallel, f"one reconcile: {self._in_reconcile}")
        self._snapshot = None

    def found_gone(self, name: str) -> None:
        """The reconcile has asked for a Job, and learns that it has ended or is not there any more."""
        self._beside = [other for other in self._beside if other != name]

    def status_refused(self) -> None:
        """A write of a status has met another version; one of a process that is gone concerns no other."""
        self._refused = self._refused or not self._late

    def late(self, do: Callable[[], Any]) -> None:
        """A request of a process that is gone arrives: what nobody could know meanwhile is not held against it."""
        self._late = True
        try:
            do()
        except Refusal:
            return
        finally:
            self._late = False

    def wrote(self, what: str) -> None:
        self.writes[what] += 1
        self._in_reconcile[what] += 1
        law(self._world.quiet_since is None, f"{what} is written although nothing has happened since the end")

    # --- Jobs

    def job_created(self, job: Mapping[str, Any], known: Collection[tuple[str, str, str]]) -> None:
        """``known``: what the process had learnt to be recorded as done when it asked for the Job."""
        self.wrote("create")
        world, name = self._world, job["metadata"]["name"]
        owner = controller_of(dict(job))
        step, key = job["metadata"]["labels"]["selfevo.dev/step"], job["metadata"]["annotations"]["selfevo.dev/key"]
        self._nothing_beside(name, owner, step, key)
        if self._late:
            return
        if not self._world.disturbed and name.endswith("-1"):  # another attempt waits
            ends = [life.ended_at for life in self._world.jobs.lives.values() if life.ended_at is not None]
            idle = self._world.agenda.now - max(ends, default=0.0)
            law(idle <= DAWDLING_S, f"{name} is created {idle:.1f} s after the last step's end")
        done = (owner, step, key) in known
        law(not done or owner in self.wiped, f"{name} is created, and {step} is known to be recorded as done")
        run = world.run_with(owner)
        if run is not None:
            planned = world.plan_of(run).by_name
            # Where somebody has just removed the record of a fork or of a way back, the process has not heard of it.
            law(step in planned or self._wiped(owner), f"{name} is created, and {step} is no step of its plan")
            for parent in planned[step].parents if step in planned else ():
                parent_key = planned[parent].key
                law(parent_key in world.store.done, f"{name} is created before {parent} is committed")
        self._as_known(name, owner, step, key, int(job["metadata"]["labels"]["selfevo.dev/attempt"]))

    def _nothing_beside(self, name: str, owner: str, step: str, key: str) -> None:
        """Never two live Jobs for one step, nor two that make the same."""
        for other in self._world.jobs.lives.values():
            same = other.step == step or (other.key == key and key not in self._world.store.done)
            if other.live and other.owner == owner and same:
                # Who neither sees a Job nor has a record of it cannot know of it.
                unknown = self._process is not None and all(
                    snapshot.uid != other.uid for snapshot in self._process.cache.jobs_of(owner)
                )
                law(unknown and self._wiped(owner), f"{name} is created beside {other.name}, which lives")

    def _wiped(self, run_uid: str) -> bool:
        """Somebody has removed the run's status not long ago: what nobody remembers costs a pod's start."""
        return self._world.agenda.now - self.wiped.get(run_uid, -1e9) < 600

    def _as_known(self, name: str, owner: str, step: str, key: str, attempt: int) -> None:
        """The reconcile had no reason not to create it."""
        snapshot = self._snapshot
        law(snapshot is not None, f"{name} is created for a run that is not known")
        law(snapshot.uid == owner, f"{name} is created for {owner}, in a reconcile of {snapshot.uid}")
        law(not snapshot.deleting, f"{name} is created for a run that is being deleted")
        spec, status = snapshot.document()["spec"], snapshot.recorded()
        law(not spec.get("suspend"), f"{name} is created for a suspended run")
        law(not _waits_for_approval(spec, int(step.rsplit("-", 1)[1])), f"{name} is created, and nobody approved it")
        spec_changed = status.get("observedGeneration") != snapshot.generation
        if not spec_changed:
            law(status.get("phase") not in ("Succeeded", "Failed"), f"{name} is created for an ended run")
        assert self._process is not None
        # During the reconcile it may hear that one has ended, or is gone.
        began = {job.name for job in self._known}
        live = {job.name for job in self._process.cache.jobs_of(owner) if not job.finished}
        self._beside = [other for other in self._beside if other in live or other not in began]
        law(len(self._beside) < spec.get("parallelSteps", 1), f"{name} is one too many beside {self._beside}")
        self._beside.append(name)
        for other in self._process.cache.jobs_with(snapshot.key.namespace, key):
            held = other.uid in self._elsewhere and not other.finished
            law(not held, f"{name} is created, and {other.name} of another run makes the same")
        # Numbers and back-off, read off the record.
        record = _steps({"status": status}).get((step, key))
        now, wait = self._world.agenda.clock(), None
        ended = record.ended if record else 0
        law(attempt == ended + 1, f"{name} is created, and the last attempt whose end is recorded is {ended}")
        if record and record.retry_at:
            wait = parse_stamp(record.retry_at)
        law(
            spec_changed or wait is None or now >= wait,
            f"{name} is created at {now}, and {step} is to wait until {wait}",
        )

    def job_deleted(self, job: Object) -> None:
        self.wrote("delete")
        life = self._world.jobs.lives[job["metadata"]["uid"]]
        before, until = life.disowned
        # An owner that has just lost it may not know that yet.
        owner = life.owner or (before if self._world.agenda.now - until < WATCH_DELAY_S else "")
        law(bool(owner), f"{life.name} is deleted, and nobody controls it")
        if not self._late:
            law(owner == self.reconciled, f"{life.name} is deleted, and is controlled by {owner}")

    def trains(self, pod: Pod) -> None:
        """A process begins to work: no other of its run does the same, but for ghosts."""
        life = pod.life
        for other in self._world.jobs.lives.values():
            if other.owner == life.owner and other.key == life.key and not other.gone and life.owner:
                for beside in other.pods:
                    same = (
                        beside is not pod
                        and beside.index == pod.index
                        and beside.state == "running"
                        and not beside.gone
                    )
                    law(not same, f"{pod.name} trains beside {beside.name}")

    def retries(self, life: JobLife) -> None:
        """A Job makes another pod in the place of one that has ended."""
        ended = [pod for pod in life.pods if pod.state == "ended" and not pod.killed_by_job]
        final = [pod.code for pod in ended if pod.code in (2, 4)]
        law(not final, f"{life.name} tries again after exit code {final}, which no retry cures")

    def gives_up(self, life: JobLife, indexes: set[int]) -> None:
        """A Job has tried as often as it may."""
        own, limit = life.own_failures, life.per_index
        enough = all(own[i] > limit for i in indexes) if limit is not None else own.total() > life.spec["backoffLimit"]
        law(enough, f"{life.name} gives up, and its pods failed {dict(own)} times by themselves")

    # --- the status

    def status_written(self, uid: str, before: Object, after: Object) -> None:
        """``uid``: of the run that its writer had reconciled."""
        law(after["metadata"]["uid"] == uid, f"the status of {uid} is written to {after['metadata']['uid']}")
        if before is after:
            return
        self.wrote("status")
        old, new = before.get("status") or {}, after["status"]
        law(_foreign(old) == _foreign(new), f"fields of others changed from {_foreign(old)} to {_foreign(new)}")
        size = len(json.dumps(new))
        law(size <= STATUS_LIMIT, f"the status has {size} bytes")
        status, generation = RunStatus.model_validate(new), after["metadata"]["generation"]
        law(status.observed_generation <= generation, "observedGeneration is ahead of the generation")
        law(len(status.attempts) <= 20, f"{len(status.attempts)} attempts are shown")
        law(len({a.name for a in status.attempts}) == len(status.attempts), "an attempt is shown twice")
        law(all(len(c.message) <= 1024 for c in status.conditions), "a condition's message is too long")
        self._never_back(before, after)
        self._begins(after, status.fork, RunStatus.model_validate(old).fork)
        self._uses(after["metadata"], old, new)
        for step in status.steps:
            self._accounts(after["metadata"]["uid"], step)

    def _begins(self, run: Object, fork: Fork | None, before: Fork | None) -> None:
        """What a run begins with is there when it is found, and stays as it was found."""
        asked = run["spec"].get("forkFrom")
        law(fork is None or asked is not None, "a run that forks none begins with another one's models")
        law(before is None or fork == before, f"what the run begins with was {before}, and is {fork}")
        if fork is not None and before is None:
            law((fork.run, fork.iteration) == (asked["run"], asked["iteration"]), f"{fork} is not what was asked for")
            keys = [key for key in (fork.solver, fork.challenger, fork.curriculum) if key is not None]
            law(bool(keys) and all(key in self._world.store.done for key in keys), f"{fork} is not committed")

    def _uses(self, metadata: Mapping[str, Any], old: Object, new: Object) -> None:
        """What is used never falls, and is no more than there was: of each Job, its life and what is seen late."""
        before, after = RunStatus.model_validate(old).usage, RunStatus.model_validate(new).usage
        if before is not None:
            law(after is not None, "what is used is forgotten")
            assert after is not None
            law(after.counted_at >= before.counted_at, f"counted until {before.counted_at}, then {after.counted_at}")
            for name in ("wall_hours", "gpu_hours", "tokens"):
                was, now = getattr(before, name), getattr(after, name)
                law(now >= was >= 0, f"{name} goes from {was} to {now}")
        if after is None or metadata["uid"] in self.wiped:
            return
        spent = used_at_most(self._world, metadata["uid"])
        hours = sum(of.hours for of in after.phases.values())
        law(3600 * hours <= spent, f"{3600 * hours:.1f} s of work are counted, and there were {spent:.1f} s at most")
        law(after.wall_hours <= hours + 1e-4, f"{after.wall_hours} hours in {hours} of all steps")

    def _never_back(self, before: Object, after: Object) -> None:
        """What is done stays done, and attempts are not counted backwards."""
        old, new = RunStatus.model_validate(before.get("status") or {}), RunStatus.model_validate(after["status"])
        law(old.observed_generation <= new.observed_generation, "observedGeneration goes back")
        if old.observed_generation == new.observed_generation and old.phase in ("Succeeded", "Failed"):
            law(new.phase == old.phase, f"{old.phase} becomes {new.phase}, and nobody changed the spec")
        steps = {(step.name, step.key): step for step in new.steps}
        for step in old.steps:
            now = steps.get((step.name, step.key))
            if any(rollback.iteration <= step.iteration for rollback in new.rollbacks):
                continue
            if step.type is not None and step.type.closes and (_chosen(new) is None or _chosen(old) != _chosen(new)):
                continue  # another model is the best now, or which one it is was lost with a record that somebody wiped
            if step.attempts or step.state == "Succeeded":
                law(now is not None, f"{step.name} is forgotten")
                assert now is not None
                law(now.ended >= step.ended and now.attempts >= step.attempts, f"{step.name} loses attempts")
                law(step.state != "Succeeded" or now.state == "Succeeded", f"{step.name} is not done any more")
        was_done = {(step.name, step.key) for step in old.steps if step.state == "Succeeded"}
        for step in new.steps:
            if step.state == "Succeeded" and not step.metrics and (step.name, step.key) not in was_done:
                tried = step.failures >= after["spec"].get("backoffLimit", 3)
                law(tried, f"{step.name} is done without figures, and might have been asked for them again")
                decides = step.phase == "evaluate" and _chooses(after["spec"])
                law(not decides, f"{step.name} is done without its score, which decides what the run does")

    def _accounts(self, run_uid: str, step: StepStatus) -> None:
        heard = step.progress is not None
        law(not heard or step.state == "Running", f"{step.name} is {step.state} and shows how far it is")
        law(step.ended <= step.attempts, f"{step.name}: {step.ended} of {step.attempts} attempts have ended")
        lives = [life for life in self._world.jobs.of_step(run_uid, step.name) if life.key == step.key]
        if run_uid not in self.wiped:
            made = max((life.attempt for life in lives), default=0)
            law(step.attempts <= made, f"{step.name} has {step.attempts} attempts, and {made} Jobs were made")
        # Each Job counts with what it had tried itself, and once at least: it failed, or its result was lost.
        most = sum(max(1, life.own_failures.total()) for life in lives if life.finished)
        law(step.failures <= most, f"{step.name} has {step.failures} failures, and there were {most} at most")

    # --- events

    def event_created(self, event: Mapping[str, Any]) -> None:
        self.wrote("event")
        law(len(event["message"]) <= 1024, "an Event's message is too long")
        law(len(event["metadata"]["name"]) <= 253, "an Event's name is too long")


def _chooses(spec: Mapping[str, Any]) -> bool:
    """Whether the run goes on with its best Solver when all are scored."""
    return "finetune" in spec or ("publish" in spec and spec["publish"].get("what") != "each")


def _waits_for_approval(spec: Mapping[str, Any], iteration: int) -> bool:
    """Whether a person has yet to approve an iteration up to this one."""
    begun = (spec.get("forkFrom") or {}).get("iteration", 0)  # up to there it is another run's
    review, approved = spec.get("review") or {}, max(spec.get("approvedIteration") or 0, begun)
    asked = [*review.get("before", []), *(range(2, iteration + 1) if review.get("every") else [])]
    return any(approved < number <= iteration for number in asked)


def used_at_most(world: World, uid: str) -> float:
    """Seconds for which the run's Jobs were there, and what one that is gone unseen may count for (UNSEEN)."""
    lives = [life for life in world.jobs.lives.values() if uid in (life.owner, life.disowned[0])]
    unseen = UNSEEN.total_seconds()
    return sum((life.gone_at or world.agenda.now) - life.created_at + unseen for life in lives)


def done_steps(run: Object) -> set[tuple[str, str, str]]:
    """UID, step and key of what is recorded as done."""
    uid = run["metadata"]["uid"]
    return {(uid, name, key) for (name, key), step in _steps(run).items() if step.state == "Succeeded"}


def _steps(run: Mapping[str, Any]) -> dict[tuple[str, str], StepStatus]:
    steps = (run.get("status") or {}).get("steps") or []
    return {(step["name"], step["key"]): StepStatus.model_validate(step) for step in steps}


def _foreign(status: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    fields = {name: value for name, value in status.items() if name not in OWN}
    conditions = [c for c in status.get("conditions") or [] if c["type"] not in OWN_CONDITIONS]
    return fields, conditions


def _chosen(status: RunStatus) -> int | None:
    if status.finetune is not None:
        return status.finetune.iteration
    return status.publish.best if status.publish else None
