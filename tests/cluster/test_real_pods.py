"""The arithmetic example, smaller, on a real node and a real object store: restricted pods that train for real, one of
them killed, one evicted, and an operator that is killed on the way.

One life, which the fixture leads; the tests say what it must have been.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import versitygw
from harness.cluster import controlplane, node
from harness.cluster.arithmetic import BASE, LIMIT_S, secret, selfevo, small_run
from harness.cluster.client import Api, ApiError
from harness.cluster.cluster_runs import (
    RUNS,
    STEPS,
    conditions,
    events,
    eventually,
    jobs,
    phase_of,
    status_of,
)
from harness.cluster.manifests import condition, ended, trainer
from harness.cluster.node import IMAGE, Node
from harness.cluster.operator_process import OperatorProcess, operating
from harness.cluster.podrecord import PodRecord, recording
from harness.gotools import ToolUnavailable
from harness.holding import Hold, faults
from harness.podsecurity import violations
from harness.s3proxy import proxied
from harness.versitygw import S3Server
from runs import HEAVY_MODULES
from selfevo_contract.plan import plan_of
from selfevo_contract.run_record import newest_records, parsed

pytestmark = pytest.mark.slow
Object = dict[str, Any]

KILLED, EVICTED = "challenger-train-1", "solver-train-1"


@dataclass
class Life:
    """A run on a node, and what there is to see of it."""

    api: Api
    namespace: str
    manifest: Object
    """As it was applied."""
    pods: PodRecord
    s3: S3Server
    operator: OperatorProcess
    node: Node
    folder: Path

    @property
    def run(self) -> Object:
        return self.api.get(RUNS, self.manifest["metadata"]["name"], self.namespace)

    def jobs(self, step: str) -> list[Object]:
        """The operator's Jobs for a step."""
        return [job for job in jobs(self.api, self.namespace) if _step(job) == step]

    def until(self, true: Callable[[], object]) -> None:
        def there() -> object:
            assert phase_of(self.run) != "Failed"
            return true()

        eventually(there, LIMIT_S)

    @contextmanager
    def reported_on_failure(self) -> Iterator[None]:
        """Prints what a person would read."""
        try:
            yield
        except BaseException:
            print("-- run", json.dumps(status_of(self.run), indent=1))
            print("-- operator", self.operator.tail(3000), self.pods.tell(), self.node.tail(), sep="\n")
            raise

    def selfevo(self, *arguments: str) -> str:
        """The command, on this machine, where the store has another address."""
        return selfevo(self.manifest, self.s3, self.folder, *arguments)


def _step(job: Object) -> str:
    return job["metadata"]["labels"]["selfevo.dev/step"]


def _events(life: Life) -> list[tuple[str, str]]:
    return events(life.api, life.namespace, life.manifest["metadata"]["name"])


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("real-pods")
    second = {step: Hold("PUT", f"/{step[:-2]}/[^/]+/checkpoints/0*2/MANIFEST.json") for step in (KILLED, EVICTED)}
    try:
        with (
            versitygw.running(folder / "s3") as s3,
            proxied(s3, faults(*second.values())) as proxy,
            controlplane.running(folder / "plane", crds=controlplane.CRDS, scheduler=True) as plane,
            node.running(plane, folder / "node") as real_node,
        ):
            node.compile_ahead("selfevo_trainer.main", *HEAVY_MODULES, "transformers.models.qwen3.modeling_qwen3")
            api, namespace = plane.admin, plane.make_namespace("research")
            api.create(secret(s3), namespace)
            endpoint = f"http://{real_node.expose(int(proxy.endpoint.rpartition(':')[2]))}"
            manifest = small_run(s3, endpoint, namespace, folder)
            manifest["spec"]["pods"] |= {"image": IMAGE, "imagePullPolicy": "Never"}
            with operating(plane, folder, [namespace]) as operator, recording(api, namespace) as pods:
                led = Life(api, namespace, manifest, pods, s3, operator, real_node, folder)
                api.create(manifest)
                with led.reported_on_failure():
                    _kill(led, second[KILLED])
                    _restart(led)
                    _evict(led, second[EVICTED])
                    led.until(lambda: phase_of(led.run) == "Succeeded")
                    led.until(lambda: any("run Succeeded" in text for _, text in _events(led)))
                yield led
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


def _kill(life: Life, second: Hold) -> None:
    """The trainer, as the kernel does it when memory runs out, while its second checkpoint lies there uncommitted."""
    life.until(lambda: second.met)
    (pod,) = life.pods.of(KILLED)
    assert life.node.kill_container(pod)
    second.let_go(lost=True)


def _restart(life: Life) -> None:
    """The operator is killed while a rollout runs, and is away while the rollout ends."""
    # Reported last: one that is killed before it has reported does not come back to it.
    life.until(lambda: any("solver-rollout-1 started" in text for _, text in _events(life)))
    life.operator.kill()
    life.until(lambda: ended(life.jobs("solver-rollout-1")[0]))
    assert not life.jobs(EVICTED)
    life.operator.run()


def _evict(life: Life, second: Hold) -> None:
    """The pod is asked to end while its second checkpoint is on its way to the store."""
    life.until(lambda: second.met)
    (pod,) = life.pods.of(EVICTED)
    name, namespace = pod["metadata"]["name"], life.namespace
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    life.api.request("POST", life.api.path("pods", namespace, name, "eviction"), eviction)
    # The node says so right before it sends SIGTERM.
    about = f"involvedObject.name={name},reason=Killing"
    life.until(lambda: life.api.list("events", namespace, fields=about))
    second.let_go()


def _result(pod: Object) -> Object:
    """The PhaseResult that it left."""
    return json.loads(trainer(pod)["message"])


def _steps_trained(pods: PodRecord, pod: Object) -> list[int]:
    """From the step that it began with to the last one that it finished, as its log has them."""
    done = [line["done"] for line in pods.progress(pod) if line["doing"] == "training"]
    return [step for step, _ in itertools.groupby(done)]  # the last one is reported twice: as a step, and as the end


def test_every_step_is_done_by_one_job_and_the_run_says_so(life: Life):
    assert phase_of(life.run) == "Succeeded", life.pods.tell()
    assert conditions(life.run) == {"Ready": "AllStepsSucceeded", "Complete": "AllStepsSucceeded"}
    assert sorted(map(_step, jobs(life.api, life.namespace))) == sorted(STEPS)
    status = status_of(life.run)
    assert [(s["name"], s["state"], s["attempts"], s["reused"]) for s in status["steps"]] == [
        (name, "Succeeded", 1, False) for name in STEPS
    ]
    assert {(a["step"], a["state"], a["exitCode"]) for a in status["attempts"]} == {(s, "Succeeded", 0) for s in STEPS}
    assert [iteration["iteration"] for iteration in status["iterations"]] == [0, 1]
    assert all(0 <= iteration["score"] <= 1 for iteration in status["iterations"])
    # What the evicted pod's successor measured came back over the termination message.
    assert {"startup", "training", "generation"} <= set(
        next(s for s in status["steps"] if s["name"] == EVICTED)["timings"]
    )

    recorded = _events(life)
    for step in STEPS:
        assert sum(f"{step} started" in text for _, text in recorded) == 1, recorded
        assert sum(f"{step} is done" in text for _, text in recorded) == 1, recorded
    assert "run Succeeded: 5 of 5 steps done" in recorded[-1][1]
    assert not [text for reason, text in recorded if reason in ("AttemptFailed", "StepFailed")]
    assert life.operator.output.count("Traceback") == 0


def test_the_killed_pod_counts_and_its_successor_goes_on_from_the_checkpoint(life: Life):
    killed, successor = life.pods.of(KILLED)
    assert (trainer(killed)["exitCode"], trainer(successor)["exitCode"]) == (137, 0)
    assert _result(successor)["outcome"] == "committed" and _result(successor)["resumedFrom"] == 1
    # It went on while its second checkpoint was being uploaded, which was never committed: what came after the first
    # one was computed twice.
    assert _steps_trained(life.pods, killed)[:3] == [0, 1, 2]
    assert _steps_trained(life.pods, successor) == [1, 2, 3]
    (job,) = life.jobs(KILLED)
    assert condition(job, "Complete") and job["status"]["failed"] == 1


def test_the_evicted_pod_saves_ends_with_143_and_is_replaced_uncounted(life: Life):
    evicted, successor = life.pods.of(EVICTED)
    assert (trainer(evicted)["exitCode"], trainer(successor)["exitCode"]) == (143, 0)
    assert condition(evicted, "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"
    result = _result(evicted)
    assert (result["outcome"], result["reason"]) == ("terminated", "Terminated")
    # Training goes on beside the second checkpoint's upload until the third one has to wait for it.
    stopped = r"stopped on request (after step [23]|in step [34]) of 4; the checkpoint is committed"
    found = re.search(stopped, result["message"])
    assert found is not None, result["message"]
    saved = int(found[1][-1]) - found[1].startswith("in")
    assert _result(successor)["outcome"] == "committed" and _result(successor)["resumedFrom"] == saved
    assert _steps_trained(life.pods, successor) == list(range(saved, 5))
    (job,) = life.jobs(EVICTED)
    assert condition(job, "Complete") and not job["status"].get("failed")


def test_shards_meet_in_the_store(life: Life):
    shards = life.pods.of("solver-rollout-1")
    assert len(shards) == 2
    outcomes = [_result(pod)["outcome"] for pod in shards]
    assert "committed" in outcomes and set(outcomes) <= {"committed", "shard", "found"}


def test_pods_are_restricted_and_the_namespace_takes_no_others(life: Life):
    assert len(life.pods.all) == 8
    for pod in life.pods.all:
        assert violations(pod["spec"]) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
    labels = life.api.get("namespaces", life.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    loose = {"containers": [{"name": "trainer", "image": IMAGE}]}
    with pytest.raises(ApiError, match="PodSecurity"):
        life.api.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": loose}, life.namespace
        )


def test_the_model_is_whole_and_can_be_used(life: Life):
    assert "5 of 5 steps are in the store, 0 damaged" in life.selfevo("artifacts", "verify", "run.yaml")
    path = life.selfevo("artifacts", "path", "run.yaml", "--iteration", "1").strip()
    assert path.startswith(status_of(life.run)["iterations"][1]["modelUri"])
    assert not [key for key in _keys(life) if "/checkpoints/" in key], "checkpoints of steps that are done"
    life.selfevo("artifacts", "fetch", "run.yaml", "--iteration", "1", "--to", "model")

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(life.folder / "model")
    model = AutoModelForCausalLM.from_pretrained(life.folder / "model")
    asked = [{"role": "user", "content": "37 + 48"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = tokenizer.decode(model.generate(**prompt, max_new_tokens=32, do_sample=False)[0], skip_special_tokens=True)
    assert "\\boxed{" in answer
    trained, base = ((folder / "model.safetensors").read_bytes() for folder in (life.folder / "model", BASE))
    assert trained != base and len(trained) == len(base)


def test_the_store_alone_knows_the_run(life: Life):
    metadata = life.run["metadata"]
    there = newest_records(key.removeprefix("selfevo/") for key in _keys(life))
    key = there[life.namespace, metadata["name"]]
    data = life.s3.client.get_object(Bucket=_bucket(life), Key=f"selfevo/{key}")["Body"].read()
    record = parsed(data, key, key)
    assert len(there) == 1 and record.uid == metadata["uid"]
    planned = {step.name: step.key for step in plan_of(record.spec, record.run.status).steps}
    assert planned == {step["name"]: step["key"] for step in status_of(life.run)["steps"]}


def _bucket(life: Life) -> str:
    return str(life.manifest["spec"]["storage"]["uri"].split("/")[2])


def _keys(life: Life) -> list[str]:
    pages = life.s3.client.get_paginator("list_objects_v2").paginate(Bucket=_bucket(life))
    return [each["Key"] for page in pages for each in page.get("Contents", [])]
