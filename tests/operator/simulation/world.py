"""One of each, and one seed: phase A with faults, phase B without."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from selfevo_contract import reasons
from selfevo_contract.plan import Plan, plan
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.status import Fork, Rollback, RunStatus
from simulation.agenda import Agenda
from simulation.apiserver import MANAGED_BY, ApiServer, Object
from simulation.faults import Crash, Faults, Trouble
from simulation.jobs import Jobs
from simulation.laws import Laws, law
from simulation.nodes import Nodes, Store
from simulation.people import IMAGES, People
from simulation.process import Process
from simulation.shapes import (
    FINETUNE_SEEDS,
    FINETUNED,
    FIRST,
    FORK_SEEDS,
    FORKS,
    GUARD_SEEDS,
    GUARDED,
    SECOND,
    SHAPES,
    Shape,
)
from simulation.system import System, unchanged

FAULTY_S = (150.0, 800.0)
PATIENCE_S = 4 * 3600.0
RECONCILES_TO_THE_END = 400
ANSWERS = 2
HELD_S = 400.0
AFTERWARDS_S = 1500.0
TRACE = 400


@dataclass(frozen=True)
class Report:
    """What one seed showed."""

    seed: int
    shape: str
    reconciles: int
    reconciles_to_the_end: int
    crashes: int
    writes: Mapping[str, int]
    jobs: int
    ends: Mapping[str, Any] = field(repr=False)
    """Run -> its end state."""


class World:
    def __init__(self, seed: int, shape: Shape, system: System, *, faulty: bool) -> None:
        self.seed, self.shape, self.system, self.faulty = seed, shape, system, faulty
        self.disturbed = faulty
        self.parallel = shape.spec().get("parallelSteps", 1)
        self.rng = random.Random(f"{seed} {shape.name}")
        self.agenda = Agenda()
        self.api = ApiServer(self.agenda)
        self.store = Store()
        self.nodes = Nodes(self)
        self.jobs = Jobs(self)
        self.faults = Faults(self.rng)
        self.people = People(self)
        self.laws = Laws(self)
        self.process: Process | None = None
        self.crashes = 0
        self.pause = self.rng.choice((8.0, 20.0, 40.0))
        self.quiet_since: float | None = None
        self.originals: dict[str, Object] = {}
        """UID of a Job -> how it was created."""
        self.wanted = shape.runs
        self._plans: dict[str, Plan] = {}
        self._trace: deque[str] = deque(maxlen=TRACE)
        self.api.listeners.append(self._noticed)

    # --- what its parts ask for

    def chance(self, probability: float) -> bool:
        return self.faulty and self.rng.random() < probability

    def say(self, what: str) -> None:
        self._trace.append(f"{self.agenda.now:9.2f} {what}")

    def trouble(self, verb: str) -> Trouble | None:
        return self.faults.draw(verb, self.agenda.now) if self.faulty else None

    def pass_time(self) -> None:
        """The time of half a call."""
        seconds = 0.002
        if self.faulty:
            seconds = self.rng.uniform(0.5, 8) if self.rng.random() < 0.02 else self.rng.uniform(0.001, 0.05)
        self.agenda.run_until(self.agenda.now + seconds)

    def spec(self, name: str = FIRST) -> dict[str, Any]:
        """What a person applies: less at first, in the end what they want."""
        if not self.faulty:
            return self.shape.spec(name)
        iterations = self.shape.first_iterations(name)
        return self.shape.spec(name, spec__iterations=iterations, spec__pods={"image": self.rng.choice(IMAGES)})

    def run_with(self, uid: str) -> Object | None:
        return next((run for run in self.api.runs.values() if run["metadata"]["uid"] == uid), None)

    def plan_of(self, run: Object) -> Plan:
        """The plan as it must be, whatever the code under test makes of it."""
        status = run.get("status") or {}
        back, begun = [rollback["iteration"] for rollback in status.get("rollbacks") or []], status.get("fork")
        chosen = (status.get("finetune") or {}).get("iteration", (status.get("publish") or {}).get("best"))
        mark = f"{run['metadata']['uid']} {run['metadata']['generation']} {back} {begun} {chosen}"
        if mark not in self._plans:
            kind = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun"}
            name = {"name": run["metadata"]["name"], "namespace": "default"}
            rollbacks = [Rollback(iteration=iteration, guard="") for iteration in back]
            wanted = SelfEvolutionRun.model_validate({**kind, "metadata": name, "spec": run["spec"]}).spec
            self._plans[mark] = plan(wanted, rollbacks, Fork.model_validate(begun) if begun else None, chosen)
        return self._plans[mark]

    def _noticed(self, kind: str, how: str, obj: Object) -> None:
        if kind == "jobs" and how == "ADDED":
            self.originals[obj["metadata"]["uid"]] = obj
        if self.process is not None:
            self.process.streams[kind].notice(how, obj)

    # --- the operator's life

    def start(self) -> None:
        self.process = Process(self)

    def crash(self, why: str) -> None:
        """The operator is gone, and somebody starts it again after a while."""
        if self.process is None:
            return
        self.process.stop()
        self.process = None
        self.crashes += 1
        down = 1.0
        if self.faulty:
            down = self.rng.uniform(30, 400) if self.rng.random() < 0.1 else self.rng.uniform(0.2, 5)
        self.say(f"the operator is down for {down:.0f} s: {why}")
        self.agenda.after(down, self.start)

    def go(self, end: float) -> None:
        """Let it run until ``end``."""
        while self.agenda.now < end:
            if not self.step(end):
                return

    def step(self, end: float) -> bool:
        """The next thing that is due; False when nothing is until ``end``."""
        due = self.process.due() if self.process is not None else None
        times = [time for time in (due, self.agenda.next()) if time is not None and time <= end]
        try:
            if due is not None and due <= self.agenda.now:
                assert self.process is not None
                self.process.reconcile_next()
            else:
                self.agenda.run_until(min(times, default=end))
        except Crash:  # in a reconcile, or while it asked what an event made it ask
            self.crash("killed")
        return bool(times)

    # --- the two phases

    def live(self) -> Report:
        """The whole life of the runs.

        Raises:
            AssertionError: with the seed and what happened last.
        """
        try:
            return self._live()
        except Exception as error:
            last = "\n".join(self._trace)
            raise AssertionError(f"seed {self.seed} ({self.shape.name}): {error}\n{last}") from error

    def _live(self) -> Report:
        for name in self.wanted:
            self.people.apply(name, self.spec(name))
        self.start()
        if self.faulty:
            self.people.meddle()
            self.go(self.rng.uniform(*FAULTY_S))
            self.faulty = False
            self.say("--- no faults from now on")
        before = self.laws.reconciles
        self._settle()
        reconciles = self.laws.reconciles - before
        law(
            reconciles <= RECONCILES_TO_THE_END * len(self.wanted),
            f"it took {reconciles} reconciles to come to the end",
        )
        ends = {name: end_state(self.api.runs[name], impatient=self.people.impatient) for name in self.wanted}
        self._rest()
        if not self.disturbed:
            writes = sum(self.laws.writes.values())
            most = 3 * (
                len(self.jobs.lives) * (2 if "queue" in self.shape.spec() or len(self.shape.runs) > 1 else 1)
                + len(self.shape.runs)
            ) + sum(
                "finetune" in run["spec"] or "publish" in run["spec"] for run in self.api.runs.values()
            )  # which is the best
            law(writes <= most, f"{writes} writes, and {most} would be three for each transition")
        return Report(
            self.seed, self.shape.name, self.laws.reconciles, reconciles, self.crashes, dict(self.laws.writes),
            len(self.jobs.lives), ends,
        )  # fmt: skip

    def _settle(self) -> None:
        """People want what they want in the end, and the run comes to its end."""
        end = self.agenda.now + PATIENCE_S
        self.people.tidy_up()
        if self.disturbed and self.rng.random() < 0.3:
            self._hold()
        for name in self.wanted:
            run = self.api.runs.get(name)
            if run is not None and "deletionTimestamp" in run["metadata"]:
                self.people.recreate(name)
            else:
                self.people.apply(name, self.spec(name))
        answers = 0
        while not self._ended() or self._unlucky():
            ended = self.wanted if self._ended() else self._held_up()
            if ended:
                answers += 1
                law(answers <= ANSWERS, f"it fails again and again: {self._where()}")
                for name in self._unlucky(ended):
                    self.people.answer(name)
            if self.shape.outlived and FIRST in self.wanted:
                self._outlive()
            if self.agenda.now >= end or self.laws.reconciles > 20 * RECONCILES_TO_THE_END:
                raise AssertionError(f"it does not come to an end: {self._where()}")
            self.step(end)

    def _outlive(self) -> None:
        """The run that was forked is not needed any more."""
        fork = self.api.runs.get(SECOND)
        if fork is not None and "deletionTimestamp" not in fork["metadata"] and (fork.get("status") or {}).get("fork"):
            self.say(f"delete {FIRST}, which is forked")
            self.wanted = (SECOND,)
            if FIRST in self.api.runs:
                self.api.remove("runs", FIRST)

    def _unknowable(self, job: str, run: Object) -> bool:
        """Neither a list nor the record shows the Job: it has lost our label, and no write that names it arrived."""
        labels = self.api.jobs[job]["metadata"].get("labels") or {}
        return MANAGED_BY not in labels and job not in {a["name"] for a in run["status"].get("attempts") or []}

    def _hold(self) -> None:
        """A suspended run holds still."""
        for name in self.wanted:
            if name in self.api.runs:
                self.people.suspend(name)
        self.go(self.agenda.now + HELD_S)
        for name in self.wanted:
            if (run := self.api.runs.get(name)) is not None and run["spec"].get("suspend"):
                alive = [
                    life.name
                    for life in self.jobs.lives.values()
                    if life.live and life.owner == run["metadata"]["uid"] and not self._unknowable(life.name, run)
                ]
                law(not alive, f"{name} is suspended, and {alive} live")
                phase = run["status"]["phase"]
                law(phase in ("Suspended", "Succeeded", "Failed"), f"{name} is suspended and says {phase}")

    def _held_up(self) -> tuple[str, ...]:
        """The run that is forked, where it has failed by bad luck and the other one waits for it."""
        first = (FIRST,)
        waits = bool(self.shape.fork) and FIRST in self.wanted and self._ended(first) and self._unlucky(first)
        return first if waits else ()

    def _ended(self, names: Sequence[str] | None = None) -> bool:
        for name in names or self.wanted:
            run = self.api.runs.get(name)
            status = (run or {}).get("status") or {}
            if (
                run is None
                or "deletionTimestamp" in run["metadata"]
                or status.get("phase") not in ("Succeeded", "Failed")
            ):
                return False
            if status["observedGeneration"] != run["metadata"]["generation"] or run["spec"] != self.shape.spec(name):
                return False
            if any(attempt["state"] not in ("Succeeded", "Failed") for attempt in status["attempts"]):
                return False
            if any(life.live and life.owner == run["metadata"]["uid"] for life in self.jobs.lives.values()):
                return False
        return True

    def _unlucky(self, names: Sequence[str] | None = None) -> list[str]:
        """Runs of which a step has failed that can succeed: a failure of before, seen when the answer was given."""
        found = []
        for name in names or self.wanted:
            steps = self.api.runs[name]["status"].get("steps") or []
            if any(step["state"] == "Failed" and step["name"] not in self.shape.poison for step in steps):
                found.append(name)
        return found

    def _where(self) -> str:
        places = []
        for name in self.wanted:
            status = (self.api.runs.get(name) or {}).get("status") or {}
            ready: dict[str, Any] = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
            places.append(f"{name} is {status.get('phase')}: {ready.get('reason')}: {ready.get('message')}")
        live = [life.name for life in self.jobs.lives.values() if life.live]
        return f"{'; '.join(places)}; live: {live}"

    def _rest(self) -> None:
        """Nothing happens any more but that Jobs expire; so nothing is written."""
        self.go(self.agenda.now + 10)
        self.quiet_since = self.agenda.now
        if self.process is not None and self.rng.random() < 0.5:
            self.crash("for the last time")
        self.go(self.agenda.now + AFTERWARDS_S)


def end_state(run: Object, *, impatient: bool) -> dict[str, Any]:
    """What must not depend on the faults: all but times, counts, attempts, and whether an output was found or made.

    With a small backoffLimit a step whose figures are lost is done without them, and so says the run.
    """
    status = RunStatus.model_validate(run["status"])
    conditions = [(c.type, c.status, c.reason) for c in status.conditions if c.type != "Audited"]
    ended_by_guard = ("Complete", "True", reasons.GUARD_TRIPPED) in conditions
    if status.phase == "Failed" or ended_by_guard:  # what ran beside the step that failed may be done or not
        failed = [(step.name, step.key, step.reason) for step in status.steps if step.state == "Failed"]
        back = [rollback.iteration for rollback in status.rollbacks]
        return {"phase": status.phase, "steps": failed, "conditions": conditions, "back": back}
    if impatient and any(not step.metrics for step in status.steps):
        names = [(step.name, step.key, step.state, step.reason) for step in status.steps]
        return {"phase": status.phase, "steps": names, "conditions": conditions}
    seen = status.model_dump(
        include={"phase", "iteration", "score", "best", "model_uri", "iterations", "finetune", "publish"}
    )
    steps = [(step.name, step.key, step.state, step.retry_at, step.reason, step.metrics) for step in status.steps]
    begins = {"begins": status.fork.solver} if status.fork else {}
    return {**seen, "steps": steps, "conditions": conditions, **begins}


@cache
def calm(shape: Shape, system: System) -> Report:
    """How the run goes when nothing goes wrong."""
    return World(0, shape, system, faulty=False).live()


def shape_of(seed: int) -> Shape:
    own = {GUARD_SEEDS: GUARDED, FORK_SEEDS: FORKS, FINETUNE_SEEDS: FINETUNED}
    shapes = next((shapes for seeds, shapes in own.items() if seed in seeds), SHAPES)
    return shapes[seed % len(shapes)]


def simulate(seed: int, system: System | None = None) -> Report:
    """One seed, held against the run without faults.

    Raises:
        AssertionError: it breaks a law, or ends otherwise.
    """
    shape, system = shape_of(seed), system or unchanged()
    expected = calm(shape, unchanged()).ends
    assert calm(shape, system).ends == expected, f"without faults, {shape.name} ends otherwise"
    report = World(seed, shape, system, faulty=True).live()
    for name, end in report.ends.items():
        wanted = _comparable(expected[name], end)
        if shape.moving and "begins" in end and "begins" in wanted:
            wanted = _from_elsewhere(wanted, end)
        assert end == wanted, (
            f"seed {seed} ({shape.name}): {name} ends in another state than without faults:\n"
            f"{_differences(expected[name], end)}"
        )
    return report


def _comparable(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    comparable = {name: expected[name] for name in expected if name in found}
    if len(comparable) < len(expected):  # without figures
        comparable["steps"] = [(name, key, state, reason) for name, key, state, _, reason, _ in expected["steps"]]
    return comparable


def _from_elsewhere(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """``expected`` of a fork that began with other models, whose keys and figures are others."""
    steps = [
        (name, key, *rest, metrics)
        for (name, _, *rest, _), (_, key, *_, metrics) in zip(expected["steps"], found["steps"], strict=False)
    ]
    own = ("score", "best", "model_uri", "iterations", "begins")
    return {**expected, **{name: found[name] for name in own}, "steps": steps}


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    different = [name for name in expected if expected.get(name) != found.get(name)]
    return "\n".join(
        f"{name}: expected {expected.get(name)!r}\n{name}: found    {found.get(name)!r}" for name in different
    )
