"""The cache: newer wins, what is deleted stays deleted, lists mend what events missed."""

from __future__ import annotations

from typing import Any

from harness.objects import RUN_UID, ended, job_object, run_object
from selfevo_operator.observed.cache import Cache, Change, Key, Listing

DEMO = Key("lab", "demo")


def listed(listing: Listing[Any], objects: list[dict[str, Any]], version: int) -> set[Key]:
    return listing.take(objects, version) | listing.end()


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
    assert listed(cache.listing_runs(None), [run_object(5)], 7) == set()
    assert listed(cache.listing_jobs(None), [job_object(5)], 7) == set()
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
    assert listed(cache.listing_runs(None), [run_object(8, uid="new")], 9) == {DEMO}
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
    assert cache.put_job(job_object(2, owner=None)) == Change(DEMO)
    assert (cache.job_count(), cache.jobs_of(RUN_UID)) == (0, [])
    assert cache.put_job(job_object(1)) is None, "what is older does not give it back"
    assert cache.put_job(job_object(3)) == Change(DEMO)
    assert cache.job_count() == 1


def test_a_list_drops_what_it_does_not_hold_but_not_what_is_younger_than_it() -> None:
    cache = Cache()
    cache.put_job(job_object(5, uid="old"))
    cache.put_job(job_object(12, uid="young"))
    assert listed(cache.listing_jobs(None), [], 10) == {DEMO}
    assert [job.uid for job in cache.jobs_of(job_object()["metadata"]["ownerReferences"][0]["uid"])] == ["young"]


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    cache = Cache()
    cache.put_run(run_object(5))
    cache.put_job(job_object(5))
    assert listed(cache.listing_runs("elsewhere"), [], 10) == listed(cache.listing_jobs("elsewhere"), [], 10) == set()
    assert listed(cache.listing_runs("lab"), [], 10) == {DEMO}


def test_a_list_tells_only_what_has_changed() -> None:
    cache = Cache()
    cache.put_run(run_object(5))
    other = run_object(6, uid="o", name="other")
    assert listed(cache.listing_runs(None), [run_object(5), other], 10) == {Key("lab", "other")}


def test_a_change_that_concerns_nobody_causes_nothing_and_is_kept_all_the_same() -> None:
    cache = Cache()
    cache.put_job(job_object(5, status={"active": 1}))
    assert cache.put_job(job_object(6, status={"active": 2})) is None
    assert cache.jobs_of(job_object()["metadata"]["ownerReferences"][0]["uid"])[0].version == 6
    assert cache.put_job(job_object(7, status={"active": 2, "ready": 1})) == Change(DEMO, pressing=False)
    assert cache.put_job(job_object(8, status={"active": 2, "ready": 2, "failed": 1})) == Change(DEMO)
    assert cache.put_job(job_object(9, status={"active": 1, "ready": 1, "failed": 1})) == Change(DEMO)


def test_a_part_that_has_ended_well_is_for_the_record_alone_and_the_last_part_is_reported_once() -> None:
    cache, begun = Cache(), {"active": 1, "ready": 1}
    cache.put_job(job_object(1, completions=2, status=begun))
    assert cache.put_job(job_object(2, completions=2, status={"succeeded": 1})) == Change(DEMO, pressing=False)
    both = {"succeeded": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}}
    change = cache.put_job(job_object(3, completions=2, status=both))
    assert change is not None and not change.pressing and change.succeeding and change.succeeding.uid == "j1"
    assert cache.put_job(job_object(4, completions=2, status={"succeeded": 2})) is None
    assert cache.put_job(job_object(5, completions=2, status=ended("Complete", succeeded=2))) == Change(DEMO)


def test_a_part_that_failed_beside_one_that_ended_well_is_pressing() -> None:
    cache = Cache()
    cache.put_job(job_object(1, completions=3, status={"active": 3, "ready": 3}))
    both = {"uncountedTerminatedPods": {"succeeded": ["p"], "failed": ["q"]}}
    assert cache.put_job(job_object(2, completions=3, status=both)) == Change(DEMO)


def test_a_list_comes_page_by_page_and_is_whole_at_its_end() -> None:
    cache, other, third = Cache(), Key("lab", "other"), Key("lab", "third")
    runs = {key: run_object(5, uid=key.name, name=key.name) for key in (DEMO, other, third)}
    for run in runs.values():
        cache.put_run(run)
    listing = cache.listing_runs(None)
    assert listing.take([runs[DEMO]], 9) == listing.take([runs[other]], 9, first=False) == set()
    assert third in cache.runs
    assert listing.end() == {third} and set(cache.runs) == {DEMO, other}


def test_of_a_list_that_began_anew_the_first_beginning_does_not_count() -> None:
    cache = Cache()
    cache.put_run(run_object(5))
    listing = cache.listing_runs(None)
    listing.take([run_object(5)], 9)
    listing.take([], 12)
    assert listing.end() == {DEMO}


def test_a_job_that_has_lost_our_label_is_deleted_for_lists_and_watches_and_comes_back_when_asked_for() -> None:
    cache = Cache()
    cache.put_job(job_object(5))
    bare = job_object(6, labels={"selfevo.dev/step": "evaluate-0", "selfevo.dev/attempt": "1"})
    cache.drop_job(job_object(6))  # as a watch tells it: the object as it was, the version of the change
    assert cache.jobs_of(RUN_UID) == [] and cache.put_job(bare) is None
    assert cache.meet_job(bare) is not None
    (snapshot,) = cache.jobs_of(RUN_UID)
    assert not snapshot.listed
    assert cache.drop_job(job_object(6)) is None  # once more, late
    listed(cache.listing_jobs(None), [], 9)
    assert cache.jobs_of(RUN_UID) == [snapshot], "a list cannot know it"
    assert cache.put_job(job_object(10)) is not None  # somebody puts the label back
    listed(cache.listing_jobs(None), [], 12)
    assert cache.jobs_of(RUN_UID) == []


def test_what_is_really_deleted_does_not_come_back_when_an_answer_is_late() -> None:
    cache = Cache()
    cache.put_job(job_object(5))
    cache.drop_job(job_object(8))
    assert cache.meet_job(job_object(7)) is None and cache.jobs_of(RUN_UID) == []


def test_a_job_belongs_to_the_run_that_its_owner_reference_names_whatever_its_labels_say() -> None:
    owner = {"uid": RUN_UID, "controller": True, "kind": "SelfEvolutionRun", "name": "demo"}
    change = Cache().put_job(job_object(5, labels={}, ownerReferences=[owner]))
    assert change is not None and change.key == DEMO


def test_a_job_whose_step_is_written_anew_is_no_longer_that_of_the_old_one() -> None:
    cache = Cache()
    cache.put_run(run_object(1))
    first = job_object(2)
    cache.put_job(first)
    key = first["metadata"]["annotations"]["selfevo.dev/key"]
    assert [job.uid for job in cache.jobs_with("lab", key)] == ["j1"]
    cache.put_job(job_object(3, annotations={**first["metadata"]["annotations"], "selfevo.dev/key": "b" * 64}))
    assert cache.jobs_with("lab", key) == [] and [job.uid for job in cache.jobs_with("lab", "b" * 64)] == ["j1"]
    cache.drop_job(job_object(4))
    assert cache.jobs_with("lab", key) == cache.jobs_with("lab", "b" * 64) == []


def test_jobs_that_go_with_their_run_are_not_asked_for_afterwards() -> None:
    cache = Cache()
    cache.put_run(run_object(1))
    cache.put_job(job_object(2))
    cache.drop_run(DEMO, RUN_UID)
    cache.drop_job(job_object(3))
    assert cache.take_doubted(RUN_UID) == []
