"""The report: what it says of a run, that no model's text can take it over, and that a browser draws it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from plotly.offline import get_plotlyjs_version

from harness import chromium
from harness.fake_run import HOSTILE, FakeRun, fake_run
from harness.runs import RUBRIC, TRIAD, make_run
from selfevo.local.workdir import RunFolder
from selfevo.report import oracles, write_report
from selfevo.report.collect import collect
from selfevo.report.contamination import overlap_of
from selfevo.report.data import Evaluation, Iteration, Overlap, Report, Scored, Update
from selfevo.report.downloads import stored, written
from selfevo.report.figures import BOTH as UPDATES
from selfevo.report.figures import CHALLENGER
from selfevo.report.findings import _anchors, headline, limits, missing, rivals
from selfevo.report.flips import Flip, Greedy, flips_of
from selfevo.report.lineage import BASE, lineage
from selfevo.report.page import render
from selfevo.report.samples import KEPT, samples_of, spread
from selfevo.report.text import duration, listed, percent, points, shown
from selfevo.report.thinned import POINTS, places
from selfevo.report.timings import gpu_hours, overhead, seconds_of
from selfevo.report.traffic import moved
from selfevo.verbs.show import current_status
from selfevo_contract.artifacts import MANIFEST_NAME, Manifest, ManifestDraft, failed_prefix
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.fingerprint import FINGERPRINT_OFF
from selfevo_contract.rows import CURRICULUM, QUESTIONS, read_rows
from selfevo_contract.scores import Score
from selfevo_contract.spec.oracles import ORACLES
from selfevo_contract.status import PhaseUsage, RunStatus, StepStatus, Usage
from selfevo_core.summary import highest
from selfevo_store import CorruptArtifact, commit, read_manifest

BOTH = ("kl", "entropy", "mean-length", "clipped-ratio", "loss", "grad-norm", "region-mean", "frac-reward-zero-std")
FIGURES = (
    "scores",
    "shares",
    *(
        f"challenger-{name}"
        for name in (
            "reward",
            "uncertainty",
            "repetition",
            "majority-share",
            "valid",
            "distinct",
            *BOTH,
        )
    ),
    *(f"solver-{name}" for name in ("reward", *BOTH)),
    "times",
)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """A finished run of two iterations."""
    return fake_run(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def report(fake: FakeRun) -> Report:
    return collect(fake.run, fake.plan, fake.store)


@pytest.fixture(scope="module")
def page(fake: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(fake.run, fake.plan, fake.store, path)
    return path


def test_a_question_that_was_right_and_is_wrong_is_listed_with_both_answers() -> None:
    keys = [("math", f"{number} + 1", str(number + 1)) for number in range(40)]
    before = {key: Greedy("old", number < 30) for number, key in enumerate(keys)}
    now = {key: Greedy("new", number >= 10) for number, key in enumerate(keys[:35])}
    flips = flips_of(2, now, 1, before, 12)
    assert (flips.iteration, flips.before, flips.asked, flips.lost, flips.gained) == (2, 1, 35, 10, 5)
    assert flips.examples[0] == Flip("math", "0 + 1", "1", "old", "new")
    many = flips_of(2, {key: Greedy("new", False) for key in keys}, 1, before, 12)
    assert (many.lost, len(many.examples)) == (30, 12)


@pytest.mark.slow
def test_the_page_lists_what_went_from_right_to_wrong(report: Report, page: Path) -> None:
    assert [(flips.iteration, flips.before) for flips in report.flips] == [(1, 0), (2, 1)]
    assert all(0 < flips.lost <= flips.asked for flips in report.flips)
    text = page.read_text()
    assert f"{report.flips[1].lost} that iteration 1 had right" in text and "that the base had right" in text


class Parsed(HTMLParser):
    """A page's elements, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style", "title") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def plots(parsed: Parsed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(parsed.scripts[0])
    return found


# ---- what is collected


def test_every_step_of_a_finished_run_is_there(report: Report) -> None:
    assert not report.missing
    assert missing(report) == ""
    assert [iteration.number for iteration in report.iterations] == [0, 1, 2]
    assert len(report.challenger) == len(report.solver) == 2 * 2
    assert [(step.iteration, step.step) for step in report.solver] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_scores_are_the_manifests_and_gains_are_paired(fake: FakeRun, report: Report) -> None:
    for iteration in report.iterations:
        manifest = read_manifest(fake.store, fake.prefix(f"evaluate-{iteration.number}"))
        assert manifest is not None and iteration.evaluation is not None
        assert iteration.evaluation.mean.value == pytest.approx(manifest.metrics["mean"])
        assert iteration.evaluation.mean.stderr == pytest.approx(manifest.metrics["held-out/mean_stderr"])
        assert iteration.evaluation.greedy.value == pytest.approx(manifest.metrics["greedy"])
        assert iteration.evaluation.questions == 80
    base, last = report.iterations[0].evaluation, report.iterations[2].evaluation
    assert base is not None and base.gain is None
    assert last is not None and last.gain is not None
    assert last.gain.value == pytest.approx(last.mean.value - base.mean.value)
    # Questions are as hard for both: the paired error is below that of two independent scores.
    assert last.gain.stderr is not None and base.mean.stderr is not None and last.mean.stderr is not None
    assert 0 < last.gain.stderr < math.hypot(base.mean.stderr, last.mean.stderr)
    assert report.best == 2


TASKS = [
    {"name": "competition", "data": {"uri": "file:///a"}, "group": "math", "samples": 4},
    {"name": "facts", "data": {"uri": "file:///b"}, "group": "general"},
    {"name": "school", "data": {"uri": "file:///c"}, "group": "math"},
    {"name": "other", "data": {"uri": "file:///d"}},
]


@pytest.mark.slow
def test_tasks_stand_with_their_group_and_every_score_has_its_error(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__evaluation__tasks=TASKS, spec__evaluation__metric="maj", spec__iterations=1)
    report = collect(fake.run, fake.plan, fake.store)
    base, last = (iteration.evaluation for iteration in report.iterations)
    assert base is not None and last is not None
    assert [line.name for line in last.lines] == ["competition", "school", "math", "facts", "general", "other", "all"]
    by_name = {line.name: line for line in last.lines}
    assert [by_name[name].samples for name in ("competition", "school", "math", "all")] == [4, 8, None, None]
    manifest = read_manifest(fake.store, fake.prefix("evaluate-1"))
    assert manifest is not None
    for task in TASKS:
        line = by_name[str(task["name"])]
        for name, score in line.scores.items():
            assert score.value == manifest.metrics[f"{line.name}/{name}"]
            assert score.stderr == manifest.metrics[f"{line.name}/{name}_stderr"]
        assert line.passed == line.scores[f"pass@{line.samples}"]
        assert line.gain is not None and line.gain.value == manifest.metrics[f"{line.name}/maj_gain"]
    math_tasks = by_name["competition"], by_name["school"]
    for name in ("mean", "greedy", "maj", "pass@2", "pass@4"):
        mean = by_name["math"].scores[name]
        assert mean.value == pytest.approx(sum(task.scores[name].value for task in math_tasks) / 2)
        assert mean.stderr == pytest.approx(math.hypot(*(task.scores[name].stderr or 0 for task in math_tasks)) / 2)
    assert by_name["math"].passed is None and "pass@8" not in by_name["math"].scores
    assert by_name["math"].gain is not None and base.total.gain is None
    assert by_name["math"].gain.value == pytest.approx(sum(task.gain.value for task in math_tasks if task.gain) / 2)
    assert last.total.scores["maj"].value == pytest.approx(manifest.metrics["maj"])
    assert headline(report).startswith("Accuracy of the majority of samples on 320 held-out questions ")
    status = current_status(fake.run, fake.plan, RunFolder(tmp_path / "none", fake.run.metadata))
    assert status.iterations[1].groups == {
        group: round(by_name[group].scores["maj"].value, 4) for group in ("math", "general")
    }
    text = Parsed(render(report)).text
    for label in ("math, average", "general, average", "all, average", "maj@k", "pass@k", "Gain of maj@k, points"):
        assert label in text


@pytest.mark.slow
@pytest.mark.parametrize(("scores", "best"), [((0.73601, 0.73604), 2), ((0.73604, 0.73604), 1), ((0.2, math.nan), 0)])
def test_report_and_status_agree_on_the_best_to_the_last_digit(
    tmp_path: Path, scores: tuple[float, float], best: int
) -> None:
    fake = fake_run(tmp_path)
    for number, score in enumerate(scores, 1):
        file = tmp_path / "store" / fake.prefix(f"evaluate-{number}") / MANIFEST_NAME
        manifest = json.loads(file.read_text())
        manifest["metrics"] |= {"mean": str(score) if math.isnan(score) else score, "held-out/mean": 0.7}
        file.write_text(json.dumps(manifest))
    status = current_status(fake.run, fake.plan, RunFolder(tmp_path / "none", fake.run.metadata))
    assert status.best is not None
    assert status.best.iteration == collect(fake.run, fake.plan, fake.store).best == best


@pytest.mark.slow
def test_a_failed_run_says_so_and_why(fake: FakeRun, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(fake.run, fake.plan, fake.store, path, "InvalidInput: solver-train-2: <b>ordered</b> to fail")
    text = Parsed(path.read_text()).text
    assert "This run failed. InvalidInput: solver-train-2: <b>ordered</b> to fail." in text


def test_the_metric_chooses_the_best(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__evaluation__metric="greedy")
    report = collect(fake.run, fake.plan, fake.store)
    base, last = report.iterations[0].evaluation, report.iterations[2].evaluation
    assert base is not None and last is not None and last.gain is not None
    assert last.gain.value == pytest.approx(last.greedy.value - base.greedy.value)
    assert headline(report).startswith("Greedy accuracy ")


def test_rollouts_are_the_manifests(fake: FakeRun, report: Report) -> None:
    assert report.iterations[0].rollout is None
    for iteration in report.iterations[1:]:
        manifest = read_manifest(fake.store, fake.prefix(f"solver-rollout-{iteration.number}"))
        assert manifest is not None and iteration.rollout is not None
        assert iteration.rollout.in_band == manifest.metrics["in_band_share"]
        assert iteration.rollout.label_accuracy == manifest.metrics["label_accuracy"]
        assert iteration.rollout.kept == manifest.metrics["kept"]
        assert "proof" not in iteration.rollout.dropped
        assert iteration.rollout.kept + sum(iteration.rollout.dropped.values()) == iteration.rollout.valid


@pytest.mark.slow
def test_overlap_with_held_out_questions_is_shown_by_length_and_task(
    report: Report,
) -> None:
    overlap = Overlap(same=0, dropped=0, words={8: 3, 13: 1}, tasks={8: {"held-out": 2}, 13: {}})
    assert [iteration.rollout.overlap for iteration in report.iterations if iteration.rollout] == [overlap] * 2
    text = " ".join(Parsed(render(report)).text.split()).replace("( ", "(").replace(" )", ")")
    assert "Overlap with held-out questions" in text and "Dropped for words 10 1 3 (held-out 2) 0" in text
    assert overlap_of({"kept": 3.0, "dropped_held_out": 1.0}, ["held-out"]) is None  # nothing was held out


def test_samples_show_the_curriculum_from_the_smallest_share_to_the_largest(report: Report) -> None:
    for samples in report.samples:
        assert len(samples.kept) == KEPT
        shares = [sample.share for sample in samples.kept if sample.share is not None]
        assert shares == sorted(shares)
        assert all(sample.label is not None and sample.dropped is None for sample in samples.kept)
        reasons = {sample.dropped for sample in samples.dropped}
        assert {"invalid", "above_band", "below_band"} <= reasons
        for sample in (*samples.kept, *samples.dropped):
            if sample.question is not None:
                shown_votes = sum(votes.count for votes in sample.votes)
                assert shown_votes + (sample.others.count if sample.others else 0) + sample.unboxed == 10


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_samples_say_whether_the_label_is_right() -> None:
    common = {"share": 0.5, "majority": "4", "votes": [["4", 2], ["5", 1]], "proposed": "4"}
    rows: list[dict[str, Any]] = [
        {**common, "question": "2 + 2", "truth": "4", "dropped": None},
        {**common, "question": "2 + 1", "truth": "3", "dropped": None},
        {**common, "question": "2 ++ 2", "truth": None, "dropped": None},
        {**common, "question": "1 + 3", "truth": "4", "dropped": "above_band"},
        {**common, "question": "no label", "truth": None, "dropped": None},
        {"question": None, "raw": "what?"},
    ]
    curriculum = [{"question": row["question"], "answer": "4", "share": 0.5} for row in rows[:3]]
    questions = read_rows(lines(rows), QUESTIONS.lines, "here")
    samples = samples_of(1, questions, read_rows(lines(curriculum), CURRICULUM.lines, "here"), samples=4)
    assert [sample.right for sample in samples.kept] == [True, False, None]
    assert [sample.unboxed for sample in samples.kept] == [1, 1, 1]
    assert {sample.dropped: sample.right for sample in samples.dropped} == {
        "above_band": True,
        "unlabelled": None,
        "invalid": None,
    }


@pytest.mark.parametrize(
    ("items", "count", "wanted"),
    [([], 3, []), ([1, 2], 3, [1, 2]), ([1, 2, 3], 1, [2]), (list(range(9)), 3, [0, 4, 8]), ([0, 1, 2, 3], 2, [0, 3])],
)
def test_spread(items: list[int], count: int, wanted: list[int]) -> None:
    assert spread(items, count) == wanted


def test_the_times_of_chunks_are_added_up_until_there_is_a_manifest() -> None:
    def manifest(**timings: float) -> Manifest:
        return Manifest(
            key="a" * 64,
            phase="solver-rollout",
            write_id="1",
            created_at="2026-01-01T00:00:00Z",
            files=[],
            timings=timings,
        )

    first, second = manifest(generation=4.0, total=5.0), manifest(generation=6.0, grading=1.0, total=7.0)
    assert sum(seconds_of(None, [first, second]).values()) == pytest.approx(5.0 + 7.0)
    assert seconds_of(None, [first, second])["generation"] == pytest.approx(10.0)
    # Whoever wrote the manifest has added them up.
    whole = manifest(generation=10.0, grading=1.0, store=0.5, total=13.0)
    assert sum(seconds_of(whole, []).values()) == pytest.approx(13.0)
    assert seconds_of(None, []) == {}


def test_gpu_hours_are_no_activity_and_are_counted_or_reported() -> None:
    def manifest(**timings: float) -> Manifest:
        stamp = "2026-01-01T00:00:00Z"
        return Manifest(key="a" * 64, phase="evaluate", write_id="1", created_at=stamp, files=[], timings=timings)

    recorded = manifest(generation=1800.0, total=3600.0, gpu=7200.0)
    assert sum(seconds_of(recorded, []).values()) == pytest.approx(3600.0)
    silent, none = manifest(total=5.0), manifest(total=5.0, gpu=0.0)
    used, unused = (RunStatus(usage=Usage(counted_at="", gpu_hours=hours)) for hours in (7.0, 0.0))
    rows: list[tuple[RunStatus | None, list[Manifest], str]] = [
        (None, [], "None"),
        (None, [silent], "None"),
        (None, [none], "0.00"),
        (None, [recorded, silent], "≥ 2.00"),
        (None, [manifest(gpu=18.0)], "≥ 0.005"),
        (used, [recorded], "7.00"),
        (unused, [silent], "0.00"),
        (unused, [recorded], "≥ 2.00"),  # on this machine nobody counts
    ]
    assert [str(gpu_hours(status, manifests)) for status, manifests, _ in rows] == [shown for *_, shown in rows]
    assert str(gpu_hours(unused, [recorded], counts=True)) == "0.00"  # and in a cluster it is
    partly, whole, counted = gpu_hours(None, [recorded, silent]), gpu_hours(None, [recorded]), gpu_hours(used, [])
    assert partly is not None and "At least 2.00 GPU hours" in partly.sentence
    assert ", nor a step whose trainer did not say it." in partly.sentence
    assert whole is not None and whole.sentence.endswith("Failed attempts are not in them.")
    assert counted is not None and counted.sentence == "The run has used 7.00 GPU hours, failed attempts included."


def test_gpu_hours_of_what_was_in_the_store_are_another_runs(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-1", gpus=1800, spec__rollout__questions=20)
    done = [step for step in fake.plan.steps if step.name in ("evaluate-0", "challenger-train-1")]

    def hours(found: list[str], generation: int = 1, **usage: Any) -> tuple[str, dict[str, float | None], str]:
        steps = [
            StepStatus(
                name=step.name,
                phase=step.phase,
                iteration=0,
                key=step.key,
                reused=step.name in found,
                state="Succeeded",
            )
            for step in done
        ]
        used = Usage(counted_at="", **usage) if usage else None
        status = RunStatus(observed_generation=generation, steps=steps, usage=used)
        report = collect(fake.run.model_copy(update={"status": status}), fake.plan, fake.store, questions=False)
        committed = [record.manifest for record in report.steps if record.manifest is not None]
        assert len(committed) == len(done)
        of = gpu_hours(status, committed)
        assert of is not None
        return str(of), {time.phase: time.gpu_hours for time in report.times}, of.sentence

    names = [step.name for step in done]
    whole, phases, _ = hours([])
    evaluated, trained = phases["evaluate"], phases["challenger-train"]
    assert evaluated and trained and whole == f"≥ {evaluated + trained:.2f}"
    shown, phases, sentence = hours(["evaluate-0"])
    assert shown == f"≥ {trained:.2f}" and (phases["evaluate"], phases["challenger-train"]) == (None, trained)
    assert sentence.endswith(" The table leaves out a step that the run found in the store already.")
    assert hours(names)[0] == hours(names, gpu_hours=0.0)[0] == "0.00"
    shown, phases, sentence = hours(names, gpu_hours=0.5)
    assert shown == "0.50" and not any(phases.values()) and "leaves out 2 steps that the run found" in sentence
    assert hours(names, generation=0)[0] == whole  # made up from the store, by whoever has no record of the run


def test_gpu_hours_stand_beside_the_time_of_each_phase(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-1", gpus=1800, spec__rollout__questions=20)
    found = collect(fake.run, fake.plan, fake.store, questions=False)
    done = [record for record in found.steps if record.manifest is not None]
    seconds = sum(record.total or 0.0 for record in done)
    assert sum(time.gpu_hours or 0.0 for time in found.times) == pytest.approx(seconds / 2)
    page = render(found)
    assert f"At least {seconds / 2:.2f} GPU hours" in page and "<th>GPU hours</th>" in page
    [rollout] = [time for time in found.times if time.phase == "solver-rollout"]
    assert rollout.gpu_hours is None and rollout.total > 0  # its first chunk is there, and it is not done


def test_without_gpus_the_page_says_nothing_of_them(report: Report) -> None:
    assert "GPU hours" not in render(report)


def test_what_each_iteration_has_in_the_store_is_shown_in_gb(report: Report) -> None:
    manifests = [record.manifest for record in report.steps if record.manifest is not None]
    rows = moved(report)
    assert [row.iteration for row in rows] == [0, 1, 2]
    assert sum(row.models + row.rows for row in rows) == sum(file.size for each in manifests for file in each.files)
    assert rows[0].models == 0 < rows[1].models and all(row.rows > 0 for row in rows)

    spec = report.run.spec
    every = {role: getattr(spec, role).model_copy(update={"checkpoint_every": 1}) for role in ("challenger", "solver")}
    run = report.run.model_copy(update={"spec": spec.model_copy(update=every)})
    weights = {
        record.step.name: sum(file.size for file in record.manifest.files if file.name.endswith(".safetensors"))
        for record in report.steps
        if record.manifest is not None
    }
    of_two = dataclasses.replace(report, run=run)
    for row in moved(of_two)[1:]:  # 12 bytes a number, of which a model's file holds 4; after the last step none
        expected = sum(
            (getattr(spec, role).grpo.max_steps - 1) * 3 * weights[f"{role}-train-{row.iteration}"]
            for role in ("challenger", "solver")
        )
        assert row.checkpoints == expected > 0
    page = render(of_two)
    assert "<h3>In the store</h3>" in page and "checkpoints on the way, about, GB" in page


def test_time_is_all_accounted_for(report: Report) -> None:
    by_step = sum(record.total or 0.0 for record in report.steps)
    assert sum(time.total for time in report.times) == pytest.approx(by_step)
    share = overhead(report.times)
    productive = sum(time.seconds["training"] + time.seconds["generation"] for time in report.times)
    assert share == pytest.approx(1 - productive / by_step)
    assert overhead([]) is None


def test_versions_that_changed_on_the_way_are_both_there(report: Report) -> None:
    assert set(report.versions["trl"]) == {"1.16.0", "1.17.0"}
    assert "solver-train-2" in report.versions["trl"]["1.17.0"]


def test_lineage_has_every_step_and_every_edge(fake: FakeRun, report: Report) -> None:
    graph = lineage(report)
    assert {node.name for node in graph.nodes} == {BASE, *fake.plan.by_name}
    edges = {(edge.parent, edge.child) for edge in graph.edges}
    made_from = {(parent, step.name) for step in fake.plan.steps for parent in step.parents if parent != "evaluate-0"}
    assert made_from <= edges and "evaluate-0" not in {parent for parent, _ in edges}
    assert {child for parent, child in edges if parent == BASE} == {
        "evaluate-0",
        "challenger-train-1",
        "solver-rollout-1",
        "solver-train-1",
    }
    assert [node.name for node in graph.nodes if node.best] == ["solver-train-2"]
    places = [(node.x, node.y) for node in graph.nodes]
    assert len(set(places)) == len(places)
    assert all(node.x < graph.width and node.y < graph.height for node in graph.nodes)


# ---- what may be claimed


def scored(report: Report, *scores: Score | None, gains: tuple[Score | None, ...]) -> Report:
    """``report`` with other scores: the base's first."""

    def evaluation(score: Score | None, gain: Score | None) -> Evaluation | None:
        if score is None:
            return None
        task = Scored("t", None, {"mean": score, "greedy": score, "maj": score}, gain, 500, 8, 12.0)
        return Evaluation(task, (), (task,))

    iterations = tuple(
        Iteration(number, evaluation(score, gain), evaluated=True, rollout=None)
        for number, (score, gain) in enumerate(zip(scores, gains, strict=True))
    )
    best = highest({number: score.value if score else None for number, score in enumerate(scores)})
    return dataclasses.replace(report, iterations=iterations, best=best)


@pytest.mark.parametrize(
    ("scores", "gains", "expected"),
    [
        (
            (Score(0.5, 0.01), Score(0.6, 0.01), Score(0.55, 0.01)),
            (None, Score(0.1, 0.008), Score(0.05, 0.008)),
            "rose from 50.0 ± 1.0 % (base) to 60.0 ± 1.0 % at iteration 1, the best: +10.0 ± 0.8 points.",
        ),
        (
            (Score(0.5, 0.01), Score(0.51, 0.01), None),
            (None, Score(0.01, 0.008), None),
            "is 50.0 ± 1.0 % (base) and 51.0 ± 1.0 % at iteration 1, the best so far: +1.0 ± 0.8 points, which is "
            "within two standard errors, so no clear change.",
        ),
        (
            (Score(0.5, 0.01), Score(0.4, 0.01), Score(0.3, 0.01)),
            (None, Score(-0.1, 0.008), Score(-0.2, 0.008)),
            "No iteration scored above the base: mean accuracy of 8 samples on 500 held-out questions is 50.0 ± 1.0 % "
            "(base) and 40.0 ± 1.0 % at iteration 1, the best: −10.0 ± 0.8 points.",
        ),
        (
            (Score(0.5, 0.01), None, None),
            (None, None, None),
            "is 50.0 ± 1.0 % for the base; no trained Solver has a score yet.",
        ),
        (
            (None, Score(0.5, 0.01), None),
            (None, None, None),
            "is 50.0 ± 1.0 % at iteration 1, the best so far; the base has no score yet.",
        ),
        ((None, None, None), (None, None, None), "is not known yet: no evaluation is done."),
    ],
)
def test_the_headline_claims_no_more_than_the_errors_allow(
    report: Report, scores: tuple[Score | None, ...], gains: tuple[Score | None, ...], expected: str
) -> None:
    sentence = headline(scored(report, *scores, gains=gains)).replace("\u202f", " ")
    assert sentence.endswith(expected)
    assert sentence.count(". ") == 0


def test_limits_follow_from_the_run(tmp_path: Path, report: Report) -> None:
    text = " ".join(limits(report))
    assert "Judge by the mean of samples" in text
    assert "one seed (0)" in text
    control = fake_run(
        tmp_path,
        spec__rollout__labels="random",
        spec__rollout__oracle=None,
        spec__evaluation=None,
        spec__iterations=1,
    )
    text = " ".join(limits(collect(control.run, control.plan, control.store)))
    assert "control arm" in text
    assert "Label accuracy is not known" in text
    assert "Judge by" not in text


def test_what_a_judge_with_criteria_is_worth_is_reported(tmp_path: Path) -> None:
    """A half is not called chance: such a judge may tie, and a tie is not right."""
    blind = fake_run(tmp_path, **RUBRIC, spec__iterations=1, spec__evaluation=None)
    assert "Nothing here was held against the judge" in " ".join(limits(collect(blind.run, blind.plan, blind.store)))
    known = {"anchors/accuracy": 0.875, "anchors/error": 0.04, "anchors/count": 64.0}
    steps = [
        SimpleNamespace(step=SimpleNamespace(iteration=t), manifest=SimpleNamespace(metrics=metrics))
        for t, metrics in ((1, known), (2, {}), (3, {**known, "anchors/accuracy": 0.5}))
    ]
    judged: Any = SimpleNamespace(run=blind.run, steps=steps)
    assert [line.replace("\N{NARROW NO-BREAK SPACE}", " ") for line in _anchors(judged)] == [
        "The judge puts anchors in their known order: 87.5 ± 4.0 % of 64 in iteration 1 and 50.0 ± 4.0 % of 64 in "
        "iteration 3."
    ]


def test_a_trained_judge_that_guesses_is_reported() -> None:
    def found(*measured: tuple[float, float]) -> list[str]:
        steps = [
            SimpleNamespace(
                step=SimpleNamespace(iteration=t),
                manifest=SimpleNamespace(
                    metrics={"promoted": promoted, "anchors/after": after, "anchors/count": 285.0}
                ),
            )
            for t, (promoted, after) in enumerate(measured)
        ]
        judged: Any = SimpleNamespace(run=make_run(**TRIAD), steps=steps)
        return [line.replace("\N{NARROW NO-BREAK SPACE}", " ") for line in _anchors(judged)]

    assert found((1.0, 0.821), (0.0, 0.5)) == []
    [line] = found((1.0, 0.558), (1.0, 0.7))
    assert line.startswith(
        "A judge was put in place that is no better than chance on the sealed anchors: 55.8 % of 285 by that of "
        "iteration 0; see that the judge has its own tokenizer"
    )


def test_weights_that_were_not_checked_are_reported(fake: FakeRun, report: Report) -> None:
    assert "fingerprint" not in " ".join(limits(report))
    unchecked = [
        dataclasses.replace(
            record,
            manifest=record.manifest.model_copy(update={"metrics": {**record.manifest.metrics, FINGERPRINT_OFF: 1.0}}),
        )
        for record in report.steps
        if record.manifest is not None and record.step.name in ("solver-rollout-1", "evaluate-1")
    ]
    others = [record for record in report.steps if record.step.name not in ("solver-rollout-1", "evaluate-1")]
    text = " ".join(limits(dataclasses.replace(report, steps=(*others, *unchecked))))
    assert (
        "Nothing shows that the server had the right weights in solver-rollout-1 and evaluate-1: it was not held "
        "against their fingerprint (engine.fingerprint: off)." in text
    )


def test_numbers_read_well() -> None:
    assert percent(0.4775) == "47.8\u202f%"
    assert percent(None) == "–"
    assert points(-0.02) == "−2.0"
    assert [duration(s) for s in (4.31, 59.97, 75, 3600, 7384)] == [
        "4.3\u202fs",
        "1\u202fmin",
        "1\u202fmin 15\u202fs",
        "1\u202fh",
        "2\u202fh 3\u202fmin",
    ]
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a"]) == "a"
    assert listed([]) == ""


# ---- hostile text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<b> & \"q\" 'q'", "&lt;b&gt; &amp; &#34;q&#34; &#39;q&#39;"),
        ("3\u202e5", '3<span class="esc">\\u202e</span>5'),
        ("\x00", '<span class="esc">\\u0000</span>'),
        ("\ud800x", '<span class="esc">\\ud800</span>x'),
        ("\U000e0041", '<span class="esc">\\U000e0041</span>'),
        ("a\n\tb é 数 ∑ 👍", "a\n\tb é 数 ∑ 👍"),
        (None, "None"),
    ],
)
def test_text_is_shown_as_the_characters_that_are_there(text: object, html: str) -> None:
    assert shown(text) == html


def test_long_text_says_how_much_is_left_out() -> None:
    assert shown("<" * 2000, limit=2) == '&lt;&lt;<span class="esc">… 1,998 more characters</span>'


def test_hostile_text_becomes_no_element(page: Path) -> None:
    parsed = Parsed(page.read_text(encoding="utf-8"))
    names = [name for name, _ in parsed.elements]
    assert names.count("script") == 3  # the figures' numbers, plotly, and what draws
    assert names.count("svg") == 1  # the lineage
    assert names.count("style") == 1
    assert not {"img", "iframe", "object", "embed", "form", "base", "foreignobject"} & set(names)
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    # It is all there, as text.
    for text in ("<script>document.title='owned'</script>", "</style><img src=x onerror=alert(1)>", "{{ ''.__class__"):
        assert text in parsed.text


def test_hostile_text_is_in_no_script(page: Path) -> None:
    parsed = Parsed(page.read_text(encoding="utf-8"))
    figures, _, drawing = parsed.scripts
    assert len(drawing) < 1000
    assert {plot["id"] for plot in plots(parsed)} == set(FIGURES)
    for text in HOSTILE:
        assert text[:20] not in figures
        assert json.dumps(text)[1:-1][:20] not in figures


def test_characters_that_act_unseen_are_escapes(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    own = html[: html.index('<script type="application/json"')]
    unseen = {0, *range(1, 9), *range(0x0E, 0x20), 0x7F, *range(0x80, 0xA0), 0x200B, 0x2028, 0x2029, 0xFEFF}
    bidi = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}
    assert not {f"{ord(c):04x}" for c in set(own) if ord(c) in unseen | bidi or 0xD800 <= ord(c) <= 0xDFFF}
    assert "\\u202e" in own
    assert "lone \ufffd surrogates" in own  # Parquet has no halves of pairs


def test_nothing_is_loaded_from_outside(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    parsed = Parsed(html)
    for element, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action", "formaction", "background"):
            value = attributes.get(name)
            if name == "href" and value is not None and value.startswith("file:///"):
                assert element == "a"  # a file of the store, which is opened when a reader asks for it
                continue
            assert value is None or value.startswith(("#", "data:")), (name, value)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_plotly_is_there_once(page: Path) -> None:
    parsed = Parsed(page.read_text(encoding="utf-8"))
    banners = [re.search(r"plotly\.js \(basic - minified\) v([\d.]+)", script) for script in parsed.scripts]
    assert [banner[1] for banner in banners if banner] == [get_plotlyjs_version()], "fetch the one of this plotly"
    assert page.stat().st_size < 2_000_000
    viewport = [a for name, a in parsed.elements if name == "meta" and a.get("name") == "viewport"]
    assert viewport[0]["content"] == "width=device-width, initial-scale=1"


def long_report(report: Report, updates: int) -> Report:
    """The same with many updates of 38 metrics, one of them a spike."""
    rng = random.Random(1)
    names = [metric.name for metric in (*CHALLENGER, *UPDATES)]
    names += [f"other/{number}" for number in range(38 - len(names))]
    per = updates // 4

    def made(role: int) -> tuple[Update, ...]:
        return tuple(
            Update(i, n, n, {name: 99.5 if n == 77 else rng.gauss(role, 0.1) for name in names})
            for i in (1, 2)
            for n in range(1, per + 1)
        )

    return dataclasses.replace(report, challenger=made(1), solver=made(2))


@pytest.mark.slow
def test_the_page_of_a_long_training_is_under_2_mb_and_keeps_what_stands_out(report: Report) -> None:
    html = render(long_report(report, 1100))
    assert len(html.encode()) < 2_000_000
    parsed = Parsed(html)
    assert "Of every 6 updates in a row the lowest and the highest are drawn." in parsed.text
    for plot in plots(parsed):
        if plot["id"].startswith("challenger-"):
            assert [max(trace["y"]) for trace in plot["data"]] == [99.5, 99.5]
            assert POINTS // 2 < sum(len(trace["x"]) for trace in plot["data"]) <= POINTS + 8
            assert all(trace["x"][0] in (1, 276) and trace["x"][-1] in (275, 550) for trace in plot["data"])
    assert "demo-updates.csv: Optimizer updates, 1\u202f100 rows; left out of this page for its size" in parsed.text
    assert "selfevo artifacts rows RUN.yaml --to demo" in parsed.text
    assert "demo-scores.csv" in {a.get("download") for _, a in parsed.elements}


@pytest.mark.slow
def test_tokens_stand_beside_the_hours_of_a_phase_where_they_were_counted(report: Report) -> None:
    assert report.tokens == {}
    phases = {"solver-rollout": PhaseUsage(hours=1, tokens=1_234_567), "solver-train": PhaseUsage(hours=1)}
    status = RunStatus(usage=Usage(counted_at="", tokens=1_234_567, phases=phases))
    counted = dataclasses.replace(report, run=report.run.model_copy(update={"status": status}))
    assert counted.tokens == {"solver-rollout": 1_234_567}
    text = " ".join(Parsed(render(counted)).text.split())
    assert text.count("1 234 567") == 1 and "Tokens generated" in text
    assert "of all attempts that ended well" in text


def test_plots_hold_the_numbers(page: Path, report: Report) -> None:
    by_id = {plot["id"]: plot for plot in plots(Parsed(page.read_text(encoding="utf-8")))}
    mean = by_id["scores"]["data"][0]
    assert mean["y"] == [i.evaluation.mean.value for i in report.iterations if i.evaluation]
    assert mean["error_y"]["array"] == [i.evaluation.mean.stderr for i in report.iterations if i.evaluation]
    assert [trace["name"] for trace in by_id["shares"]["data"]] == ["in the band", "majority share", "label accuracy"]
    assert "Of every" not in page.read_text(encoding="utf-8")  # so few updates are all drawn
    # A NaN that TRL logged is a gap.
    assert [trace["y"][0] for trace in by_id["solver-kl"]["data"]] == [None, None]


@pytest.mark.slow
def test_a_tie_is_shown(tmp_path: Path, report: Report) -> None:
    first, last = report.iterations[1], report.iterations[2]
    results = {0: report.results[0], 1: report.results[1], 2: report.results[1]}
    tied = dataclasses.replace(
        report, best=1, results=results, iterations=(report.iterations[0], first, dataclasses.replace(first, number=2))
    )
    assert tied.tied == (2,) and report.tied == ()
    assert "at iteration 1, the best, tied with iteration 2: " in headline(tied)
    page = render(tied)
    assert "1 (best, tied)</td>" in page and "2 (tied with the best)</td>" in page
    assert rivals(tied) == "Within two standard errors of the best, question by question, is iteration 2."
    assert rivals(dataclasses.replace(report, best=None)) == "" and last.number == 2


def test_tables_are_there_as_csv_and_by_their_place(page: Path, report: Report) -> None:
    parsed = Parsed(page.read_text(encoding="utf-8"))
    links = {a["download"]: a["href"] for name, a in parsed.elements if name == "a" and "download" in a}
    assert set(links) == {"demo-scores.csv", "demo-curricula.csv", "demo-updates.csv"}
    text = unquote((links["demo-scores.csv"] or "").split(",", 1)[1])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["iteration"] for row in rows] == ["0", "1", "2"]
    assert [float(row["mean"]) for row in rows] == [i.evaluation.mean.value for i in report.iterations if i.evaluation]
    assert rows[0]["gain"] == "" and float(rows[2]["gain_stderr"]) > 0
    updates = list(csv.DictReader(io.StringIO(unquote((links["demo-updates.csv"] or "").split(",", 1)[1]))))
    assert [float(row["reward"]) for row in updates[:2]] == [
        pytest.approx(each.metrics["reward"], rel=1e-5) for each in report.challenger[:2]
    ]
    places = [file.uri for file in stored(report.steps)]
    assert len(places) == len(set(places)) == 16
    assert all(Path(unquote(place.removeprefix("file://"))).is_file() for place in places)
    assert all(place in page.read_text(encoding="utf-8") for place in places)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([], []),
        ([1.0], [0]),
        ([1.0, 5.0, 3.0, 2.0], [0, 1, 3]),
        ([1.0, 2.0, math.nan, math.inf, 3.0, 3.0], [0, 1, 2, 4, 5]),
        ([math.nan] * 6, [0, 4, 5]),
    ],
)
def test_of_updates_in_a_row_the_lowest_and_the_highest_are_drawn(values: list[float], kept: list[int]) -> None:
    assert places(values, 4) == kept
    assert places(values, 1) == list(range(len(values)))


@pytest.mark.parametrize(
    ("value", "cell"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("-0.5", "-0.5"), (-0.5, "-0.5"), ("a,b", '"a,b"'), (None, "")],
)
def test_a_cell_of_a_csv_is_no_formula(value: object, cell: str) -> None:
    assert written([{"a": value, "b": 1}]) == f"a,b\r\n{cell},1\r\n"


def test_every_kind_of_oracle_has_its_words() -> None:
    assert set(oracles.KINDS) == set(ORACLES)


@pytest.mark.slow
def test_label_accuracy_of_a_sample_has_its_error(tmp_path: Path) -> None:
    oracle = {"kind": "endpoint", "url": "https://llm", "model": "strong<er"}
    fake = fake_run(tmp_path, spec__rollout__oracle=oracle)
    report = collect(fake.run, fake.plan, fake.store)
    errors = [0.05, None, *[0.02] * len(report.iterations)]
    known = [
        i
        if i.rollout is None
        else dataclasses.replace(
            i, rollout=dataclasses.replace(i.rollout, label_accuracy=0.6, label_checked=80, label_error=error)
        )
        for i, error in zip(report.iterations[1:], errors, strict=False)
    ]
    html = render(dataclasses.replace(report, iterations=[report.iterations[0], *known]))
    shares = next(plot for plot in plots(Parsed(html)) if plot["id"] == "shares")["data"][2]
    drawn = [error or 0.0 for error in errors[: len(known)]]
    assert shares["name"] == "label accuracy" and shares["error_y"]["array"] == drawn
    assert "± 5.0" in html and "Labels compared" in html and "<td>80</td>" in html and "strong&lt;er" in html
    assert "agreement with a stronger model" in html and "Malformed" not in html
    unjudged = [
        i if i.rollout is None else dataclasses.replace(i, rollout=dataclasses.replace(i.rollout, label_accuracy=None))
        for i in known
    ]
    none = render(dataclasses.replace(report, iterations=[report.iterations[0], *unjudged]))
    assert "the oracle of kind endpoint has judged none" in none


def test_environment_values_stay_behind(tmp_path: Path) -> None:
    secret = [{"name": "HF_TOKEN", "value": "hf_secret"}]
    fake = fake_run(tmp_path, until="challenger-train-1", spec__pods={"env": secret})
    html = render(collect(fake.run, fake.plan, fake.store))
    assert "HF_TOKEN" in html
    assert "hf_secret" not in html


# ---- runs of other shapes


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("evaluate-0", "0 of 9 steps are done. Not there yet: evaluate-0, challenger-train-1, solver-rollout-1,"),
        ("challenger-train-1", "challenger-train-1 (checkpoint after step 1 of 2), solver-rollout-1,"),
        ("solver-rollout-2", "6 of 9 steps are done. Not there yet: solver-rollout-2 (30 of 60 questions answered),"),
        pytest.param("evaluate-2", "8 of 9 steps are done. Not there yet: evaluate-2.", marks=pytest.mark.slow),
    ],
)
def test_an_unfinished_run_says_what_is_missing(tmp_path: Path, until: str, expected: str) -> None:
    fake = fake_run(tmp_path, until=until)
    path = tmp_path / "report.html"
    write_report(fake.run, fake.plan, fake.store, path)
    parsed = Parsed(path.read_text(encoding="utf-8"))
    assert expected in parsed.text
    assert "not yet" in parsed.text
    ids = {attributes.get("id") for name, attributes in parsed.elements if name == "div"}
    assert {plot["id"] for plot in plots(parsed)} <= ids


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"spec__evaluation": None},
        {"spec__challenger__grpo__maxSteps": 0},
        pytest.param({"spec__solver__grpo__maxSteps": 0}, marks=pytest.mark.slow),
        {"spec__evaluation__every": 2, "spec__iterations": 3},
        pytest.param({"spec__rollout__labels": "random"}, marks=pytest.mark.slow),
        pytest.param({"spec__iterations": 14}, marks=pytest.mark.slow),
        pytest.param({"spec__rollout__oracle": None}, marks=pytest.mark.slow),
        pytest.param({"spec__rollout__oracle": {"kind": "sorting"}}, marks=pytest.mark.slow),
        {
            "spec__evaluation__tasks": [
                {"name": "one", "data": {"uri": "file:///one"}},
                {"name": "two", "data": {"uri": "file:///two"}},
            ]
        },
    ],
    ids=lambda changes: next(iter(changes)).removeprefix("spec__"),
)
def test_runs_of_other_shapes(tmp_path: Path, changes: dict[str, Any]) -> None:
    fake = fake_run(tmp_path, **changes)
    report = collect(fake.run, fake.plan, fake.store)
    parsed = Parsed(render(report))
    assert not report.missing
    ids = {attributes.get("id") for name, attributes in parsed.elements if name == "div"}
    assert {plot["id"] for plot in plots(parsed)} <= ids
    for column in range(len(report.plan.by_name)):
        assert report.steps[column].step.name in parsed.text


# ---- what goes wrong


def test_what_a_challenger_wrote_that_never_wrote_a_question_is_shown(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="challenger-train-1")
    step = fake.plan.by_name["challenger-train-1"]
    rows = [{"question": None, "raw": f"number {i} {HOSTILE}"} for i in range(20)]
    (tmp_path / "questions.jsonl").write_bytes(lines(rows))
    manifest = read_manifest(fake.store, fake.prefix("evaluate-0"))
    assert manifest is not None
    kept = {name: value for name, value in manifest if name in ManifestDraft.model_fields}
    draft = ManifestDraft(**{**kept, "key": step.key, "phase": step.phase, "iteration": 1})
    place = failed_prefix(fake.prefix(step.name))
    commit(fake.store, place, {"questions.jsonl": tmp_path / "questions.jsonl"}, draft)
    report = collect(fake.run, fake.plan, fake.store, "challenger-train-1 failed")
    assert [(samples.iteration, len(samples.dropped)) for samples in report.unusable] == [(1, KEPT)]
    parsed = Parsed(render(report))
    assert "the Challenger's training ended, for it wrote no valid question" in parsed.text
    assert "number 0" in parsed.text and "number 19" in parsed.text

    # Once a later attempt has done the step, it is of no interest any more.
    (tmp_path / "metrics.jsonl").write_text("")
    commit(fake.store, fake.prefix(step.name), {"metrics.jsonl": tmp_path / "metrics.jsonl"}, draft)
    assert collect(fake.run, fake.plan, fake.store).unusable == ()


def test_a_foreign_manifest_is_refused(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-train-1")
    theirs = fake.store.read_bytes(f"{fake.prefix('evaluate-0')}/{MANIFEST_NAME}")
    fake.store.put_bytes(f"{fake.prefix('solver-train-1')}/{MANIFEST_NAME}", theirs)
    with pytest.raises(InputError, match="belongs to evaluate"):
        write_report(fake.run, fake.plan, fake.store, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-1")
    prefix = fake.prefix("challenger-train-1")
    manifest = read_manifest(fake.store, prefix)
    assert manifest is not None
    stored = manifest.file("metrics.jsonl")
    assert stored is not None
    fake.store.put_bytes(f"{prefix}/{stored.path}", b"{}")
    with pytest.raises(CorruptArtifact, match=r"metrics\.jsonl"):
        write_report(fake.run, fake.plan, fake.store, tmp_path / "report.html")


def test_a_damaged_row_is_named_with_its_field(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="challenger-train-1")
    (tmp_path / "metrics.jsonl").write_bytes(
        lines([{"loss": 0.5, "step": 1, "update": 1}, {"step": "two", "update": 2}])
    )
    step = fake.plan.by_name["challenger-train-1"]
    draft = ManifestDraft(key=step.key, phase=step.phase, iteration=1)
    commit(fake.store, fake.prefix(step.name), {"metrics.jsonl": tmp_path / "metrics.jsonl"}, draft)
    with pytest.raises(
        InputError, match=r"file 'metrics.jsonl', line 2 has \"two\" in the field 'step', which should be"
    ):
        write_report(fake.run, fake.plan, fake.store, tmp_path / "report.html")


def test_an_unwritable_path_is_one_sentence(
    fake: FakeRun, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    html = page.read_text(encoding="utf-8")
    monkeypatch.setattr("selfevo.report.page.render", lambda report: html)  # drawn once, for the other tests
    for path in (tmp_path / "none" / "report.html", tmp_path, Path("/")):
        with pytest.raises(SelfevoError) as caught:
            write_report(fake.run, fake.plan, fake.store, path)
        assert str(caught.value).startswith(f"the report cannot be written to {path}: ")
        assert "-o" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_older_report_is_replaced_and_the_same_store_gives_the_same_report(
    fake: FakeRun, page: Path, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(fake.run, fake.plan, fake.store, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.read_bytes() == page.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_report_needs_no_torch() -> None:
    code = "import selfevo.report.page, selfevo.report.collect, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- in a browser

DRAWN = """
Object.fromEntries([...document.querySelectorAll(".plot")].map(plot => [plot.id, {
  marks: plot.querySelectorAll("path.js-line, .points path, .bars path").length,
  empty: [...plot.querySelectorAll("path.js-line")].filter(line => !line.getAttribute("d")).length,
  width: plot.querySelector(".main-svg")?.getBoundingClientRect().width ?? 0,
  room: plot.getBoundingClientRect().width,
  text: getComputedStyle(plot.querySelector(".xtick text")).fill,
}]))
"""


UNFOLDED = """
document.querySelectorAll("details").forEach(part => { part.open = true });
new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))
"""


@pytest.fixture(scope="session")
def browser() -> str:
    path = chromium.find()
    if path is None:
        pytest.skip("there is no Chromium here (tests/install-debian-packages installs it)")
    return path


def luminance(colour: str) -> float:
    """Of ``rgb(r, g, b)``, 0..1."""
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "mobile", "dark"),
    [(1200, False, False), (390, True, True)],
    ids=["desktop", "phone-dark"],
)
def test_a_browser_draws_every_plot(
    browser: str, page: Path, tmp_path: Path, width: int, mobile: bool, dark: bool
) -> None:
    with chromium.opened(browser, page, width=width, height=900, mobile=mobile, dark=dark) as tab:
        # On a phone the long parts are folded, and their plots are drawn when they are opened.
        folded = tab.evaluate("document.querySelectorAll('details.fold:not([open])').length")
        assert (folded > 3) == mobile
        tab.evaluate(UNFOLDED)
        drawn = tab.evaluate(DRAWN)
        assert set(drawn) == set(FIGURES)
        for name, plot in drawn.items():
            assert plot["marks"] > 0, name
            assert plot["empty"] == 0, name
            assert 0 < plot["width"] <= plot["room"] + 1, name
            # Text stands out from the page, whichever of the two it is.
            assert (luminance(plot["text"]) > 0.5) == dark, name
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (luminance(background) < 0.2) == dark
        # Nothing sticks out sideways, with everything unfolded too.
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate("document.title") == "demo: self-evolution report"
        assert tab.requests == [page.resolve().as_uri()]
        assert tab.complaints == []
        shot = tab.screenshot(tmp_path / "report.png")
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 50_000


@pytest.mark.slow
def test_a_browser_runs_no_script_but_ours(browser: str, page: Path, tmp_path: Path) -> None:
    """Even if escaping failed: the policy names the scripts that may run."""
    html = page.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    injected = "<script>window.owned = 1</script><img src='https://attacker.example/' onerror='window.owned = 2'>"
    broken.write_text(html.replace("<nav", f"{injected}<nav", 1), encoding="utf-8")
    with chromium.opened(browser, broken) as tab:
        assert tab.evaluate("window.owned") is None
        assert tab.evaluate("document.querySelectorAll('.plot .main-svg').length") > 0
        assert any("Content Security Policy" in complaint for complaint in tab.complaints)


@pytest.mark.slow
def test_a_browser_draws_an_unfinished_run(browser: str, tmp_path: Path) -> None:
    fake = fake_run(tmp_path, until="solver-rollout-1")
    path = tmp_path / "report.html"
    write_report(fake.run, fake.plan, fake.store, path)
    with chromium.opened(browser, path) as tab:
        drawn = tab.evaluate(DRAWN)
        assert {"scores", "challenger-reward", "times"} <= set(drawn)
        assert "shares" not in drawn
        assert all(plot["marks"] > 0 for plot in drawn.values())
        assert tab.complaints == []
