"""`selfevo sweep`: a manifest and a grid, as a folder of manifests and as runs here, with the fake trainer."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import Project
from harness.runs import document
from selfevo.manifest import load, read_document, read_yaml
from selfevo.sweeps.files import moved
from selfevo.sweeps.grid import Axis, Cell, cells_of, parse_axis, parse_seeds
from selfevo.sweeps.places import check_places
from selfevo.sweeps.results import Result, Steps, table
from selfevo_contract.errors import InputError
from selfevo_contract.run import SelfEvolutionRun
from selfevo_contract.spec.run import RunSpec

DOCUMENT: dict[str, Any] = {
    "metadata": {"name": "demo", "labels": {"team": "a"}},
    "spec": {"seed": 7, "solver": {"grpo": {"maxSteps": 15}}, "evaluation": {"tasks": [{"name": "one"}]}},
}


def axes(*texts: str) -> list[Axis]:
    return [parse_axis(text, read_yaml) for text in texts]


def names(*texts: str, seeds: str | None = None) -> list[str]:
    return [cell.name for cell in cells_of(DOCUMENT, axes(*texts) + ([parse_seeds(seeds)] if seeds else []), 100)]


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("solver.grpo.lora.rank=8,32", "solver.grpo.lora.rank", (8, 32)),
        ("spec.solver.grpo.learningRate=1e-6, .5", "solver.grpo.learningRate", (1e-6, 0.5)),
        ("challenger.grpo.lora=null,{rank: 8}", "challenger.grpo.lora", (None, {"rank": 8})),
        ("rollout.band=[1,2],{min: .1, max: .9}", "rollout.band", ([1, 2], {"min": 0.1, "max": 0.9})),
        ("suspend=true,false", "suspend", (True, False)),
        ("solver.prompt.user='a, b','1'", "solver.prompt.user", ("a, b", "1")),
        ("evaluation.tasks[0].samples=2", "evaluation.tasks[0].samples", (2,)),
        ("pods.resources={limits: {cpu: 500m}},{limits: {cpu: 2}}", "pods.resources", None),
    ],
)
def test_a_setting_is_a_field_and_values_as_a_manifest_has_them(text: str, path: str, values: Any) -> None:
    axis = parse_axis(text, read_yaml)
    assert axis.path == path and (values is None or axis.values == values)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", [0, 1, 2, 3, 4]), ("7", [7]), ("0,3, 10-12", [0, 3, 10, 11, 12]), ("5-5", [5])],
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert list(parse_seeds(text).values) == seeds


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "a sweep needs at least one --set FIELD=VALUE,VALUE or --seeds; add one"),
        (["--set", "seed"], "--set seed is not a field and its values; write it as solver.grpo.learningRate=1e-6,3e-6"),
        (["--set", "a b=1"], "--set a b=1 is not a field"),
        (["--set", "solver..grpo=1"], "--set solver..grpo=1 is not a field"),
        (["--set", "seed="], "--set seed= has no value; write one or more behind the ="),
        (["--set", "seed=1,1"], "--set seed=1,1 has 1 twice; keep one of them"),
        (["--set", "iterations=2,2.0"], "--set iterations=2,2.0 has 2.0 twice; keep one of them"),
        (["--set", "seed=[1"], "--set seed=[1: the values are no list in YAML (expected ',' or ']'"),
        (["--seeds", "4-1"], "--seeds 4-1 is not a list of seeds; write it as 0-4, or 0,3,10-12"),
        (["--seeds", "-1"], "--seeds -1 is not a list of seeds"),
        (["--seeds", "1,1"], "--seeds 1,1 has 1 twice; keep one of them"),
        (["--seeds", "0-999999999"], "--seeds 0-999999999 comes to 1000000000 seeds; write fewer"),
        (["--seeds", "0-1", "--set", "seed=3"], "seed is set by more than one option; write all of its values behind"),
        (["--seeds", "0-100"], "the sweep comes to 101 runs, and --limit is 100; set fewer values, or raise --limit"),
        (
            ["--set", "solver.grpo.maxStep=2"],
            "with solver.grpo.maxStep=2: spec.solver.grpo.maxStep is not a field; did",
        ),
        (["--set", "solver.grpo.maxSteps=2,-2"], "with solver.grpo.maxSteps=-2: spec.solver.grpo.maxSteps is -2; it"),
        (["--set", "iterations=one"], 'with iterations=one: spec.iterations is "one"; it must be a whole number'),
        (["--set", "iterations.first=1"], "--set iterations.first=1: the manifest has no place for first in"),
        (["--set", "exclude[0].uri=x"], "--set exclude[0].uri=x: the manifest has no place for [0] in spec.exclude[0]"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_nothing_is_written(
    project: Project, options: list[str], sentence: str
) -> None:
    project.write(spec__exclude=[])
    done = project.invoke("sweep", "run.yaml", *options, "-o", "cells")
    assert done.returncode == 2 and " ".join(done.stderr.split()).startswith(f"selfevo: {sentence}"), done.stderr
    assert not (project.root / "cells").exists() and not (project.workdir / "sweeps").exists()


def test_a_name_says_the_settings_and_is_a_dns_label_of_its_own() -> None:
    assert names("solver.grpo.maxSteps=2,15", seeds="0-1") == [
        "demo-solver-grpo-max-steps-2-seed-0",
        "demo-solver-grpo-max-steps-2-seed-1",
        "demo-solver-grpo-max-steps-15-seed-0",
        "demo-solver-grpo-max-steps-15-seed-1",
    ]
    # By the whole path: another sweep of the manifest, of another role's field of that name, is of other runs.
    assert names("rollout.band.min=.25", "suspend=true") == ["demo-rollout-band-min-0-25-suspend-true"]
    assert names("solver.grpo.lora=null") == ["demo-solver-grpo-lora-null"]
    # Of two kinds that are written alike, a text has the digest.
    number, text = names("solver.prompt.user=0.5,'0-5'")
    assert number == "demo-solver-prompt-user-0-5" and text.startswith(f"{number}-") and text != number
    # Values that a label cannot tell apart, and names that are too long, end in a digest.
    alike = names(
        "solver.prompt.user='a b','a_b','a-b'", "model.uri=hf://an-organisation/with-a-very-long-name-of-a-model"
    )
    assert len(set(alike)) == 3
    for name in itertools.chain(alike, names("solver.prompt.user='','ÄÖ','?'")):
        assert re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name
    assert alike == names(
        "solver.prompt.user='a b','a_b','a-b'", "model.uri=hf://an-organisation/with-a-very-long-name-of-a-model"
    )


def test_cells_are_all_combinations_and_the_manifest_is_left_as_it_is() -> None:
    before = yaml.safe_dump(DOCUMENT)
    cells = cells_of(
        DOCUMENT, [*axes("rollout.band.min=.1,.2", "evaluation.tasks[0].samples=4"), parse_seeds("0-1")], 4
    )
    assert [cell.label for cell in cells][1:3] == [
        "rollout.band.min=0.1 evaluation.tasks[0].samples=4 seed=1",
        "rollout.band.min=0.2 evaluation.tasks[0].samples=4 seed=0",
    ]
    assert cells[3].document["spec"] == {
        "seed": 1,
        "solver": {"grpo": {"maxSteps": 15}},
        "rollout": {"band": {"min": 0.2}},
        "evaluation": {"tasks": [{"name": "one", "samples": 4}]},
    }
    assert cells[3].document["metadata"]["labels"] == {"team": "a", "selfevo.dev/sweep": "demo"}
    assert yaml.safe_dump(DOCUMENT) == before


def placed(*settings: str, **changes: Any) -> list[tuple[Cell, RunSpec]]:
    cells = cells_of(document(spec__publish={"to": "s3://there/sums"}, **changes), axes(*settings), 100)
    return [(cell, SelfEvolutionRun.model_validate(cell.document).spec) for cell in cells]


@pytest.mark.parametrize(
    "settings",
    [
        ["seed=1,2"],
        ["seed=1,2", "publish.what=each"],
        ["seed=1,2", "publish.to=hf://a/b,hf://a/c"],
        ["publish.to=s3://there/a,s3://there/a/", "solver.grpo.learningRate=1e-6,3e-6"],
        ["evaluation=null", "iterations=2,3"],  # without scores, the last is the best
    ],
)
def test_two_runs_of_a_sweep_do_not_publish_different_solvers_to_one_place(settings: list[str]) -> None:
    with pytest.raises(InputError, match=r"^publish\.to comes to '.*' with .* and with .*, whose Solvers differ, and"):
        check_places(placed(*settings))


@pytest.mark.parametrize(
    "settings",
    [
        ["publish.to=hf://a/b,hf://a/c"],
        ["publish.to=s3://there/a,s3://there/a/"],
        ["seed=1,2", "publish=null"],
        ["iterations=2,4", "publish.what=each"],
        ["iterations=2,4"],  # the best of four may be one of the first two
        ["publish.what=best,each"],
        ["evaluation.samples=1,2"],
        ["forkFrom.iteration=1,2", "forkFrom.run=other", "iterations=4", "publish.what=each"],
    ],
)
def test_a_sweep_that_publishes_the_same_solvers_or_elsewhere_is_made(settings: list[str]) -> None:
    check_places(placed(*settings))


def test_a_sweep_that_would_publish_twice_is_refused_before_anything_begins(project: Project) -> None:
    project.write(spec__publish={"to": "s3://there/sums"})
    done = project.invoke("sweep", "run.yaml", "--seeds", "0-1", "-o", "cells")
    assert done.returncode == 2 and "'s3://there/sums' with seed=0 and with seed=1, whose Solvers" in done.stderr
    assert not (project.root / "cells").exists()
    made = project.invoke("sweep", "run.yaml", "--set", "iterations=2,4", "--set", "publish.what=each", "-o", "cells")
    assert (made.returncode, made.stderr) == (0, "")


def test_a_folder_of_manifests_names_the_same_places_and_is_one_for_kustomize(project: Project) -> None:
    done = project.invoke("sweep", "run.yaml", "--seeds", "0-1", "-o", "deep/cells")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "deep/cells holds 2 runs; `kubectl apply -k deep/cells` queues them all\n"
    folder = project.root / "deep" / "cells"
    assert sorted(file.name for file in folder.iterdir()) == [
        "demo-seed-0.yaml",
        "demo-seed-1.yaml",
        "kustomization.yaml",
    ]
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert listed["kind"] == "Kustomization" and listed["resources"] == ["demo-seed-0.yaml", "demo-seed-1.yaml"]
    here, there = load(project.root / "run.yaml"), load(folder / "demo-seed-1.yaml")
    assert there.spec == here.spec.model_copy(update={"seed": 1})
    assert [path.name for path in (project.root / "deep").iterdir()] == ["cells"]  # nothing half-written beside it

    again = project.invoke("sweep", "run.yaml", "--seeds", "0-1", "-o", "deep/cells")
    assert (again.returncode, again.stderr.strip()) == (
        2,
        "selfevo: -o deep/cells is there already; name a new folder, or remove that one",
    )


def test_places_are_moved_and_other_text_is_not(tmp_path: Path) -> None:
    old, new = tmp_path / "a", tmp_path / "b" / "c"
    document = {
        "spec": {
            "model": {"uri": "file:base"},
            "storage": {"uri": "file:../store"},
            "exclude": [{"uri": "file:///data/x"}, {"uri": "hf://a/b"}],
            "solver": {"prompt": {"user": "file:it"}},
        }
    }
    spec = moved(document, old, new)["spec"]
    assert (spec["model"]["uri"], spec["storage"]["uri"]) == ("file:../../a/base", "file:../../store")
    assert {key: spec[key] for key in ("exclude", "solver")} == {k: document["spec"][k] for k in ("exclude", "solver")}


@pytest.mark.slow
def test_what_two_runs_share_is_trained_once_and_the_table_has_mean_and_spread(project: Project) -> None:
    project.evaluated()
    # Of the Solver's training alone: everything before it is the same.
    options = ("run.yaml", "--set", "solver.grpo.maxSteps=2,3", "--seeds", "5-6")
    done = project.drive(*options, verb="sweep")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "4 runs, 20 steps, of which 6 are shared: 14 are done now"
    assert project.worked().count("solver-train-1") == 4 and project.worked().count("challenger-train-1") == 2
    assert "demo-solver-grpo-max-steps-2-seed-5 (1 of 4): solver.grpo.maxSteps=2 seed=5" in lines
    at = next(n for n, line in enumerate(lines) if line.split()[:2] == ["run", "phase"])
    assert [line.split()[:2] for line in lines[at + 1 : at + 5]] == [
        [f"demo-solver-grpo-max-steps-{steps}-seed-{seed}", "Succeeded"] for steps in (2, 3) for seed in (5, 6)
    ]
    assert lines[at + 6].split() == ["settings", "seeds", "mean", "score", "standard", "deviation"]
    assert [line.split()[:2] for line in lines[at + 7 :]] == [
        [f"solver.grpo.maxSteps={steps}", "2"] for steps in (2, 3)
    ]

    worked = project.worked()
    again = project.drive(*options, "--quiet", verb="sweep")
    assert again.returncode == 0 and project.worked() == worked  # all is in the store
    assert again.stdout.split()[:2] == ["run", "phase"]
    manifest = project.workdir / "sweeps" / "demo" / "demo-solver-grpo-max-steps-2-seed-5.yaml"
    assert "Succeeded" in project.invoke("status", str(manifest)).stdout


@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_the_others_from_their_turn(project: Project) -> None:
    project.order("solver-train-1", exit=2, times=1)
    done = project.drive("run.yaml", "--seeds", "0-1", verb="sweep")
    assert done.returncode == 2
    table = done.stdout.splitlines()[-6:]
    assert any(line.split()[:2] == ["demo-seed-0", "Failed"] for line in table), done.stdout
    assert any(line.split()[:2] == ["demo-seed-1", "Succeeded"] for line in table), done.stdout


def test_steps_in_words() -> None:
    assert Steps(6, 6, 0).sentence == "6 steps"
    assert Steps(6, 5, 0).sentence == "6 steps, of which 1 is shared: 5 are done now"
    assert Steps(6, 4, 3).sentence == "6 steps, of which 2 are shared and 3 are in the store already: 1 is done now"


def test_the_spread_is_the_standard_deviation_of_scores_over_seeds() -> None:
    cells = [Cell(f"demo-{n}", {"seed": n}, {}) for n in range(4)]
    scores = [0.5, 0.6, 0.7, None]
    lines = table([Result(c, "Succeeded", 1, score) for c, score in zip(cells, scores, strict=True)], None)
    assert re.split(r"\s{2,}", lines[-1].strip()) == ["as in the manifest", "3", "60.0 %", "10.0"]


def test_only_a_manifest_that_is_right_by_itself_is_swept(project: Project) -> None:
    project.write(spec__iterations=0)
    with pytest.raises(InputError, match=r"spec\.iterations is 0"):
        read_document(project.root / "run.yaml")
