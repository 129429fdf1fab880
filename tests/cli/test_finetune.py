"""spec.finetune as the command shows it: driven with the fake trainer, shown in lines and in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import Project
from harness.fake_run import fake_run
from selfevo.report import write_report
from selfevo.report.collect import collect

LABELLED = {"data": {"uri": "file:labelled.jsonl"}, "maxSteps": 4}
CLOSING = ["finetune-1", "finetune-evaluate-1", "finetune-0", "finetune-evaluate-0"]


@pytest.fixture
def labelled(project: Project) -> Project:
    (project.root / "labelled.jsonl").write_text('{"question": "2 + 2", "answer": "4"}\n')
    return project


@pytest.mark.slow
def test_a_run_finetunes_its_best_solver_and_the_base_and_says_both_scores(labelled: Project) -> None:
    labelled.evaluated()
    assert labelled.drive("run.yaml").returncode == 0
    labelled.evaluated(spec__finetune=LABELLED)  # it may come when the run has ended
    done = labelled.drive("run.yaml")
    assert (done.returncode, labelled.worked()[-4:]) == (0, CLOSING)
    assert "Fine-tuned: iteration 1, score 75.0 % (the base on the same data 70.0 %)" in done.stdout
    assert "finetune-1 done in " in done.stdout and "9 of 10 rows, loss 0.5 -> 0.25" in done.stdout
    status = labelled.recorded().status
    assert status is not None and status.finetune is not None and status.best is not None
    assert (status.finetune.score, status.finetune.control_score, status.best.score) == (0.75, 0.7, 0.6)

    shown = labelled.invoke("status", "run.yaml").stdout
    assert "fine-tuned: iteration 1, score 75.0 % (the base on the same data 70.0 %)" in shown
    path = labelled.invoke("artifacts", "path", "run.yaml", "--role", "finetuned").stdout.strip()
    assert path == status.finetune.model_uri and f"fine-tuned model: {path}" in shown
    control = labelled.invoke("artifacts", "path", "run.yaml", "--role", "finetuned", "--iteration", "0").stdout
    assert "/default/finetune/" in control and control.strip() != path


@pytest.mark.slow
def test_the_store_alone_knows_what_was_finetuned(labelled: Project) -> None:
    labelled.evaluated(spec__finetune=LABELLED)
    assert labelled.drive("run.yaml").returncode == 0
    labelled.status_file.unlink()
    shown = labelled.invoke("status", "run.yaml").stdout
    assert "9 of 9 steps done" in shown and "fine-tuned: iteration 1, score 75.0 %" in shown


def test_what_is_not_finetuned_has_no_finetuned_model(labelled: Project) -> None:
    labelled.evaluated(spec__finetune={**LABELLED, "control": False})
    asked = ("artifacts", "path", "run.yaml", "--role", "finetuned", "--iteration")
    message = labelled.invoke(*asked, "0").stderr
    assert "iteration 0's Solver is not fine-tuned in this run; choose --iteration 1" in message
    assert "iteration 1's fine-tuned model is not there yet: finetune-1 has" in labelled.invoke(*asked, "1").stderr
    labelled.evaluated()
    assert "not fine-tuned in this run; add spec.finetune" in labelled.invoke(*asked, "1").stderr


def test_labelled_data_that_is_not_there_is_named_with_its_field(project: Project) -> None:
    project.write(spec__finetune=LABELLED)
    refused = project.invoke("plan", "run.yaml")
    assert refused.returncode == 2
    assert "spec.finetune.data.uri is 'file:labelled.jsonl'" in refused.stderr and "there is no file" in refused.stderr


@pytest.mark.slow
def test_the_report_has_both_scores_and_the_paired_gain_over_the_control(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__finetune={"data": {"uri": "s3://bucket/labelled.jsonl"}})
    report = collect(fake.run, fake.plan, fake.store)
    tuned, control = report.finetuned
    assert (tuned.number, control.number, control.over_control) == (2, 0, None)
    assert tuned.after is not None and control.after is not None and tuned.before is not None
    assert tuned.before.mean == report.iterations[2].evaluation.mean  # type: ignore[union-attr]
    assert tuned.over_control is not None and tuned.over_control.stderr is not None
    assert tuned.over_control.value == pytest.approx(tuned.after.mean.value - control.after.mean.value)
    assert report.best == 2 and not report.missing
    path = tmp_path / "report.html"
    write_report(fake.run, fake.plan, fake.store, path)
    html = path.read_text()
    assert "After fine-tuning" in html and f"{100 * tuned.after.mean.value:.1f}" in html
    assert "s3://bucket/labelled.jsonl" in html


@pytest.mark.slow
def test_a_report_of_a_run_without_finetuning_has_no_such_part(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__iterations=1)
    path = tmp_path / "report.html"
    write_report(fake.run, fake.plan, fake.store, path)
    assert "After fine-tuning" not in path.read_text()
