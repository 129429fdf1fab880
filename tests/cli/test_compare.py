"""Several runs held against each other: question by question, by their settings, over seeds, and as a page."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import chromium
from harness.fake_run import HOSTILE, fake_run
from harness.runs import make_run
from selfevo.report import Source, write_comparison
from selfevo.report.collect import collect
from selfevo.report.compare import Comparison, compare, difference, differing, labels
from selfevo.report.compare_page import cautions, render_comparison, sentences
from selfevo.report.downloads import CARRIED, downloads_of_comparison
from selfevo.report.settings import flattened
from selfevo.report.spread import Spread, spread_of
from selfevo.verbs.report import report_comparison
from selfevo_contract.errors import InputError
from selfevo_contract.plan import plan as replan
from selfevo_contract.scores import Results, standard_error

RANDOM = {"spec__rollout__labels": "random"}
RUNS: dict[str, dict[str, Any]] = {
    "votes-0": {},
    "votes-1": {"spec__seed": 1},
    "random-0": RANDOM,
    "random-1": {**RANDOM, "spec__seed": 1},
}


def results(*values: float, questions: Sequence[str] = "abcd") -> Results:
    return Results(tuple(questions[: len(values)]), {"mean": values})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Two settings by two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    fakes = [
        fake_run(folder / name, luck=luck, metadata__name=name, **changes)
        for luck, (name, changes) in enumerate(RUNS.items())
    ]
    return [Source(fake.run, fake.plan, fake.store) for fake in fakes]


@pytest.fixture(scope="module")
def comparison(sources: list[Source]) -> Comparison:
    return compare([collect(*source, questions=False) for source in sources])


def test_a_difference_is_over_the_questions_that_both_were_asked() -> None:
    before = results(0.0, 0.5, 1.0, questions="abc")
    now = results(1.0, 0.5, 0.25, 1.0, questions="cbad")
    found = difference({"math": before, "logic": before}, {"math": now, "words": now}, "mean")
    values = [0.0, 0.0, 0.25]  # c, b, a; d was not asked of the one before
    assert found.gain is not None and found.questions == 3
    assert found.gain.value == pytest.approx(sum(values) / 3)
    assert found.gain.stderr == pytest.approx(standard_error(values))


def test_tasks_count_alike_and_what_is_not_known_is_no_difference() -> None:
    few, many = results(0.0), results(0.5, 0.5, 0.5)
    found = difference({"a": few, "b": many}, {"a": results(1.0), "b": many}, "mean")
    assert found.gain is not None and found.gain.value == 0.5 and found.questions == 4
    assert difference({"a": few}, {"a": few}, "maj").gain is None
    assert difference({"a": few}, {"a": results(1.0, questions="z")}, "mean").gain is None


def test_a_question_that_stands_twice_is_paired_by_its_turn() -> None:
    found = difference({"a": results(0.0, 1.0, questions="aa")}, {"a": results(1.0, 1.0, questions="aa")}, "mean")
    assert found.gain is not None and found.gain.value == 0.5


@pytest.mark.slow
def test_runs_are_held_against_the_first(comparison: Comparison) -> None:
    reference, other = comparison.runs[0], comparison.runs[2]
    assert reference.by_iteration == {} and reference.best is None and reference.last is None
    assert list(other.by_iteration) == [0, 1, 2] and other.last == 2
    gain = other.by_iteration[2].gain
    assert gain is not None
    assert gain.value == pytest.approx(other.scores[2].mean.value - reference.scores[2].mean.value)
    alone = other.scores[2].mean.stderr
    assert gain.stderr is not None and alone is not None and 0 < gain.stderr < 1.5 * alone
    assert comparison.shared == 4  # the base's evaluation and the first Challenger, a seed each


@pytest.mark.slow
def test_seeds_of_the_same_settings_are_one_line(comparison: Comparison) -> None:
    votes, random = comparison.groups
    assert (votes.members, random.members) == ((0, 1), (2, 3))
    assert (votes.name, random.name) == ("rollout.labels: majority", "rollout.labels: random")
    scores = [run.scores[2].mean.value for run in comparison.runs]
    assert votes.scores[2] == spread_of(scores[:2])
    assert votes.difference is None and random.difference is not None
    pairs = [scores[2] - scores[0], scores[3] - scores[1]]
    assert random.difference.mean == pytest.approx(statistics.fmean(pairs))
    assert random.difference.stderr == pytest.approx(standard_error(pairs))


def test_groups_without_seeds_in_common_have_no_difference(sources: list[Source]) -> None:
    found = compare([collect(*source, questions=False) for source in (sources[0], sources[3])])
    assert [group.difference for group in found.groups] == [None, None] and not found.repeated
    assert "random-1 less votes-0 at iteration 2" in sentences(found)[0]


def test_settings_that_differ_are_named_by_their_path(comparison: Comparison) -> None:
    values = {setting.path: setting.values for setting in comparison.settings}
    assert values["seed"] == ("0", "1", "0", "1")
    assert values["rollout.labels"] == ("majority", "majority", "random", "random")
    assert set(values) == {"seed", "rollout.labels", "storage.uri"}


def test_the_same_bytes_in_another_place_are_no_difference() -> None:
    digest = "a" * 64
    runs = [make_run(spec__model={"uri": uri, "digest": digest}) for uri in ("file:///a", "file:///b")]
    assert differing(runs) == ()
    other = make_run(spec__model={"uri": "file:///b", "digest": "b" * 64})
    assert {setting.path for setting in differing([runs[0], other])} == {"model.uri", "model.digest"}


def test_values_of_variables_are_in_no_setting() -> None:
    runs = [make_run(spec__pods={"env": [{"name": "TOKEN", "value": value}]}) for value in ("one", "two")]
    assert "one" not in str(flattened(runs[0].spec.wire())) and differing(runs) == ()


def test_every_run_has_a_name_of_its_own() -> None:
    one, other = make_run(metadata__name="a"), make_run(metadata__name="a", metadata__namespace="lab")
    assert labels([one, other, make_run(metadata__name="b")]) == ["default/a", "lab/a", "b"]
    assert labels([one, one]) == ["default/a (1)", "default/a (2)"]


def test_runs_that_are_seeds_of_one_another_are_a_mean(sources: list[Source]) -> None:
    found = compare([collect(*source, questions=False) for source in sources[:2]])
    scores = [100 * run.scores[2].mean.value for run in found.runs]
    spread = f"{statistics.fmean(scores):.1f} ± {statistics.stdev(scores):.1f} %"
    assert sentences(found) == [
        f"These runs compute the same but for their seeds: {spread} at iteration 2, the mean of 2."
    ]
    empty = dataclasses.replace(found.groups[0], scores={})
    assert sentences(dataclasses.replace(found, groups=(empty,)))[0].endswith("and none has a score yet.")


def test_the_words_claim_no_more_than_the_errors_allow(comparison: Comparison) -> None:
    (only,) = sentences(comparison)
    assert only.startswith("rollout.labels: random less rollout.labels: majority: ")
    assert only.endswith("over 2 seeds, too few seeds to judge it by.")
    assert any("some reach two standard errors by chance" in sentence for sentence in cautions(comparison))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.1, 0.12, 0.11), "a clear difference."),
        ((0.1, -0.1, 0.02), "no clear difference."),
        ((0.1,), "1 seed, too few"),
    ],
)
def test_seeds_decide_over_a_group(comparison: Comparison, values: tuple[float, ...], verdict: str) -> None:
    first, other = comparison.groups
    changed = dataclasses.replace(other, difference=spread_of(values))
    (only,) = sentences(dataclasses.replace(comparison, groups=(first, changed)))
    assert verdict in only


def test_a_spread_of_one_has_no_deviation() -> None:
    assert spread_of([0.5]) == Spread(0.5, None, 1) and spread_of([0.5]).stderr is None


def test_the_page_has_the_numbers_and_is_small(comparison: Comparison) -> None:
    page = render_comparison(comparison)
    assert len(page) < 2_000_000
    for text in ("4 runs compared", "votes-0 (reference)", "rollout.labels", "Held-out accuracy, mean over seeds"):
        assert text in page
    gain = comparison.runs[3].by_iteration[2].gain
    assert gain is not None and f"± {100 * (gain.stderr or 0):.1f}" in page


def test_tables_of_very_many_runs_are_carried_as_far_as_there_is_room(comparison: Comparison) -> None:
    wide = tuple(dataclasses.replace(each, values=each.values * 300) for each in comparison.settings)
    many = dataclasses.replace(comparison, runs=comparison.runs * 300, settings=wide)
    carried = {file.name: file.uri for file in downloads_of_comparison(many)}
    assert carried["comparison-scores.csv"] is None and carried["comparison-settings.csv"] is not None
    assert sum(len(uri) for uri in carried.values() if uri) <= CARRIED
    assert all(file.uri for file in downloads_of_comparison(comparison))


def test_hostile_settings_are_text(sources: list[Source]) -> None:
    """What a manifest says may come from anybody."""
    run = sources[1].run
    prompt = run.spec.solver.prompt.model_copy(update={"system": HOSTILE[1]})
    spec = run.spec.model_copy(update={"solver": run.spec.solver.model_copy(update={"prompt": prompt})})
    other = collect(run.model_copy(update={"spec": spec}), *sources[1][1:3], questions=False)
    page = render_comparison(compare([collect(*sources[0], questions=False), other]))
    assert HOSTILE[1] not in page and "&lt;script&gt;alert(1)" in page


def test_a_run_without_scores_is_reported(sources: list[Source], tmp_path: Path) -> None:
    begun = fake_run(tmp_path, until="challenger-train-1", metadata__name="begun")
    found = compare(
        [collect(*sources[0], questions=False), collect(begun.run, begun.plan, begun.store, questions=False)]
    )
    render_comparison(found)
    assert any("Not finished: begun." in sentence for sentence in cautions(found))
    bare = fake_run(tmp_path / "bare", metadata__name="bare", spec__evaluation=None)
    none = compare([collect(bare.run, bare.plan, bare.store, questions=False)] * 2)
    assert "for their seeds, and none has a score yet." in render_comparison(none)


LABELLED: dict[str, Any] = {"data": {"uri": "s3://data/labelled.jsonl", "digest": "0" * 64}, "maxSteps": 2}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three runs that fine-tune, one of them with random labels, one by more updates, and one that does not."""
    folder, reports = tmp_path_factory.mktemp("tuned"), []
    settings: list[tuple[Any, dict[str, Any]]] = [
        (LABELLED, {}),
        (None, {}),
        (LABELLED, RANDOM),
        ({**LABELLED, "maxSteps": 3}, {}),
    ]
    for luck, (finetune, others) in enumerate(settings):
        changes = {"spec__iterations": 1, "spec__rollout__questions": 20, "spec__finetune": finetune, **others}
        fake = fake_run(folder / str(luck), luck=luck, metadata__name=f"run-{luck}", **changes)
        decided = replan(fake.run.spec, best=1)
        reports.append(collect(fake.run, decided, fake.store, questions=False))
    return compare(reports)


def test_fine_tuned_models_are_held_against_those_of_the_reference(tuned: Comparison) -> None:
    reference, plain, other, _ = (run.finetuned for run in tuned.runs)
    assert plain is None and reference is not None and other is not None
    assert (reference.best.difference, reference.base.difference) == (None, None)
    pairs = [
        (other.best.difference, other.best.model, reference.best.model),
        (other.base.difference, other.base.model, reference.base.model),
        (other.over_base, other.best.model, other.base.model),
    ]
    for found, now, before in pairs:
        assert found is not None and found.gain is not None and now is not None and before is not None
        assert now.after is not None and before.after is not None and found.questions == now.after.questions > 0
        assert found.gain.value == pytest.approx(now.after.mean.value - before.after.mean.value)
        alone = now.after.mean.stderr
        assert found.gain.stderr is not None and alone is not None and 0 < found.gain.stderr < 1.5 * alone
    assert other.best.model is not None and other.best.model.number == 1


def test_the_page_shows_fine_tuned_models_and_says_what_they_cannot(tuned: Comparison) -> None:
    page = render_comparison(tuned)
    assert "After fine-tuning" in page and ">not fine-tuned<" in page and "comparison-finetuned.csv" in page
    assert any("The runs do not fine-tune alike" in sentence for sentence in cautions(tuned))
    assert [line for line in sentences(tuned) if "run-2 less run-0, the best of each fine-tuned: " in line]
    alike = compare([run.report for run in (tuned.runs[0], tuned.runs[2])])
    assert not any("fine-tune alike" in sentence for sentence in cautions(alike))
    assert "After fine-tuning" not in render_comparison(compare([tuned.runs[1].report]))


def test_of_fine_tuned_models_what_is_not_there_yet_is_left_open(tuned: Comparison) -> None:
    import dataclasses

    reports = [run.report for run in tuned.runs]
    [best, control] = reports[2].finetuned
    half = dataclasses.replace(reports[2], finetuned=(control,))
    found = compare([reports[0], half]).runs[1].finetuned
    assert found is not None and (found.best.model, found.best.difference, found.over_base) == (None, None, None)
    assert found.base.model == control and found.base.difference is not None
    assert "not yet" in render_comparison(compare([reports[0], half]))
    without = dataclasses.replace(reports[2], finetuned=(best,))  # finetune.control: false
    found = compare([reports[0], without]).runs[1].finetuned
    assert found is not None and found.base.model is None and found.over_base is None
    assert found.best.difference is not None
    late = compare([half, reports[0]])  # the reference is the one that is not there yet
    assert late.runs[1].finetuned is not None and late.runs[1].finetuned.best.difference is None
    render_comparison(late)


def test_where_the_base_is_the_best_it_is_both(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__iterations=1, spec__rollout__questions=20, spec__finetune=LABELLED)
    report = collect(fake.run, replan(fake.run.spec, best=0), fake.store, questions=False)
    found = compare([report, report]).runs[1].finetuned
    assert found is not None and found.best.model is not None and found.best.model.number == 0
    assert found.best.model is found.base.model and found.over_base is None


def test_one_run_named_twice_is_refused(tmp_path: Path) -> None:
    import yaml

    fake = fake_run(tmp_path)
    document = {"apiVersion": "selfevo.dev/v1alpha1", "kind": "SelfEvolutionRun", "metadata": {"name": "demo"}}
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump({**document, "spec": fake.run.spec.wire()}))
    with pytest.raises(InputError, match=r"a\.yaml and .*b\.yaml are both the run demo in file:"):
        report_comparison([tmp_path / "a.yaml", tmp_path / "b.yaml"], None, storage=None, workdir=tmp_path)


@pytest.mark.slow
def test_a_browser_draws_a_comparison(sources: list[Source], tmp_path: Path) -> None:
    browser = chromium.find()
    if browser is None:
        pytest.skip("there is no Chromium here (tests/install-debian-packages installs it)")
    path = tmp_path / "comparison.html"
    write_comparison(sources, path)
    with chromium.opened(browser, path, width=390, height=844, mobile=True) as tab:
        assert tab.evaluate(
            "[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('.points').length)"
        ) == [
            4,
            2,
        ]
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert tab.requests == [path.resolve().as_uri()] and tab.complaints == []
