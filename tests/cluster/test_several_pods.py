"""A model shared out over two pods of two processes each, on the real control plane: the operator's own Job and
Service, a real kubelet, a cluster's DNS, FSDP2 on gloo. One pod is killed, its Job goes on from the checkpoint of four
processes, and the run is then moved to one process. Beside it another run has one process from the start.

One life, which the fixture leads; the tests say what it must have been. What is different in its pods is in
harness/podsite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import exact, podsite, versitygw
from harness.cluster import controlplane, node
from harness.cluster.arithmetic import BASE, LIMIT_S, secret, small_run
from harness.cluster.client import Api
from harness.cluster.cluster_runs import RUNS, eventually, jobs, phase_of, status_of, step
from harness.cluster.manifests import trainer
from harness.cluster.node import GPU, IMAGE, Node
from harness.cluster.operator_process import operating
from harness.cluster.podrecord import PodRecord, recording
from harness.gotools import ToolUnavailable
from harness.holding import Hold, faults
from harness.s3proxy import proxied
from harness.versitygw import S3Server
from runs import HEAVY_MODULES, merged
from selfevo_contract.artifacts import checkpoint_prefix
from selfevo_store import open_store, read_file, read_manifest

pytestmark = pytest.mark.slow
Object = dict[str, Any]

TRAIN = "challenger-train-1"
STEPS = 5
SHARED, ALONE = "shared", "alone"
"""The two runs, and their places in the bucket: neither finds what the other has made."""
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass
class Life:
    """The two runs, and what was seen of them on the way."""

    api: Api
    namespace: str
    bucket: str
    pods: PodRecord
    s3: S3Server
    node: Node
    seen: dict[str, Object] = field(default_factory=dict)
    """Of the shared run: its Job of two pods when one had been killed (`killed`), and that of one pod (`moved`)."""
    checkpoint: dict[str, int] = field(default_factory=dict)
    """Files of the one that the second attempt went on from, with their bytes."""

    def run(self, name: str) -> Object:
        return self.api.get(RUNS, name, self.namespace)

    def done(self, name: str) -> bool:
        return step(self.run(name), TRAIN).get("state") == "Succeeded"

    def until(self, true: Callable[[], object]) -> None:
        def there() -> object:
            assert "Failed" not in (phase_of(self.run(SHARED)), phase_of(self.run(ALONE)))
            return true()

        eventually(there, LIMIT_S)

    def pods_of(self, run: str) -> list[Object]:
        return [pod for pod in self.pods.of(TRAIN) if pod["metadata"]["labels"]["selfevo.dev/run"] == run]

    def attempt(self, number: int) -> list[Object]:
        """The pods of the shared run's attempts: two, two, and one."""
        pods = self.pods_of(SHARED)[2 * number : 2 * number + 2]
        return sorted(pods, key=lambda pod: pod["metadata"]["labels"].get(INDEX, ""))

    def change(self, **changes: Any) -> None:
        self.api.patch(RUNS, SHARED, {"spec": changes}, self.namespace)

    def prefix(self, run: str) -> str:
        return f"{self.namespace}/{TRAIN[:-2]}/{step(self.run(run), TRAIN)['key']}"

    def files(self, run: str, below: str = "") -> dict[str, bytes]:
        """What a commit of the step holds."""
        prefix = below or self.prefix(run)
        with pytest.MonkeyPatch.context() as keys:
            for name, value in self.s3.environment.items():
                keys.setenv(name, value)
            store = open_store(f"s3://{self.bucket}/{run}", endpoint=self.s3.endpoint, region=versitygw.REGION)
            manifest = read_manifest(store, prefix)
            assert manifest is not None, f"{prefix} of {run} is not committed"
            return {file.name: read_file(store, prefix, manifest, file.name) for file in manifest.files}


def manifest_of(run: str, made: Object) -> Object:
    """``made`` under this name, in a place of its own, its pods as podsite has them."""
    packages = [str(node.inside(each)) for each in node.PACKAGES]
    ours = [node.inside(Path(podsite.__file__).parent), node.inside(Path(exact.__file__).parents[1])]
    site = {"name": "PYTHONPATH", "value": ":".join([*map(str, ours), *packages])}
    pods = {"image": IMAGE, "imagePullPolicy": "Never", "env": [*made["spec"]["pods"]["env"], site]}
    grpo = {"maxSteps": STEPS, "promptsPerStep": 2, "perDeviceTrainBatchSize": 4, "learningRate": 1e-3}
    over: Object = {"pods": pods, "challenger": {"grpo": grpo, "checkpointEvery": 1}}
    over["rollout"] = {"pods": {"nodeSelector": {"kubernetes.io/hostname": "none"}}}  # what comes next does not begin
    over["storage"] = {"uri": made["spec"]["storage"]["uri"].rpartition("/")[0] + f"/{run}"}
    if run == SHARED:
        over["challenger"] |= {"grpo": {**grpo, "sharding": "fsdp"}, "pods": layout(2, 2)}
    spec = merged(made["spec"], over)
    del spec["evaluation"]
    return {**made, "metadata": {**made["metadata"], "name": run}, "spec": spec}


def layout(nodes: int, gpus: int) -> Object:
    return {"nodes": nodes, "resources": {"limits": {GPU: gpus}}}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("several-pods")
    place = f"/{SHARED}/[^/]+/{TRAIN[:-2]}/[^/]+/checkpoints"
    second, third = (Hold("PUT", f"{place}/0*{update}/MANIFEST.json") for update in (2, 3))
    try:
        with (
            versitygw.running(folder / "s3") as s3,
            proxied(s3, faults(second, third)) as proxy,
            controlplane.running(folder / "plane", crds=controlplane.CRDS, scheduler=True) as plane,
            node.running(plane, folder / "node") as real_node,
        ):
            node.compile_ahead("selfevo_trainer.main", *HEAVY_MODULES, "transformers.models.qwen3.modeling_qwen3")
            real_node.count_gpus(4)
            api, namespace = plane.admin, plane.make_namespace("research")
            api.create(secret(s3), namespace)
            made = small_run(
                s3, f"http://{real_node.expose(int(proxy.endpoint.rpartition(':')[2]))}", namespace, folder
            )
            bucket = made["spec"]["storage"]["uri"].split("/")[2]
            with operating(plane, folder, [namespace]) as operator, recording(api, namespace) as pods:
                led = Life(api, namespace, bucket, pods, s3, real_node)
                for run in (SHARED, ALONE):
                    api.create(manifest_of(run, made))
                try:
                    _kill(led, second)
                    _move(led, third)
                    led.until(lambda: led.done(SHARED) and led.done(ALONE))
                except BaseException:
                    print("-- runs", *(json.dumps(status_of(led.run(run)), indent=1) for run in (SHARED, ALONE)))
                    print("-- operator", operator.tail(3000), pods.tell(), real_node.tail(), sep="\n")
                    raise
                yield led
    except ToolUnavailable as reason:
        pytest.skip(str(reason))


def _kill(life: Life, second: Hold) -> None:
    """All processes of one pod of two, as the kernel does it when memory runs out, once a checkpoint is committed and
    all parts of the next one are uploaded."""
    life.until(lambda: second.met)
    (killed,) = [pod for pod in life.pods_of(SHARED) if pod["metadata"]["labels"][INDEX] == "1"]
    assert life.node.kill_container(killed) >= 3  # the launcher and its two ranks
    second.let_go()


def _move(life: Life, third: Hold) -> None:
    """The run is held while its next attempt saves a checkpoint, and goes on in one process."""
    life.until(lambda: third.met)
    (job,) = jobs(life.api, life.namespace, SHARED)
    life.seen["killed"] = job
    prefix = checkpoint_prefix(life.prefix(SHARED), 2)
    life.checkpoint = {name: len(data) for name, data in life.files(SHARED, prefix).items()}
    life.change(suspend=True)
    before = life.pods_of(SHARED)
    about = f"involvedObject.name={before[-1]['metadata']['name']},reason=Killing"
    life.until(lambda: life.api.list("events", life.namespace, fields=about))  # right before it gets SIGTERM
    third.let_go()
    life.until(lambda: phase_of(life.run(SHARED)) == "Suspended")
    life.change(suspend=False, challenger={"pods": layout(1, 1), "grpo": {"sharding": "none"}})
    life.until(lambda: len(life.pods_of(SHARED)) > len(before))
    (life.seen["moved"],) = jobs(life.api, life.namespace, SHARED)


def _result(pod: Object) -> Object:
    """The PhaseResult that it left."""
    return json.loads(trainer(pod)["message"])


def _environment(job: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_two_pods_of_two_processes_meet_by_name(life: Life):
    job = life.seen["killed"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    given = _environment(job)
    assert (given["SELFEVO_NODES"], given["SELFEVO_PROCESSES"]) == ("2", "2")
    (service,) = life.api.list("services", life.namespace)
    assert given["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert service["spec"]["clusterIP"] == "None"


def test_a_pod_that_is_killed_ends_the_other_and_is_counted_once(life: Life):
    first, killed = life.attempt(0)
    assert (trainer(first)["exitCode"], trainer(killed)["exitCode"]) == (143, 137)
    assert (_result(first)["reason"], _result(first)["message"]) == ("PeerFailed", "pod 1: it is gone without a word")
    assert life.seen["killed"]["status"]["failed"] == 1
    assert len(life.pods_of(SHARED)) == 5  # two, two that came after them, and one


def test_the_checkpoint_is_the_shares_of_four_processes(life: Life):
    sizes = [
        sum(size for name, size in life.checkpoint.items() if name.startswith(f"shard-0000{number}-"))
        for number in (1, 2, 3, 4)
    ]
    assert all(0.2 < size / sum(sizes) < 0.3 for size in sizes), life.checkpoint
    assert sum(name.endswith(".safetensors") for name in life.checkpoint) == 12  # weights and two kinds of moments


def test_both_pods_go_on_from_it_and_save_another_when_the_run_is_held(life: Life):
    pods = life.attempt(1)
    assert [trainer(pod)["exitCode"] for pod in pods] == [143, 143]
    # Training goes on beside the upload that is held until the next checkpoint has to wait for it.
    stopped = r"stopped on request (after step [34]|in step [45]) of 5; the checkpoint is committed"
    for pod in pods:
        assert _result(pod)["reason"] == "Terminated"
        assert re.fullmatch(stopped, _result(pod)["message"])
    assert [line["done"] for line in life.pods.progress(pods[0]) if line["doing"] == "training"][:2] == [2, 3]


def test_the_run_goes_on_in_one_process_and_ends_with_the_weights_of_one(life: Life):
    from safetensors.numpy import load, load_file

    given = _environment(life.seen["moved"])
    assert life.seen["moved"]["spec"]["completions"] == 1
    assert not {"SELFEVO_NODES", "SELFEVO_PROCESSES", "MASTER_ADDR"} & given.keys()
    (moved,) = life.attempt(2)
    where, number = re.findall(r"(after|in) step (\d)", _result(life.attempt(1)[0])["message"])[0]
    saved = int(number) - (where == "in")
    assert (_result(moved)["outcome"], _result(moved)["resumedFrom"]) == ("committed", saved)
    (alone,) = life.pods_of(ALONE)
    assert _result(alone)["outcome"] == "committed" and "resumedFrom" not in _result(alone)
    # How it is computed is no input of the step, so both have the same key; that is why each has a place of its own.
    assert step(life.run(SHARED), TRAIN)["key"] == step(life.run(ALONE), TRAIN)["key"]
    several, one = (load(life.files(run)["model/model.safetensors"]) for run in (SHARED, ALONE))
    assert exact.apart(one, several, load_file(BASE / "model.safetensors")) < exact.TOLERANCE


def test_the_run_counts_one_attempt_and_no_failure_of_the_step(life: Life):
    done = step(life.run(SHARED), TRAIN)
    assert (done["state"], done["attempts"], done.get("failures", 0)) == ("Succeeded", 1, 0)
