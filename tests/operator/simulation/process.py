"""One operator process: the real cache, queue and controller, fed as the operator's own feeds them.

A reconcile is driven to its end without an event loop: its calls to the API server do not suspend. Instead the world
goes on inside of them, so that events arrive, pods end and people edit between any two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from selfevo_contract.status import StepProgress
from simulation.apiserver import Kind, Object, Refusal, controller_of
from simulation.faults import Crash
from simulation.laws import done_steps, law
from simulation.watch import Stream, selected

if TYPE_CHECKING:
    from simulation.world import World

T = TypeVar("T")
RESYNC_S = 120.0
SETTLE_S = 0.5
CALM_S = 1.0
IMAGE = "registry.example/trainer:default"


class Process:
    """From its start to its crash."""

    def __init__(self, world: World) -> None:
        self._world, system = world, world.system
        self.cache = system.cache.Cache()
        self.queue = system.queue.WorkQueue()
        self.controller = system.controller.Controller(
            Client(world, self),
            self.cache,
            system.pods.PodSettings(image=IMAGE),
            world.agenda.clock,
            beside=_drive,
            hooks=system.controller.MetricsHooks(freed=self._add),
            progress=self._progress,
        )
        self._started = world.agenda.now
        self.listed = False
        self.dead = False
        self._added = False
        """Something was seen during the reconcile."""
        self._newest: dict[str, int] = {}
        self.done: set[tuple[str, str, str]] = set()
        """What it has learnt to be recorded as done, by whatever way."""
        self.streams = {
            "runs": Stream(world, "runs", self._saw_run, self._watch_began),
            "jobs": Stream(world, "jobs", self._saw_job, self._watch_began),
        }
        world.agenda.after(0.3, lambda: self._list("runs", again=True))

    def _progress(self, job: Any) -> StepProgress | None:
        """A process that has just been started has heard nothing; later, pods say something new every half a minute.

        Where writes are counted, without faults, nobody says anything.
        """
        heard = int(self._world.agenda.now // 30)
        says = self._world.faulty and job.ready and heard > self._started // 30
        return StepProgress(done=heard) if says else None

    @property
    def blind(self) -> bool:
        """A watch is broken, or late."""
        return any(stream.blind for stream in self.streams.values())

    def stop(self) -> None:
        self.dead = True
        for stream in self.streams.values():
            stream.closed = True

    # --- what is seen

    def _saw_run(self, how: str | None, run: Object) -> None:
        metadata = run["metadata"]
        key = self._world.system.cache.Key(metadata["namespace"], metadata["name"])
        if how == "DELETED":
            self._add(self.cache.drop_run(key, metadata["uid"]))
        else:
            self._add(self.cache.put_run(run), pressing=False)
            self.done |= done_steps(run)
        known = self.cache.runs.get(key)
        self._knows("runs", how, run, known if known is not None and known.uid == metadata["uid"] else None)

    def _saw_job(self, how: str | None, job: Object) -> None:
        if how == "DELETED":
            self._add(self.cache.drop_job(job))
        elif (change := self.cache.put_job(job)) is not None:
            if change.succeeding:
                self.controller.prefetch_result(change.succeeding)
            if change.pressing:
                self._add(change.key)
            elif self._may_record(change.key):
                self._added = True
                self.queue.add_at(change.key, self._world.agenda.now + CALM_S)
        uid = job["metadata"]["uid"]
        known = next((snapshot for snapshot in self.cache.jobs_of(controller_of(job)) if snapshot.uid == uid), None)
        self._knows("jobs", how, job, known)

    def _knows(self, kind: Kind, how: str | None, obj: Object, known: Any) -> None:
        """What is seen is known from then on, and not unseen by what is older."""
        metadata = obj["metadata"]
        if kind == "jobs" and self._world.jobs.lives[metadata["uid"]].unlabelled:
            return  # what is reported of it is not so
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        newest = self._newest[uid] = max(self._newest.get(uid, 0), 1 << 60 if how == "DELETED" else version)
        law(known is None or known.version >= newest, f"{metadata['name']} is seen as it was before")
        now = self._world.api.kinds[kind].get(metadata["name"])
        exists = now is not None and now["metadata"]["uid"] == uid and controller_of(now) == controller_of(obj)
        ours = kind == "runs" or controller_of(obj)
        law(known is not None or not (exists and ours), f"{metadata['name']} is seen, and nobody knows it")

    def _add(self, key: Any, *, pressing: bool = True) -> None:
        if key is not None:
            self._added = True
            self.queue.add(key, self._world.agenda.now, pressing=pressing)

    def _later(self, key: Any) -> None:
        if not self.dead:
            self._add(key, pressing=False)

    # --- lists: read at one time, taken in at a later one

    def _watch_began(self) -> None:
        """What was deleted before a watch began, only a list can tell; mostly one comes."""
        if not self._world.chance(0.5):
            self.list_soon()

    def list_soon(self) -> None:
        self._world.agenda.after(SETTLE_S, lambda: self._list("runs", again=False))

    def _list(self, kind: Kind, *, again: bool) -> None:
        if self.dead:
            return
        world = self._world
        if world.trouble("list") is not None:
            if not self.listed:
                world.crash("it cannot list")
            elif again:
                world.agenda.after(RESYNC_S, lambda: self._list("runs", again=True))
            return
        objects, version = world.api.snapshot(kind)
        objects = [obj for obj in objects if selected(kind, obj)]
        delay = world.rng.uniform(0.05, 5) if world.faulty else 0.01
        world.agenda.after(delay, lambda: self._take_in(kind, objects, version, again))

    def _take_in(self, kind: Kind, objects: list[Object], version: int, again: bool) -> None:
        if self.dead:
            return
        listing = self.cache.listing_runs(None) if kind == "runs" else self.cache.listing_jobs(None)
        for key in sorted(listing.take(objects, version) | listing.end()):
            self._add(key)
        if kind == "runs":
            for run in objects:
                self.done |= done_steps(run)
            self._list("jobs", again=again)
            return
        self.listed = True
        if again:
            for key in list(self.cache.runs):
                self._add(key, pressing=False)
            self._world.agenda.after(RESYNC_S, lambda: self._list("runs", again=True))

    # --- reconciles

    def due(self) -> float | None:
        """When the next reconcile is due."""
        if not self.listed:
            return None
        return self._world.agenda.now if self.queue.depth else self.queue.next_due()

    def reconcile_next(self) -> None:
        """One reconcile of whatever comes next."""
        world, queue = self._world, self.queue
        key = queue.take(world.agenda.now)
        if key is None:
            return
        world.laws.begin_reconcile(self, key)
        self._added, failed, postponed = False, False, False

        def may_record() -> bool:
            nonlocal postponed
            may = self._may_record(key)
            postponed = not may
            return may

        try:
            again = _drive(self.controller.reconcile_run(key, may_record))
        except world.system.kube.ApiError as error:
            failed = True
            queue.done(key, world.agenda.now, failed=True, delay=error.retry_after)
            world.say(f"reconcile of {key.name} failed: {error}")
        else:
            queue.done(key, world.agenda.now, postponed=postponed)
            if again is not None:
                queue.add_at(key, world.agenda.now + again)
        world.laws.end_reconcile(failed=failed, added=self._added, due=self.due())

    def _may_record(self, key: Any) -> bool:
        """Sometimes no write slot is free, and later one is."""
        world = self._world
        if not world.chance(world.faults.no_write_slot):
            return True
        world.say("no write slot is free")
        world.agenda.after(world.rng.uniform(0.05, 20), lambda: self._later(key))
        return False


def _drive(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a reconcile waited for something that is not a call to the API server")


class Client:
    """`selfevo_operator.api.kube.Api` on the simulated API server, with everything that can go wrong on the way."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    async def get_run(self, namespace: str, name: str) -> Object:
        return self._call("get", f"run {name}", lambda: self._world.api.get("runs", name))

    async def patch_status(self, namespace: str, name: str, patch: list[dict[str, Any]]) -> Object:
        world, uid = self._world, self._world.laws.reconciled

        def do() -> Object:
            before = world.api.get("runs", name)
            try:
                after = world.api.patch_status(name, patch)
            except Refusal:
                world.laws.status_refused()
                raise
            world.laws.status_written(uid, before, after)
            return after

        written = self._call("patch", f"status of {name}", do)
        self._process.done |= done_steps(written)
        return written

    async def get_job(self, namespace: str, name: str) -> Object:
        def do() -> Object:
            job = self._world.api.jobs.get(name)
            if job is None or (job.get("status") or {}).get("conditions"):
                self._world.laws.found_gone(name)
            return self._world.api.get("jobs", name)

        return self._call("get", f"job {name}", do)

    async def create_job(self, namespace: str, job: Mapping[str, Any]) -> Object:
        world, known = self._world, frozenset(self._process.done)  # what comes while it is on its way comes too late

        def do() -> Object:
            if job["metadata"]["name"] not in world.api.jobs:
                world.laws.job_created(job, known)
            queued = "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
            spec = {**job["spec"], "suspend": queued} if queued else job["spec"]
            return world.api.create("jobs", {**job, "spec": spec})

        return self._call("create", f"job {job['metadata']['name']}", do)

    async def delete_job(self, namespace: str, name: str, uid: str, version: int) -> Object:
        world = self._world

        def do() -> Object:
            job = world.api.get("jobs", name)
            if job["metadata"]["uid"] != uid:
                raise Refusal(409, "Conflict", "Precondition failed: UID in precondition differs")
            if job["metadata"]["resourceVersion"] != str(version):
                raise Refusal(409, "Conflict", "Precondition failed: ResourceVersion in precondition differs")
            world.laws.job_deleted(job)
            world.jobs.delete(name, foreground=True)
            left = world.api.jobs.get(name)
            return left or {"kind": "Status", "status": "Success"}

        return self._call("delete", f"job {name}", do)

    async def create_service(self, namespace: str, service: Mapping[str, Any]) -> None:
        name = service["metadata"]["name"]

        def do() -> None:
            if name in self._world.api.services:
                raise Refusal(409, "AlreadyExists", f"service {name} exists")
            self._world.laws.wrote("service")
            self._world.api.services.add(name)

        self._call("create", f"service {name}", do)

    async def list_pods(self, namespace: str, job_uid: str, *, cached: bool = False) -> list[Object]:
        life = self._world.jobs.lives.get(job_uid)

        def do() -> list[Object]:
            pods = life.pods if life is not None and not life.gone else []
            found = [pod.document() for pod in pods if not pod.gone]
            old = cached and self._world.faulty and self._world.chance(0.3)
            return found[: self._world.rng.randint(0, len(found))] if old else found

        return self._call("list", "pods", do)

    async def list_events(self, namespace: str, uid: str) -> list[Object]:
        return self._call("list", "events", list)

    async def list_workloads(self, namespace: str, job_uid: str) -> None:
        return None

    async def create_event(self, namespace: str, event: Mapping[str, Any]) -> None:
        name = event["metadata"]["name"]

        def do() -> None:
            if name in self._world.api.events:
                raise Refusal(409, "AlreadyExists", f"event {name} exists")
            self._world.laws.event_created(event)
            self._world.api.events[name] = dict(event)

        self._call("create", f"event {event['reason']}", do)

    def _call(self, verb: str, what: str, do: Callable[[], T]) -> T:
        world, call = self._world, f"{verb} {what}"
        self._go_on()
        trouble = world.trouble(verb)
        if trouble is not None and trouble.moment == "before":
            world.say(f"{call}: {trouble}")
            if trouble.late is not None:
                world.agenda.after(trouble.late, lambda: world.laws.late(do))
            raise self._error(trouble.error, trouble.retry_after)
        try:
            result = do()
        except Refusal as refusal:
            world.say(f"{call}: {refusal}")
            self._go_on()
            raise self._error(refusal, 0.0) from None
        world.say(f"{call}: done" + (f", then {trouble}" if trouble else ""))
        if trouble is not None:
            raise self._error(trouble.error, trouble.retry_after)
        self._go_on()
        return result

    def _go_on(self) -> None:
        """A call takes time, and the world goes on meanwhile; this process may not see the end of it."""
        self._world.pass_time()
        if self._process.dead:
            raise Crash

    def _error(self, refusal: Refusal | None, retry_after: float) -> BaseException:
        if refusal is None:
            return Crash()
        kube = self._world.system.kube
        return kube.ApiError(refusal.status, refusal.reason, refusal.message, retry_after)  # type: ignore[no-any-return]
