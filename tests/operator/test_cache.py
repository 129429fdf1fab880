"""The cache: newer wins, what is deleted stays deleted, lists mend what events missed."""

from __future__ import annotations

from harness.objects import RUN_UID, job_object, run_object
from selfevo_operator.cache import Cache, Key, News

DEMO = Key("lab", "demo")


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache = Cache()
    assert cache.put_run(run_object(5)) == DEMO
    assert cache.put_run(run_object(5)) is None
    assert cache.put_run(run_object(4, spec={"seed": 9})) is None
    assert cache.runs[DEMO].document()["spec"] == {"seed": 1}
    assert cache.put_run(run_object(6, spec={"seed": 9})) == DEMO
    assert cache.runs[DEMO].document()["spec"] == {"seed": 9}


def test_versions_are_compared_as_numbers() -> None:
    cache = Cache()
    cache.put_run(run_object(9))
    assert cache.put_run(run_object(10)) == DEMO


def test_what_is_deleted_does_not_come_back_from_an_old_list() -> None:
    cache = Cache()
    cache.put_run(run_object(5))
    cache.put_job(job_object(5))
    assert cache.drop_run(DEMO, run_object()["metadata"]["uid"]) == DEMO
    assert cache.drop_job(job_object()) == DEMO
    assert cache.replace_runs([run_object(5)], 7, None) == set()
    assert cache.replace_jobs([job_object(5)], 7, None) == set()
    assert cache.runs == {} and cache.job_count() == 0


def test_a_namesake_takes_the_place_and_the_late_end_of_its_forerunner_does_not_drop_it() -> None:
    cache = Cache()
    cache.put_run(run_object(5, uid="old"))
    assert cache.put_run(run_object(8, uid="new")) == DEMO
    assert cache.drop_run(DEMO, "old") is None
    assert cache.runs[DEMO].uid == "new"
    assert cache.put_run(run_object(9, uid="old")) is None


def test_a_forerunner_that_a_late_watch_tells_of_does_not_take_the_place_of_its_namesake() -> None:
    cache = Cache()
    assert cache.replace_runs([run_object(8, uid="new")], 9, None) == {DEMO}
    assert cache.put_run(run_object(5, uid="old")) is None
    assert cache.drop_run(DEMO, "old") is None
    assert cache.put_run(run_object(10, uid="new")) == DEMO
    assert cache.runs[DEMO].uid == "new"


def test_jobs_are_found_by_the_uid_of_the_run_and_not_by_its_name() -> None:
    cache = Cache()
    cache.put_job(job_object(1, uid="a", owner="old"))
    cache.put_job(job_object(1, uid="b", owner="new"))
    assert [job.uid for job in cache.jobs_of("new")] == ["b"]


def test_a_job_that_nobody_controls_is_nobodys() -> None:
    cache = Cache()
    assert cache.put_job(job_object(owner=None)) is None
    assert cache.job_count() == 0


def test_a_job_that_is_taken_from_its_run_is_forgotten() -> None:
    cache = Cache()
    cache.put_job(job_object(1))
    assert cache.put_job(job_object(2, owner=None)) == News(DEMO)
    assert (cache.job_count(), cache.jobs_of(RUN_UID)) == (0, [])
    assert cache.put_job(job_object(1)) is None, "what is older does not give it back"
    assert cache.put_job(job_object(3)) == News(DEMO)
    assert cache.job_count() == 1


def test_a_list_drops_what_it_does_not_hold_but_not_what_is_younger_than_it() -> None:
    cache = Cache()
    cache.put_job(job_object(5, uid="old"))
    cache.put_job(job_object(12, uid="young"))
    assert cache.replace_jobs([], 10, None) == {DEMO}
    assert [job.uid for job in cache.jobs_of(job_object()["metadata"]["ownerReferences"][0]["uid"])] == ["young"]


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    cache = Cache()
    cache.put_run(run_object(5))
    cache.put_job(job_object(5))
    assert cache.replace_runs([], 10, "elsewhere") == cache.replace_jobs([], 10, "elsewhere") == set()
    assert cache.replace_runs([], 10, "lab") == {DEMO}


def test_a_list_tells_only_what_is_news() -> None:
    cache = Cache()
    cache.put_run(run_object(5))
    other = run_object(6, uid="o", name="other")
    assert cache.replace_runs([run_object(5), other], 10, None) == {Key("lab", "other")}


def test_a_change_that_nobody_looks_at_is_no_news_and_is_kept_all_the_same() -> None:
    cache = Cache()
    cache.put_job(job_object(5, status={"active": 1}))
    assert cache.put_job(job_object(6, status={"active": 2})) is None
    assert cache.jobs_of(job_object()["metadata"]["ownerReferences"][0]["uid"])[0].version == 6
    assert cache.put_job(job_object(7, status={"active": 2, "ready": 1})) == News(DEMO, pressing=False)
    assert cache.put_job(job_object(8, status={"active": 2, "ready": 2, "failed": 1})) == News(DEMO)
    assert cache.put_job(job_object(9, status={"active": 1, "ready": 1, "failed": 1})) == News(DEMO)
