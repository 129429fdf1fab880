"""The stand-in for the kubelet plays what it is set to, and a real Job controller believes it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness.cluster.controlplane import ControlPlane
from harness.cluster.kubelet_standin import FakeKubelet, playing
from harness.cluster.lives import Life
from harness.cluster.manifests import condition, ended, job, pod, trainer

pytestmark = pytest.mark.slow


class TestKubeletStandIn:
    @pytest.fixture
    def kubelet(self, control_plane: ControlPlane, namespace: str) -> Iterator[FakeKubelet]:
        with playing(control_plane.admin, namespace, hurry=True) as kubelet:
            yield kubelet

    def run(self, kubelet: FakeKubelet, manifest: dict) -> tuple[dict, list[dict]]:
        """The Job at its end, and its pods, the oldest first."""
        kubelet.api.create(manifest, kubelet.namespace)
        name = manifest["metadata"]["name"]
        found = kubelet.api.wait("jobs", name, kubelet.namespace, until=ended)
        pods = kubelet.api.list("pods", kubelet.namespace, f"job-name={name}")
        order = [lived.name for lived in kubelet.lived]
        return found, sorted(pods, key=lambda p: order.index(p["metadata"]["name"]))

    def test_a_good_pod_commits_once_and_a_second_job_for_the_key_finds_it(self, kubelet: FakeKubelet):
        outcomes = []
        for name in ("first", "second"):
            done, (pod,) = self.run(kubelet, job(name, key="k1", phase="evaluate"))
            assert condition(done, "Complete")
            state = trainer(pod)
            assert (pod["status"]["phase"], state["is"], state["exitCode"]) == ("Succeeded", "terminated", 0)
            result = json.loads(state["message"])
            assert result["metrics"] == {"mean": 0.7, "greedy": 0.8} and result["key"] == "k1"
            outcomes.append(result["outcome"])
        assert outcomes == ["committed", "found"]
        assert kubelet.trained == ["k1"] and set(kubelet.committed) == {"k1"}

    def test_failures_by_exit_code_and_by_memory_count_and_then_it_goes_well(self, kubelet: FakeKubelet):
        kubelet.script["train"] = [Life(exit_code=3), Life(oom=True)]
        done, pods = self.run(kubelet, job("train", backoffLimit=4))
        assert condition(done, "Complete") and done["status"]["failed"] == 2
        assert [(trainer(p)["exitCode"], trainer(p)["reason"]) for p in pods] == [
            (3, "Error"),
            (137, "OOMKilled"),
            (0, "Completed"),
        ]
        assert json.loads(trainer(pods[0])["message"])["reason"] == "ServiceFailed"
        assert "message" not in trainer(pods[1])
        assert kubelet.trained == ["train"]

    def test_wrong_input_fails_the_job_at_once(self, kubelet: FakeKubelet):
        kubelet.script["wrong"] = [Life(exit_code=2)]
        failed, pods = self.run(kubelet, job("wrong"))
        assert condition(failed, "Failed")["reason"] == "PodFailurePolicy" and len(pods) == 1
        assert kubelet.trained == []

    def test_a_pod_that_dies_after_its_commit_is_not_trained_again(self, kubelet: FakeKubelet):
        kubelet.script["late"] = [Life(exit_code=1, commits=True, message=False)]
        _, pods = self.run(kubelet, job("late"))
        assert json.loads(trainer(pods[1])["message"])["outcome"] == "found"
        assert kubelet.trained == ["late"]

    def test_a_lost_message_is_lost(self, kubelet: FakeKubelet):
        kubelet.script["mute"] = [Life(message=False)]
        done, (pod,) = self.run(kubelet, job("mute"))
        assert condition(done, "Complete") and "message" not in trainer(pod)
        assert kubelet.trained == ["mute"]

    def test_shards_commit_the_step_when_the_last_is_there(self, kubelet: FakeKubelet):
        kubelet.script["rollout/1"] = [Life(hangs=True)]
        kubelet.api.create(job("rollout", shards=3, phase="solver-rollout"), kubelet.namespace)
        kubelet.wait_for(lambda: sum(p.exit_code == 0 for p in kubelet.lived) == 2)
        assert kubelet.committed == {}
        kubelet.release("rollout")
        kubelet.api.wait("jobs", "rollout", kubelet.namespace, until=ended)
        messages = [json.loads(trainer(p)["message"]) for p in kubelet.api.list("pods", kubelet.namespace)]
        assert sorted(m["outcome"] for m in messages) == ["committed", "shard", "shard"]
        assert sorted(kubelet.trained) == ["rollout/0", "rollout/1", "rollout/2"]

    def test_pods_that_train_together_commit_once(self, kubelet: FakeKubelet):
        done, pods = self.run(kubelet, job("multi", shards=2))
        assert condition(done, "Complete")
        assert sorted(json.loads(trainer(p)["message"])["outcome"] for p in pods) == ["committed", "found"]
        assert kubelet.trained == ["multi"]

    def test_an_evicted_pod_ends_with_143_and_is_replaced_without_counting(self, kubelet: FakeKubelet):
        kubelet.script["evicted"] = [Life(evicted=True)]
        done, _ = self.run(kubelet, job("evicted", backoffLimit=0))
        assert condition(done, "Complete")
        assert [lived.exit_code for lived in kubelet.lived] == [143, 0]

    def test_a_deleted_job_takes_its_hanging_pod_with_it(self, kubelet: FakeKubelet):
        kubelet.script["hangs"] = [Life(hangs=True)]
        kubelet.api.create(job("hangs"), kubelet.namespace)
        name = kubelet.wait_running("hangs")
        kubelet.api.delete("jobs", "hangs", kubelet.namespace)
        kubelet.api.wait("pods", name, kubelet.namespace, until=lambda pod: pod is None)
        assert [lived.exit_code for lived in kubelet.lived] == [143] and kubelet.trained == []

    @pytest.mark.parametrize(
        ("life", "shows"),
        [
            (Life(image_error="ErrImagePull"), lambda pod: "ErrImagePull" in json.dumps(pod["status"])),
            (Life(unschedulable="0/3 nodes have a GPU"), lambda pod: "GPU" in json.dumps(pod["status"])),
        ],
    )
    def test_a_pod_that_cannot_start_says_why_and_can_be_deleted(self, kubelet: FakeKubelet, life: Life, shows):
        kubelet.script["stuck"] = [life]
        kubelet.api.create(pod("stuck"), kubelet.namespace)

        found = kubelet.api.wait("pods", "stuck", kubelet.namespace, until=shows)
        assert found["status"]["phase"] == "Pending"
        kubelet.api.delete("pods", "stuck", kubelet.namespace)
        kubelet.api.wait("pods", "stuck", kubelet.namespace, until=lambda gone: gone is None)

    def test_it_plays_on_after_the_apiserver_was_away(self, control_plane: ControlPlane, kubelet: FakeKubelet):
        kubelet.script["long"] = [Life(hangs=True)]
        kubelet.api.create(job("long"), kubelet.namespace)
        kubelet.wait_running("long")
        control_plane.stop_apiserver()
        kubelet.release("long")
        control_plane.start_apiserver()
        assert condition(kubelet.api.wait("jobs", "long", kubelet.namespace, until=ended), "Complete")
        assert kubelet.trained == ["long"] and kubelet.overlaps == []
