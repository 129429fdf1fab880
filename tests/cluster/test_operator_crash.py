"""The operator is killed at every write of a run: before it is sent, after it is stored, after the reply.

Killed by SIGKILL and started anew, it must come to the end that an undisturbed run comes to: the same status, the same
number of Jobs made and deleted, each step trained once.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.client import Api
from harness.cluster.cluster_runs import (
    RUNS,
    Object,
    cluster_run,
    conditions,
    events,
    eventually,
    keys_of,
    plan_of,
    status_of,
    wait_event,
    wait_phase,
    wait_run,
)
from harness.cluster.controlplane import ControlPlane
from harness.cluster.faults import Request
from harness.cluster.kubelet_standin import FakeKubelet, playing
from harness.cluster.lives import TOKENS, Life
from harness.cluster.operator_forks import Nursery, nursery
from harness.cluster.operator_process import account
from harness.cluster.proxy import Stage, proxied
from selfevo_contract.status import Fork

pytestmark = pytest.mark.slow

STAGES: tuple[Stage, ...] = ("before", "stored", "replied")
AT_ONCE = 10
"""Runs at one time, each in its own namespace with its own operator: nearly all of their time is waiting."""
SCORED = {"spec__seed": 1, "spec__rollout__shards": 1, "spec__challenger__grpo__maxSteps": 0}
"""Four steps: evaluate-0, solver-rollout-1, solver-train-1 and evaluate-1."""
TUNED = {**SCORED, "spec__finetune": {"data": {"uri": "s3://bucket/labelled.jsonl"}}}
"""Four more: the best Solver and the base are fine-tuned, and scored."""
BRIEF = {**SCORED, "spec__evaluation": None}
"""Two: solver-rollout-1 and solver-train-1."""
WATCHED = {
    **BRIEF,
    "spec__iterations": 2,
    "spec__guards": {"inBand": {"limit": 0.6, "action": "rollback"}, "maxRollbacks": 1},
    "spec__review": {"before": [2]},
    "spec__budget": {"tokens": 2 * TOKENS + 1},
}
"""Five: solver-rollout-1 twice, solver-train-1, solver-rollout-2 and solver-train-2."""
BEFORE_TUNING = 4
"""Jobs until all scores are there."""
FORK = {**BRIEF, "spec__seed": 2, "spec__iterations": 2, "spec__forkFrom": {"run": "first", "iteration": 1}}
"""Two more: solver-rollout-2 and solver-train-2."""


@dataclass(frozen=True)
class Ended:
    """What is compared."""

    status: Object
    stored: dict[str, int]
    """Writes of Jobs that the API server carried out."""
    trained: list[str]
    events: set[str]
    """What they tell, fact by fact."""
    writes: list[str]
    """All that were sent, in words."""
    crashes: int
    """Writes at which the operator may be killed: from the story's first one (`Crashes.play`)."""


def is_fine_tuned(api: Api, namespace: str, kubelet: FakeKubelet) -> Object:
    """Eight steps, one after the other. When the scores are there it is recorded which Solver is the best."""
    api.create(cluster_run(**TUNED), namespace)
    run = wait_phase(api, namespace, "demo", "Succeeded", LIMIT_S)
    assert status_of(run)["finetune"].items() >= {"iteration": 1, "score": 0.75, "controlScore": 0.7}.items()
    return run


def is_held(api: Api, namespace: str, kubelet: FakeKubelet) -> Object:
    """Two steps, the second one suspended while it runs: a Job is deleted and made again."""
    kubelet.script["solver-train-1"] = [Life(hangs=True)]
    api.create(cluster_run(**BRIEF), namespace)
    kubelet.wait_running("solver-train-1", LIMIT_S)
    wait_run(api, namespace, "demo", lambda run: len(status_of(run).get("steps", [])) == 2, LIMIT_S)
    api.patch(RUNS, "demo", {"spec": {"suspend": True}}, namespace)
    wait_phase(api, namespace, "demo", "Suspended", LIMIT_S)
    api.patch(RUNS, "demo", {"spec": {"suspend": False}}, namespace)
    return wait_phase(api, namespace, "demo", "Succeeded", LIMIT_S)


def goes_on_from_another(api: Api, namespace: str, kubelet: FakeKubelet) -> Object:
    """Two steps, with what a run of two others has made, which is deleted as soon as it is not needed any more."""
    api.create(cluster_run("first", **BRIEF), namespace)
    wait_phase(api, namespace, "first", "Succeeded", LIMIT_S)
    wait_event(api, namespace, "run Succeeded", "first", LIMIT_S)
    api.create(cluster_run(**FORK), namespace)
    wait_run(api, namespace, "demo", lambda run: "fork" in status_of(run), LIMIT_S)
    api.delete(RUNS, "first", namespace)
    return wait_phase(api, namespace, "demo", "Succeeded", LIMIT_S)


def is_watched(api: Api, namespace: str, kubelet: FakeKubelet) -> Object:
    """A guard rolls it back and then stops it; it waits for a person, runs out of its budget and has it raised."""

    def patch(spec: Object) -> None:
        api.patch(RUNS, "demo", {"spec": spec}, namespace)

    def waits(reason: str) -> None:
        wait_run(api, namespace, "demo", lambda run: conditions(run).get("Suspended") == reason, LIMIT_S)

    api.create(cluster_run(**WATCHED), namespace)
    failed = wait_phase(api, namespace, "demo", "Failed", LIMIT_S)
    assert conditions(failed)["Failed"] == "GuardTripped" and len(status_of(failed)["rollbacks"]) == 1
    patch({"guards": {"inBand": {"action": "warn"}}})
    waits("AwaitingReview")
    patch({"approvedIteration": 2})
    waits("BudgetExceeded")
    patch({"budget": {"tokens": 100 * TOKENS}})
    run = wait_phase(api, namespace, "demo", "Succeeded", LIMIT_S)
    (rollback,) = status_of(run)["rollbacks"]
    assert rollback["abandoned"].keys() == {"solver-rollout-1"}
    assert {step["name"] for step in status_of(run)["steps"]} == plan_of(run).by_name.keys()
    return run


def forked_keys() -> list[str]:
    """The work of both runs."""
    first = plan_of(cluster_run(**BRIEF)).by_name
    fork = Fork(run="first", iteration=1, solver=first["solver-train-1"].key, curriculum=first["solver-rollout-1"].key)
    made = [step for step in plan_of(cluster_run(**FORK), fork).steps if step.iteration > 1]
    return sorted([*keys_of(cluster_run(**BRIEF)), *(f"{step.key}/0" * step.type.sharded or step.key for step in made)])


LIMIT_S = 300.0
"""Below the time after which everything is listed anew: nothing may have to wait for that."""
Story = Callable[[Api, str, FakeKubelet], Object]


class Crashes:
    """Plays stories, with a crash in each."""

    def __init__(self, plane: ControlPlane, nursery: Nursery, folder: Path) -> None:
        self._plane, self._nursery, self._folder = plane, nursery, folder

    def play(self, story: Story, crash: tuple[Stage, int] | None) -> Ended:
        """The story's end, with the operator killed at this stage of this write, and started anew.

        The first write is the first one about the run that the story is of; of the one that is fine-tuned, that of the
        Job of its last score, since Jobs before it are those of the other stories.
        """
        plane, namespace = self._plane, self._plane.make_namespace()
        with playing(plane.admin, namespace) as kubelet, proxied(plane) as proxy:
            config = self._folder / f"{namespace}.kubeconfig"
            plane.kubeconfig(account(plane, [namespace]), config, proxy.server)
            operators = [self._nursery.start(config, [namespace])]
            begins: list[int] = [1] if story is is_held else []
            created: set[int] = set()

            def hook(stage: Stage, request: Request) -> bool:
                if request.method == "POST" and request.path.endswith("/jobs"):
                    created.add(request.write)
                there = len(created) == BEFORE_TUNING if story is is_fine_tuned else "/demo/" in request.path
                if not begins and there:
                    begins.append(request.write)
                if not begins or (stage, request.write - begins[0] + 1) != crash or len(operators) > 1:
                    return False
                operators[0].kill()
                proxy.cut_off()
                operators.append(self._nursery.start(config, [namespace]))
                return True

            proxy.hook = hook
            try:
                run = story(plane.admin, namespace, kubelet)
            except AssertionError as error:
                logs = "\n---\n".join(operator.logs for operator in operators)
                raise AssertionError(f"killed at {crash}: {error}\n{logs}\n{_words(proxy.writes)}") from None
            # The last writes come after the end that the story waits for.
            eventually(lambda: len(operators) == 2 or crash is None, why=lambda: f"no crash at {crash}")
            eventually(lambda: " listed " in operators[-1].output, why=lambda: operators[-1].output)
            if crash is None:
                # The last Event comes after the status that it tells of. A crash may lose it.
                wait_event(plane.admin, namespace, "run Succeeded", limit_s=LIMIT_S)
            time.sleep(0.3)
            assert operators[-1].alive and plane.admin.get(RUNS, "demo", namespace) == run
            # What happened while the operator was away is reported in one Event; the facts in it are the same.
            facts = {
                # A Job that was asked to end may have ended before the operator is back.
                re.sub(r", \S+ is ending: it was asked to, and saves its state$", "", fact)
                for _, text in events(plane.admin, namespace)
                for fact in text.replace(namespace, "NS").split("; ")
            }
            for operator in operators:
                operator.kill()
                assert "a defect" not in operator.output, operator.output
            assert kubelet.overlaps == []
            jobs = [r for r in proxy.writes if re.search("/jobs(/|$)", r.path) and r.code in (200, 201)]
            stored = dict(Counter(request.verb for request in jobs))
            words = _words(proxy.writes)
            ended = Ended(
                _timeless(run, namespace), stored, sorted(kubelet.trained), facts, words, len(words) - begins[0] + 1
            )
        plane.remove_namespace(namespace)
        return ended


def _words(writes: list[Request]) -> list[str]:
    return [f"{r.verb} {r.path.split('/')[-1] if r.verb != 'delete' else 'job'} {r.code}" for r in writes]


def _timeless(run: Object, namespace: str) -> Object:
    """The status without times. Attempts stay in: a crash is no attempt."""
    status = json.loads(json.dumps(status_of(run)).replace(namespace, "NS"))

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            times = ("at", "startedAt", "finishedAt", "lastTransitionTime")
            # Is measured in time; a phase that began and ended within a second is not among `phases`.
            used = ("countedAt", "wallHours", "gpuHours", "hours", "phases")
            return {name: strip(item) for name, item in value.items() if name not in times + used}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(status)


@pytest.fixture(scope="module")
def crashes(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    folder = tmp_path_factory.mktemp("crashes")
    with nursery(folder) as place:
        yield Crashes(control_plane, place, folder)


@pytest.mark.parametrize(
    ("story", "keys", "stored"),
    [
        (is_fine_tuned, keys_of(cluster_run(**TUNED)), {"create": 8}),
        (is_held, keys_of(cluster_run(**BRIEF)), {"create": 3, "delete": 1}),
        (goes_on_from_another, forked_keys(), {"create": 4}),
        (is_watched, None, {"create": 5}),  # a rollback's keys are other ones
    ],
)
def test_killed_at_any_write_it_comes_to_the_same_end(crashes: Crashes, story: Story, keys: list | None, stored: dict):
    undisturbed = crashes.play(story, None)
    assert undisturbed.stored == stored
    if keys is not None:
        assert undisturbed.trained == keys
    assert len(set(undisturbed.trained)) == len(undisturbed.trained) == stored["create"] - stored.get("delete", 0)
    # Many steps have many writes of a kind: each is the end at one of its stages, in turn; of the others, at all three.
    matrix = [
        (stage, write)
        for write in range(1, undisturbed.crashes + 1)
        for stage in ([STAGES[write % 3]] if story in (is_fine_tuned, is_watched) else STAGES)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for crash, ended in zip(matrix, pool.map(lambda crash: crashes.play(story, crash), matrix), strict=True):
            assert ended.status == undisturbed.status, f"killed at {crash}: {ended.writes}"
            assert ended.stored == undisturbed.stored, f"killed at {crash}: {ended.writes}"
            assert ended.trained == undisturbed.trained, f"killed at {crash}: {ended.writes}"
            assert ended.events <= undisturbed.events, f"killed at {crash}: {ended.events - undisturbed.events}"
