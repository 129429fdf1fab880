"""What the real controller counts in the simulated cluster, against how long the processes in the pods were there."""

from __future__ import annotations

import pytest
from simulation.nodes import Pod
from simulation.shapes import CURES, Shape
from simulation.system import unchanged
from simulation.world import World

from selfevo_contract.status import RunStatus, Usage

GPUS = 2
SHAPE = Shape(
    "gpus",
    changes={
        **CURES,
        "spec__parallelSteps": 2,
        "spec__rollout__shards": 3,
        "spec__challenger__grpo__perDeviceTrainBatchSize": 8,
        "spec__solver__grpo__perDeviceTrainBatchSize": 8,
        "spec__pods": {"resources": {"limits": {"nvidia.com/gpu": GPUS}}},
    },
)
NOTICED_S = 2.5
"""From the Job to the process in its pod, and from its end to the reconcile that sees it."""


def world_of(seed: int, **spec: object) -> World:
    world = World(seed, Shape("gpus", changes={**SHAPE.changes, **spec}), unchanged(), faulty=False)
    world.disturbed = True
    world.people.apply("demo", world.spec())
    world.start()
    return world


def status(world: World) -> RunStatus:
    return RunStatus.model_validate(world.api.runs["demo"].get("status") or {})


def usage(world: World) -> Usage:
    found = status(world).usage
    assert found is not None
    return found


def pods(world: World) -> list[Pod]:
    return [pod for life in world.jobs.lives.values() for pod in life.pods if pod.worked]


def gpu_seconds(world: World) -> float:
    """As the processes lived."""
    ends = [[*pod.worked, world.agenda.now][:2] for pod in pods(world)]
    return sum(GPUS * (end - begin) for begin, end in ends)


def disturb(world: World) -> None:
    """Something happens to a run every few seconds, all of which every cluster has now and then."""
    lives = [life for life in world.jobs.lives.values() if life.live]
    alive = [pod for life in lives for pod in life.pods if pod.alive and pod.state == "running"]
    act = world.rng.choice(("operator", "suspend", "crash", "delete", "preempt"))
    if act == "operator":
        world.crash("somebody restarts it")
    elif act == "suspend":
        world.people.suspend("demo")
        world.agenda.after(world.rng.uniform(1, 60), lambda: world.people.apply("demo", world.spec()))
    elif act == "crash" and alive:
        world.nodes.end(world.rng.choice(alive), 1)
    elif act == "delete" and alive:
        world.nodes.kill(world.rng.choice(alive))
    elif act == "preempt" and lives:
        world.jobs.preempt(world.rng.choice(lives))
    if world.agenda.now < 300:
        world.agenda.after(world.rng.uniform(5, 25), lambda: disturb(world))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_retries_suspension_and_restarts_of_the_operator_are_counted_as_they_were(seed: int) -> None:
    world = world_of(seed)
    world.agenda.after(5, lambda: disturb(world))
    world.go(320)
    world._settle()
    assert status(world).phase == "Succeeded"
    counted, true = 3600 * usage(world).gpu_hours, gpu_seconds(world)
    most = GPUS * NOTICED_S * (len(pods(world)) + len(world.jobs.lives))
    assert -most <= counted - true <= most, (counted, true, len(pods(world)))
    assert sum(of.gpu_hours for of in usage(world).phases.values()) == pytest.approx(usage(world).gpu_hours, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_budget_that_is_used_up_stops_the_pods_and_a_raised_one_lets_them_go_on(seed: int) -> None:
    limit = 20.0
    world = world_of(seed, spec__budget={"gpuHours": limit / 3600})
    while status(world).phase != "Suspended":
        assert world.agenda.now < 600 and status(world).phase != "Succeeded"
        world.go(world.agenda.now + 1)
    (suspended,) = [c for c in status(world).conditions if c.type == "Suspended"]
    assert (suspended.status, suspended.reason) == ("True", "BudgetExceeded")
    assert usage(world).low == ["gpuHours"]
    world.go(world.agenda.now + 60)
    assert not any(pod.alive for pod in pods(world))
    spent = 3600 * usage(world).gpu_hours
    grace = 3 + 2 * NOTICED_S
    assert limit <= spent <= limit + GPUS * 4 * grace
    world.crash("somebody restarts it")
    world.go(world.agenda.now + 1000)
    assert 3600 * usage(world).gpu_hours == spent, "who waits uses nothing"
    world.shape = Shape("gpus", changes={**SHAPE.changes, "spec__budget": {"gpuHours": 9}})
    world._settle()
    assert status(world).phase == "Succeeded" and usage(world).low == []
    events = world.laws.writes["event"]
    assert events
