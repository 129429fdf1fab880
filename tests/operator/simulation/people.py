"""Those who edit the run, delete it, delete its Jobs, and write where they should not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness import unbuilt
from simulation.apiserver import MANAGED_BY, Object
from simulation.nodes import MISSING_IMAGE

if TYPE_CHECKING:
    from simulation.jobs import JobLife
    from simulation.world import World

IMAGES = ("registry.example/trainer:a", "registry.example/trainer:b", MISSING_IMAGE)

Acts = tuple[Callable[[str], None], ...]


class People:
    """Everybody but the operator who writes to the API server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._notes = 0
        self.impatient = False
        """A step's tries were cut down once."""
        self._figures_matter = world.rng.random() < 0.6 or bool(world.shape.figures)
        """So nobody cuts the tries down: a step that has few is done without its figures when they are lost."""
        often: Acts = (
            self._edit_pods,
            self.suspend,
            self._resume,
            self._note,
            self._delete_job,
            self._squat,
        )
        often += (self._kill_pod, self._strand, self._drain)
        seldom: Acts = (
            self._extend,
            self._patience,
            self._ttl,
            self._asks_for_too_much,
            self._budget,
            self._review,
            self._delete_run,
            self._flap,
        )
        seldom += (self._condition, self._wipe, self._disown, self._label_job, self._preempt, self._swap)
        seldom += (self._unlabel_job,)
        self._acts = (*often, *often, *seldom)

    def meddle(self) -> None:
        """Somebody does something."""
        world = self._world
        if not world.faulty:
            return
        if world.rng.random() < 0.12:
            world.faults.outage(world.agenda.now)
        name = world.rng.choice(sorted(world.wanted))
        act = world.rng.choice(self._acts)
        if name in world.api.runs or act == self._squat:
            act(name)
        world.agenda.after(world.rng.uniform(2, world.pause), self.meddle)

    # --- the run

    def apply(self, name: str, spec: dict[str, Any]) -> None:
        """``kubectl apply``."""
        api = self._world.api
        self._world.say(f"apply {name}")
        if name in api.runs:
            api.update("runs", name, spec=spec)
        else:
            kind = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun"}
            api.create("runs", {**kind, "metadata": {"name": name}, "spec": spec})

    def answer(self, name: str) -> None:
        """To a failure, a person says: again, please."""
        spec = self._world.api.runs[name]["spec"]
        self._edit(name, priorityClass="high")
        self.apply(name, spec)

    def _edit(self, name: str, **changes: Any) -> None:
        spec = copy.deepcopy(self._world.api.runs[name]["spec"])
        for field, value in changes.items():
            if value is None:
                spec.pop(field, None)
            else:
                spec[field] = value
        self._world.say(f"edit {name}: {changes}")
        self._world.api.update("runs", name, spec=spec)

    def _edit_pods(self, name: str) -> None:
        rng = self._world.rng
        pods: dict[str, Any] = {"image": rng.choice(IMAGES)}
        if rng.random() < 0.5:
            pods["env"] = [{"name": "A", "value": str(rng.randint(0, 9))}]
        if rng.random() < 0.3:
            pods["nodeSelector"] = {"pool": rng.choice("ab")}
        self._edit(name, pods=rng.choice((pods, pods, None)))

    def suspend(self, name: str) -> None:
        self._edit(name, suspend=True)

    def _resume(self, name: str) -> None:
        self._edit(name, suspend=False)

    def _extend(self, name: str) -> None:
        spec = self._world.api.runs[name]["spec"]
        self._edit(name, iterations=min(self._world.shape.spec(name)["iterations"], spec["iterations"] + 1))

    def _patience(self, name: str) -> None:
        if self._figures_matter:
            return
        self.impatient = True
        self._edit(
            name, backoffLimit=self._world.rng.choice((0, 1, 3, self._world.shape.spec().get("backoffLimit", 3)))
        )

    def _ttl(self, name: str) -> None:
        self._edit(name, ttlSecondsAfterFinished=self._world.rng.choice((60, 60, 120, 300)))

    def _budget(self, name: str) -> None:
        """Too little for the run, and later perhaps more; in the end there is none."""
        rng = self._world.rng
        choices = ({"wallTime": rng.choice(("1s", "20s", "2m"))}, {"gpuHours": rng.choice((0.001, 0.02, 0.5))}, None)
        self._edit(name, budget=rng.choice(choices))

    def _review(self, name: str) -> None:
        """Iterations are to wait, and some are approved; in the end none waits."""
        rng, iterations = self._world.rng, self._world.api.runs[name]["spec"]["iterations"]
        review = rng.choice(({"before": [1]}, {"before": [2]}, {"every": True}, None))
        self._edit(name, review=review, approvedIteration=rng.choice((None, None, rng.randint(0, iterations))))

    def _asks_for_too_much(self, name: str) -> None:
        """What this version does not have, and after a while a correction."""
        self._edit(name, solver={**self._world.api.runs[name]["spec"]["solver"], "engine": unbuilt.ENGINE})

        def correct() -> None:
            if name in self._world.api.runs:
                solver = self._world.api.runs[name]["spec"]["solver"]
                self._edit(name, solver={field: value for field, value in solver.items() if field != "engine"})

        self._world.agenda.after(self._world.rng.uniform(1, 30), correct)

    def _delete_run(self, name: str) -> None:
        world, run = self._world, self._world.api.runs[name]
        luck = world.rng.random()
        if luck < 0.2:
            world.say(f"delete {name}, and leave its Jobs alone")
            for job in world.api.owned_by(run["metadata"]["uid"]):
                world.jobs.disown(job["metadata"]["name"])
            world.api.remove("runs", name)
        elif luck < 0.6:
            world.say(f"delete {name}")
            world.api.remove("runs", name)
        elif "deletionTimestamp" not in run["metadata"]:
            world.say(f"delete {name} in the foreground")
            world.api.update("runs", name, metadata={"deletionTimestamp": world.agenda.stamp()})
        world.agenda.after(world.rng.uniform(0.2, 20), lambda: self.recreate(name))

    def _flap(self, name: str) -> None:
        """Deleted and applied twice in a row, while the watch lags behind a list that shows the last one."""
        world = self._world
        if world.process is None:
            return
        world.process.streams["runs"].stall(world.rng.uniform(5, 20))
        for _ in range(2):
            world.say(f"delete {name}")
            world.api.remove("runs", name)
            self.apply(name, world.spec(name))
        world.process.list_soon()

    def recreate(self, name: str) -> None:
        """Apply it anew, once it is really gone, unless nobody wants it any more."""
        if name not in self._world.wanted:
            return
        run = self._world.api.runs.get(name)
        if run is None:
            self.apply(name, self._world.spec(name))
        elif "deletionTimestamp" in run["metadata"]:
            self._world.agenda.after(1, lambda: self.recreate(name))

    # --- its status

    def _note(self, name: str) -> None:
        self._notes += 1
        self._write_status(name, {**(self._world.api.runs[name].get("status") or {}), "fleet": {"note": self._notes}})

    def _condition(self, name: str) -> None:
        self._notes += 1
        status = self._world.api.runs[name].get("status") or {}
        others = [c for c in status.get("conditions") or [] if c["type"] != "Audited"]
        condition = {"status": "True", "reason": "Audited", "message": str(self._notes)}
        audited = {"type": "Audited", **condition, "lastTransitionTime": self._world.agenda.stamp()}
        self._write_status(name, {**status, "conditions": [audited, *others]})

    def _wipe(self, name: str) -> None:
        """Somebody restores the run without its status."""
        if self._world.rng.random() < 0.4:
            self._world.say(f"wipe the status of {name}")
            self._write_status(name, {})
            self._world.laws.wiped[self._world.api.runs[name]["metadata"]["uid"]] = self._world.agenda.now

    def _write_status(self, name: str, status: Object) -> None:
        self._world.api.update("runs", name, status=status)

    # --- its Jobs

    def _any_job(self) -> JobLife | None:
        there = [life for life in self._world.jobs.lives.values() if not life.gone]
        return self._world.rng.choice(there) if there else None

    def _delete_job(self, name: str) -> None:
        if (life := self._any_job()) is not None:
            self._world.say(f"delete job {life.name}")
            self._world.jobs.delete(life.name, foreground=self._world.rng.random() < 0.5)

    def _preempt(self, name: str) -> None:
        if (life := self._any_job()) is not None and life.owner:
            self._world.jobs.preempt(life)

    def _kill_pod(self, name: str) -> None:
        pods = [pod for life in self._world.jobs.lives.values() if not life.gone for pod in life.pods if not pod.gone]
        if not pods:
            return
        pod = self._world.rng.choice(pods[-4:])
        self._world.say(f"delete pod {pod.name}")
        if pod.state == "ended":
            pod.gone = True
        else:
            self._world.nodes.kill(pod)

    def _drain(self, name: str) -> None:
        """A node is emptied: nobody's fault."""
        self._world.say("a node is drained")
        for life in self._world.jobs.lives.values():
            for pod in life.pods:
                if life.live and pod.alive and pod.state == "running":
                    pod.disrupted = True
                    if self._world.rng.random() < 0.5:
                        self._world.nodes.end(pod, 137)
                    else:
                        self._world.nodes.kill(pod)

    def _strand(self, name: str) -> None:
        """A pod ends, and the image is not there any more for the next one."""
        running = [
            pod
            for life in self._world.jobs.lives.values()
            for pod in life.pods
            if life.live and pod.state == "running" and not pod.gone and life.image in IMAGES
        ]
        if running:
            pod = self._world.rng.choice(running)
            self._world.say(f"{pod.name} crashes, and {pod.life.image} is gone for good")
            self._world.nodes.missing.add(pod.life.image)
            self._world.nodes.end(pod, 1)

    def _disown(self, name: str) -> None:
        """Somebody takes a Job away from its run."""
        if (life := self._any_job()) is not None:
            self._world.say(f"disown job {life.name}")
            self._world.jobs.disown(life.name)

    def _label_job(self, name: str) -> None:
        if (life := self._any_job()) is not None:
            self._notes += 1
            job = self._world.api.jobs[life.name]
            labels = {**job["metadata"]["labels"], "touched": str(self._notes)}
            self._world.api.update("jobs", life.name, metadata={"labels": labels})

    def _unlabel_job(self, name: str) -> None:
        """A Job loses the label by which the operator finds it; mostly somebody puts it back one day."""
        world = self._world
        live = [life for life in world.jobs.lives.values() if life.live and life.owner]
        if not live:
            return
        life = world.rng.choice(live)
        labels = dict(world.api.jobs[life.name]["metadata"]["labels"])
        world.say(f"job {life.name} loses its label")
        life.unlabelled = True
        world.api.update("jobs", life.name, metadata={"labels": {n: v for n, v in labels.items() if n != MANAGED_BY}})

        def back() -> None:
            if life.name in world.api.jobs and world.api.jobs[life.name]["metadata"]["uid"] == life.uid:
                world.api.update("jobs", life.name, metadata={"labels": labels})

        if world.rng.random() < 0.6:
            world.agenda.after(world.rng.uniform(1, 200), back)

    def _squat(self, name: str) -> None:
        """A Job under a name that the run will want, from a backup: it is not ours, whatever its labels."""
        world, run = self._world, self._world.api.runs.get(name)
        if run is None or not world.originals:
            return
        steps = world.plan_of(run).steps
        if not steps:  # of a fork that waits
            return
        step = world.rng.choice(steps)
        taken = f"{name}-{step.name}-{step.key[:8]}-{world.rng.choice((1, 1, 2))}"
        if taken not in world.api.jobs:
            self._put_in_the_way(name, taken, world.originals[world.rng.choice(sorted(world.originals))])

    def _swap(self, name: str) -> None:
        """A Job is deleted and another one comes under its name, and the operator hears of it late."""
        world = self._world
        live = [life for life in world.jobs.lives.values() if life.live and life.owner]
        if not live or world.process is None:
            return
        life = world.rng.choice(live)
        world.process.streams["jobs"].stall(world.rng.uniform(2, 20))
        world.say(f"job {life.name} is swapped")
        world.jobs.delete(life.name, foreground=False)
        self._put_in_the_way(name, life.name, world.originals[life.uid])
        if world.rng.random() < 0.6:
            self.suspend(name)

    def _put_in_the_way(self, run: str, name: str, like: Object) -> None:
        world = self._world
        owners = []
        if run in world.api.runs and world.rng.random() < 0.5:
            owner = {"kind": "SelfEvolutionRun", "name": run, "uid": world.api.runs[run]["metadata"]["uid"]}
            owners = [{**owner, "controller": False}]
        copied = {part: copy.deepcopy(like[part]) for part in ("apiVersion", "kind", "spec")}
        labels = {part: like["metadata"][part] for part in ("labels", "annotations")}
        world.say(f"job {name} of somebody else")
        world.api.create("jobs", {**copied, "metadata": {"name": name, **labels, "ownerReferences": owners}})
        world.agenda.after(world.rng.uniform(5, 90), lambda: self._leave(name))

    def _leave(self, name: str) -> None:
        """Take away what is in the way, if it is nobody's."""
        life = next((life for life in self._world.jobs.lives.values() if life.name == name and not life.gone), None)
        if life is not None and not life.owner:
            self._world.jobs.delete(name, foreground=False)

    def tidy_up(self) -> None:
        """Nobody's Jobs are taken away."""
        for life in list(self._world.jobs.lives.values()):
            if not life.gone and not life.owner:
                self._leave(life.name)
