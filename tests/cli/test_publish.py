"""spec.publish as the command shows it: driven with the fake trainer, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import Project
from harness.fake_run import fake_run
from selfevo.report import write_report
from selfevo.report.collect import collect


@pytest.mark.slow
def test_a_run_publishes_its_best_solver_and_says_where(project: Project) -> None:
    project.evaluated()
    assert project.drive("run.yaml").returncode == 0
    project.evaluated(spec__publish={"to": "file:out"})  # it may come when the run has ended
    done = project.drive("run.yaml")
    assert (done.returncode, project.worked()[-1]) == (0, "publish-1")
    assert "4 of 5 files were not there" in done.stdout
    assert f"Published: iteration 1, file://{project.root}/out" in done.stdout
    shown = project.invoke("status", "run.yaml").stdout
    assert f"published: iteration 1, file://{project.root}/out" in shown


@pytest.mark.slow
def test_without_a_token_nothing_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(project.root / "no-token"))
    project.evaluated(spec__publish={"to": "hf://acme/sums"})
    refused = project.drive("run.yaml")
    assert (refused.returncode, project.worked()) == (2, [])
    assert "spec.publish.to is 'hf://acme/sums', and no token may write there; set HF_TOKEN, or" in refused.stderr
    project.environment["HF_TOKEN"] = "mine"
    assert project.drive("run.yaml").returncode == 0
    assert "published: iteration 1, hf://acme/sums" in project.invoke("status", "run.yaml").stdout
    del project.environment["HF_TOKEN"]
    assert project.drive("run.yaml").returncode == 0  # it is done


@pytest.mark.slow
def test_a_publication_is_a_step_of_the_report(tmp_path: Path) -> None:
    fake = fake_run(tmp_path, spec__publish={"to": "hf://acme/sums", "what": "each"}, spec__iterations=1)
    report = collect(fake.run, fake.plan, fake.store)
    assert report.best == 1 and not report.missing
    path = tmp_path / "report.html"
    write_report(fake.run, fake.plan, fake.store, path)
    assert "Publication" in path.read_text()
