"""What is kept of a listed object."""

from __future__ import annotations

from harness.objects import job_object, run_object
from selfevo_operator.cache import run_sight
from selfevo_operator.kube import _slim
from selfevo_operator.observe import job_sight


def test_a_listed_job_loses_its_template_and_nothing_that_is_looked_at() -> None:
    job = job_object(5, status={"ready": 1}, managedFields=[{"manager": "x"}])
    job["spec"] = {"suspend": True, "template": {"spec": {"containers": [{}]}}}
    slim = _slim(job)
    assert "template" not in slim["spec"] and "managedFields" not in slim["metadata"]
    assert job_sight(slim) == job_sight(job)


def test_a_listed_run_keeps_its_spec_and_status() -> None:
    run = run_object(5, status={"phase": "Running"})
    assert run_sight(_slim(run)) == run_sight(run)
