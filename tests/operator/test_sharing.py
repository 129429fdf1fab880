"""Two runs that have a step in common: one makes it, the other one waits and finds it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from test_controller import Cluster, World

from harness.runs import document
from selfevo_operator.controller import Controller, MetricsHooks
from selfevo_operator.manifests.settings import PodSettings
from selfevo_operator.observed.cache import Key

FIRST, SECOND = Key("default", "demo"), Key("default", "other")


class Two(World):
    """A second run beside the first: the same spec, but for ``changes``."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(spec__evaluation=None)  # one step after the other
        self.freed: list[Key] = []
        self.second = Cluster()
        self.second.jobs = self.cluster.jobs
        self.second.version = 1000
        made = document(**{**self.changes, **changes})
        made["metadata"] |= {"name": "other", "generation": 1}
        self.second.run = self.second.stored(made, "run-2")
        self.cache.put_run(self.second.run)
        hooks = MetricsHooks(freed=self.freed.append)
        clock = lambda: self.now  # noqa: E731
        self.controller = Controller(_Both(self), self.cache, PodSettings(image="trainer"), clock, hooks=hooks)

    def of_second(self, seconds: float = 0) -> float | None:
        self.reconcile(seconds) if seconds else None
        return asyncio.run(self.controller.reconcile_run(SECOND))

    def reason(self) -> tuple[str, str]:
        found = next(c for c in self.second.run["status"]["conditions"] if c["type"] == "Reconciling")
        return found["reason"], found["message"]


class _Both:
    """`kube.Api` of both, by the run's name."""

    def __init__(self, world: Two) -> None:
        self._world = world

    async def patch_status(self, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        cluster = self._world.second if name == "other" else self._world.cluster
        return await cluster.patch_status(namespace, name, patch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.cluster, name)


def test_the_second_waits_for_the_first_and_finds_what_it_made() -> None:
    world = Two()
    world.reconcile()
    (first,) = world.names
    assert (world.of_second() or 0) == 30
    assert world.names == [first], "trained once"
    assert world.reason() == (
        "WaitsForRun",
        f"0 of 4 steps done, solver-rollout-1 is the same for run demo (Job {first}), which makes it; "
        "it is taken over when that ends",
    )
    world.finish(first)
    world.reconcile(1)
    assert world.freed == [SECOND]
    world.of_second()
    assert [name for name in world.names if name.startswith("other-solver-rollout-1")], (
        "it finds the output, and says so"
    )


def test_when_the_first_goes_without_having_made_it_the_second_takes_over() -> None:
    world = Two()
    world.reconcile()
    (first,) = world.names
    world.of_second()
    world.edit(spec__suspend=True)
    world.reconcile(1)
    world.of_second()
    assert len(world.names) == 1, "its pods save, and it holds the step until they are gone"
    world.cache.drop_job(world.cluster.jobs.pop(first))
    world.reconcile(1)
    assert world.freed == [SECOND]
    world.of_second()
    (taken,) = world.names
    assert taken.startswith("other-solver-rollout-1")
    world.edit(spec__suspend=False)
    world.reconcile(1)
    assert world.names == [taken], "and now the first one waits"


@pytest.mark.parametrize(
    "changes", [{"spec__storage__uri": "s3://elsewhere/x"}, {"spec__seed": 99, "spec__model__uri": "s3://other/model"}]
)
def test_what_differs_is_not_waited_for(changes: dict[str, Any]) -> None:
    world = Two(**changes)
    world.reconcile()
    world.of_second()
    assert len(world.names) == 2


def test_of_two_that_are_reconciled_at_once_one_goes_first() -> None:
    world = Two()

    async def slow(namespace: str, job: Any) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return await Cluster.create_job(world.cluster, namespace, job)

    world.cluster.create_job = slow  # type: ignore[method-assign]

    async def both() -> None:
        await asyncio.gather(world.controller.reconcile_run(FIRST), world.controller.reconcile_run(SECOND))

    asyncio.run(both())
    assert len(world.names) == 1 and world.names[0].startswith("demo-")


def test_a_run_that_is_gone_holds_nothing() -> None:
    world = Two()
    world.reconcile()
    world.cache.drop_run(FIRST, "run-1")
    world.of_second()
    assert len(world.names) == 2
