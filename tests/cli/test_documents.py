"""A manifest with several runs: run, plan, size and report take one after another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.cli import Project


@pytest.fixture
def both(project: Project) -> Path:
    """Two runs in one file, and a document of another kind between them; they differ in the seed."""
    made = [
        yaml.safe_load(project.write(metadata={"name": name}, spec__seed=seed).read_text())
        for name, seed in (("one", 1), ("two", 2))
    ]
    path = project.root / "both.yaml"
    path.write_text(yaml.safe_dump_all([made[0], {"kind": "ConfigMap"}, made[1]]))
    return path


@pytest.mark.slow
def test_each_run_has_its_turn(project: Project, both: Path) -> None:
    done = project.drive("both.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("run ")] == [
        "run one (1 of 2)",
        "run two (2 of 2)",
    ]
    worked = project.worked()
    assert sorted(worked[: len(worked) // 2]) == sorted(worked[len(worked) // 2 :]) and "solver-train-1" in worked
    planned = project.invoke("plan", "both.yaml")
    assert planned.returncode == 0 and planned.stdout.count("run ") >= 2
    text = project.invoke("plan", "both.yaml", "-o", "json").stdout
    decoder, plans = json.JSONDecoder(), []
    while text.strip():
        plan, end = decoder.raw_decode(text.lstrip())
        plans.append(plan)
        text = text.lstrip()[end:]
    assert len(plans) == 2 and all(step["exists"] for plan in plans for step in plan["steps"])
    written = project.invoke("report", "both.yaml")
    assert written.stdout.splitlines() == ["wrote one-report.html", "wrote two-report.html"]
    assert {path.name for path in project.root.glob("*.html")} == {"one-report.html", "two-report.html"}


@pytest.mark.slow
def test_one_that_fails_does_not_keep_the_other_from_its_turn(project: Project, both: Path) -> None:
    project.order("solver-train-1", exit=2, times=1)
    done = project.drive("both.yaml", "--quiet")
    assert (done.returncode, done.stdout) == (2, "") and project.worked().count("solver-train-1") == 2
    first, other, second = yaml.safe_load_all(both.read_text())
    first["spec"]["model"]["uri"] = "file:nowhere"
    both.write_text(yaml.safe_dump_all([first, other, second]))
    shown = project.invoke("plan", "both.yaml")
    assert shown.returncode == 2 and "run two (2 of 2)" in shown.stdout
    assert shown.stderr.startswith("selfevo: run one: spec.model.uri is 'file:nowhere'")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status", "both.yaml"], "both.yaml holds 2 SelfEvolutionRun in 3 documents; this command takes exactly one"),
        (
            ["report", "both.yaml", "-o", "x.html"],
            "run one: -o names one file, and both.yaml holds several runs; leave",
        ),
    ],
)
def test_what_takes_one_run_says_so(project: Project, both: Path, arguments: list[str], sentence: str) -> None:
    done = project.invoke(*arguments)
    assert done.returncode == 2 and sentence in " ".join(done.stderr.split())


def test_two_runs_of_one_name_are_refused_before_anything_begins(project: Project, both: Path) -> None:
    both.write_text(both.read_text().replace("name: two", "name: one"))
    done = project.drive("both.yaml")
    assert done.returncode == 2 and not project.worked()
    assert done.stderr == "selfevo: both.yaml holds two runs named one; give each a metadata.name of its own\n"
