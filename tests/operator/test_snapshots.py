"""Jobs and pods as attempts: what a Job's conditions, its pods' ends and their waiting come to."""

from __future__ import annotations

from typing import Any

import pytest

from harness.objects import KEY, ended, job_object, pod, result
from selfevo_core.attempts import Blocker, ObservedAttempt
from selfevo_operator.observed.snapshots import Evidence, attempt_of, evidence_of, job_snapshot


def see(job: dict[str, Any], *pods: dict[str, Any], template: str = "") -> ObservedAttempt:
    return attempt_of(job_snapshot(job), evidence_of(pods), template)


def test_a_new_job_is_pending_and_named_by_its_labels() -> None:
    attempt = see(job_object(status={"active": 1}))
    assert (attempt.state, attempt.step, attempt.key, attempt.number) == ("Pending", "evaluate-0", KEY, 1)
    assert attempt.log == "kubectl logs -n lab job/demo-evaluate-0-aaaaaaaa-1 -c trainer"


@pytest.mark.parametrize(
    "status",
    [
        {"ready": 1},
        {"active": 1, "failed": 1},
        {"active": 1, "succeeded": 1},
        {"active": 0, "ready": 0, "uncountedTerminatedPods": {"succeeded": ["uid"]}},  # ended, and not counted yet
        {"active": 1, "ready": 0, "uncountedTerminatedPods": {"failed": ["uid"]}},
    ],
)
def test_a_job_of_which_something_has_run_is_running(status: dict[str, Any]) -> None:
    assert see(job_object(status=status)).state == "Running"


def test_a_complete_job_succeeded_with_what_its_pod_reported() -> None:
    attempt = see(job_object(status=ended("Complete")), pod(0, result(metrics={"mean": 0.5})))
    assert (attempt.state, attempt.exit_code) == ("Succeeded", 0)
    assert attempt.result is not None and attempt.result.metrics == {"mean": 0.5}
    assert attempt.finished_at is not None and attempt.finished_at.minute == 5


def test_of_an_indexed_job_the_pod_that_committed_the_step_tells() -> None:
    pods = [pod(0, result("shard"), at="3"), pod(0, result("committed"), at="1"), pod(0, result("found"), at="4")]
    attempt = see(job_object(status=ended("Complete")), *pods)
    assert attempt.result is not None and attempt.result.outcome == "committed"


@pytest.mark.parametrize("message", ["", "Killed", '{"phase": "evaluate"}', "x" * 5000])
def test_a_message_that_is_no_result_is_none(message: str) -> None:
    attempt = see(job_object(status=ended("Complete")), pod(0, message))
    assert (attempt.state, attempt.result) == ("Succeeded", None)


def test_a_result_of_another_step_is_none() -> None:
    forged = result(metrics={"mean": 1.0}).replace(KEY, "b" * 64)
    assert see(job_object(status=ended("Complete")), pod(0, forged)).result is None


def test_the_pod_failure_policy_says_the_code_also_when_the_pod_is_gone() -> None:
    message = "Container trainer for pod lab/p failed with exit code 4 matching FailJob rule at index 0"
    attempt = see(job_object(status=ended("Failed", "PodFailurePolicy", message, failed=1)))
    assert (attempt.state, attempt.exit_code, attempt.message) == ("Failed", 4, message)


def test_the_failed_pod_tells_in_its_own_words() -> None:
    message = "Container trainer for pod lab/p failed with exit code 2 matching FailJob rule at index 0"
    failed = result("failed", exitCode=2, reason="InvalidInput", message="model.uri is wrong")
    attempt = see(job_object(status=ended("Failed", "PodFailurePolicy", message)), pod(3, "busy"), pod(2, failed))
    assert attempt.result is not None and attempt.result.message == "model.uri is wrong"


def test_a_job_that_used_up_its_tries_counts_them() -> None:
    status = ended("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit", failed=4)
    attempt = see(job_object(status=status), pod(3, "first", at="1"), pod(3, "store is down\n", at="2"))
    assert (attempt.failures, attempt.exit_code, attempt.message) == (4, 3, "store is down")


def test_out_of_memory_is_reported() -> None:
    status = ended("Failed", "BackoffLimitExceeded", failed=1)
    assert see(job_object(status=status), pod(137, reason="OOMKilled")).reason == "OOMKilled"


def test_an_eviction_says_why_instead_of_the_log() -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"}
    status = ended("Failed", "BackoffLimitExceeded", failed=1)
    attempt = see(job_object(status=status), pod(137, "log line", conditions=[condition]))
    assert attempt.message == "drain"


def test_a_deadline_is_final_and_names_the_field() -> None:
    status = ended("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    attempt = see(job_object(status=status), pod(143))
    assert (attempt.reason, attempt.exit_code) == ("DeadlineExceeded", None)
    assert attempt.message.endswith("raise pods.activeDeadlineSeconds")


def test_a_suspended_job_waits_in_its_queue_and_nothing_is_wrong() -> None:
    job = job_object(labels={"kueue.x-k8s.io/queue-name": "team-a"})
    job["spec"]["suspend"] = True
    attempt = see(job)
    assert attempt.state == "Pending" and attempt.waiting is not None
    assert (attempt.waiting.reason, attempt.waiting.stuck) == ("Queued", False)
    assert "team-a" in attempt.waiting.message


@pytest.mark.parametrize("ran", [{"failed": 1}, {"succeeded": 1}, {"uncountedTerminatedPods": {"failed": ["uid"]}}])
def test_a_job_that_its_queue_sends_away_waits_again(ran: dict[str, Any]) -> None:
    job = job_object(labels={"kueue.x-k8s.io/queue-name": "team-a"}, status={"ready": 1, **ran})
    job["spec"]["suspend"] = True
    assert see(job).state == "Running"  # its pods are saving
    job["status"]["ready"] = 0
    attempt = see(job)
    assert attempt.state == "Pending" and attempt.waiting is not None and attempt.waiting.reason == "Queued"


def test_an_image_that_is_not_there_is_a_reason_for_a_person() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}
    attempt = see(job_object(status={"active": 1}), pod(containerStatuses=[{"name": "trainer", "state": state}]))
    assert attempt.waiting is not None
    assert (attempt.waiting.reason, attempt.waiting.stuck) == ("ImagePullBackOff", True)
    assert "Back-off pulling image" in attempt.waiting.message


def test_a_job_whose_next_pod_does_not_start_waits_as_with_its_first() -> None:
    waiting = pod(containerStatuses=[{"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff"}}}])
    attempt = see(job_object(status={"active": 1, "failed": 1}), pod(1), waiting, template="t2")
    assert (attempt.state, attempt.outdated) == ("Pending", True)
    assert attempt.waiting is not None and attempt.waiting.reason == "ImagePullBackOff"


def test_a_full_cluster_is_none() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    attempt = see(job_object(status={"active": 1}), pod(conditions=[condition]))
    assert attempt.waiting is not None and (attempt.waiting.reason, attempt.waiting.stuck) == ("Unschedulable", False)


def test_outdated_is_another_template_where_both_are_known() -> None:
    assert see(job_object(), template="t2").outdated
    assert not see(job_object(), template="t1").outdated
    assert not see(job_object()).outdated
    assert not see(job_object(annotations={"selfevo.dev/key": KEY}), template="t2").outdated


def test_being_deleted_it_is_still_there_and_stopping() -> None:
    attempt = see(job_object(deletionTimestamp="2026-01-01T00:00:09Z", status={"ready": 1}))
    assert (attempt.live, attempt.stopping) == (True, True)


QUEUED = {"labels": {"kueue.x-k8s.io/queue-name": "team-a"}}
TEMPLATED = {"annotations": {"selfevo.dev/key": KEY, "selfevo.dev/template": "t1-p1"}}
NO_IMAGE = Blocker("ImagePullBackOff", "no such image")


@pytest.mark.parametrize(
    ("where", "evidence", "now", "outdated"),
    [
        (QUEUED, Evidence(), "t2-p1", False),  # another image: it keeps its place
        (QUEUED, Evidence(), "t2-p2", True),  # other resources: it queues for them
        (QUEUED, Evidence(waiting=NO_IMAGE), "t2-p1", True),  # it has a place, and cannot use it
        (QUEUED, Evidence(before=NO_IMAGE), "t2-p1", True),  # it had one, and could not
        (QUEUED, Evidence(waiting=NO_IMAGE), "t1-p1", False),
        ({}, Evidence(), "t2-p1", True),
    ],
)
def test_a_job_in_a_queue_keeps_its_place_unless_what_the_queue_goes_by_has_changed_or_it_is_stuck(
    where: dict[str, Any], evidence: Evidence, now: str, outdated: bool
) -> None:
    job = job_object(status={"active": 1}, **TEMPLATED, **where)
    assert attempt_of(job_snapshot(job), evidence, now).outdated == outdated


def test_a_job_of_an_older_operator_that_tells_nothing_of_its_place_keeps_it() -> None:
    job = job_object(**QUEUED)
    assert not attempt_of(job_snapshot(job), template="t2-p1").outdated


@pytest.mark.parametrize("code", [137, 143])
def test_a_pod_that_had_reported_what_no_retry_cures_decides_also_when_it_was_taken_down(code: int) -> None:
    reported = result("failed", exitCode=4, reason="NotFinite", message="lower learningRate")
    attempt = see(job_object(status=ended("Failed", "x")), pod(code, reported, at="1"), pod(3, "later", at="2"))
    assert attempt.exit_code == code
    assert attempt.result is not None and (attempt.result.exit_code, attempt.result.message) == (
        4,
        "lower learningRate",
    )
    # Its report of being stopped is no failure of its own.
    stopped = result("terminated", exitCode=143, reason="Terminated")
    attempt = see(job_object(status=ended("Failed", "x")), pod(code, stopped, at="1"), pod(3, "later", at="2"))
    assert attempt.exit_code == 3
